"""The garbage collector rests while modules are loaded, and only if it ran before."""

from __future__ import annotations

import gc

import pytest

from lma.garbage import collection_paused


@pytest.mark.parametrize("running", [True, False])
def test_collection_is_as_before(running: bool) -> None:
    before = gc.isenabled()
    (gc.enable if running else gc.disable)()
    try:
        with collection_paused(), collection_paused():
            assert not gc.isenabled()
        assert gc.isenabled() == running
        with pytest.raises(ImportError), collection_paused():
            raise ImportError
        assert gc.isenabled() == running
    finally:
        (gc.enable if before else gc.disable)()
