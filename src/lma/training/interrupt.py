"""Ctrl-C between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class DeferredInterrupt:
    """Turns the first SIGINT into a request, which `obey` raises when the time is right.

    A second SIGINT is not waited with. Outside the main thread, where Python takes no signals, it
    does nothing. The handler that was there before is back after `obey` or `close`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.close()

    def obey(self) -> None:
        """Raise `KeyboardInterrupt` if one was asked for."""
        if self.requested:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Put back the handler that was there before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def __enter__(self) -> DeferredInterrupt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
