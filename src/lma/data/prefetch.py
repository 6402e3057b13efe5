"""Running an iterator ahead of its consumer in a background thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

_T = TypeVar("_T")


class _End:
    """What the thread puts last: nothing more, or the error that ended it."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterator[_T], depth: int) -> Generator[_T, None, None]:
    """The same items, up to `depth` of them made ahead in a thread.

    The thread starts with the first item asked for. It ends with the items, with an error (which
    is raised here, in its place), or when the consumer stops.

    Args:
        items: Any iterator; used by the thread only.
        depth: Items that may wait; 0 makes no thread.
    """
    if depth < 1:
        yield from items
        return
    waiting: queue.Queue[_T | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: _T | _End) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def produce() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    break
        except BaseException as error:
            put(_End(error))
        else:
            put(_End(None))

    thread = threading.Thread(target=produce, name="lma-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()
