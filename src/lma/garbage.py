"""Python's garbage collector kept from running while modules are loaded."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection inside, if there was any before.

    Loading modules makes some hundred thousand objects that stay, and every collection among them
    goes through all that torch has: a tenth of the time until the first step.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
