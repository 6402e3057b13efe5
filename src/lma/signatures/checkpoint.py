"""Where a fit stands, on disk: a killed one goes on and ends in the same bits."""

from __future__ import annotations

import dataclasses
import glob
import pickle
from pathlib import Path
from typing import Any

from lma.errors import FormatError, StateMismatchError
from lma.files import replace_file
from lma.hashing import HASH_VERSION
from lma.signatures.passes import FitPasses

FORMAT = 4
# What the arrays and builders of a fit are made of; nothing else is made when reading.
_NUMPY = {"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"}


@dataclasses.dataclass(frozen=True)
class FitCheckpoint:
    """A file that holds a fit in progress.

    Attributes:
        path: The file.
        identity: What is fitted on which rows; a file of another identity is refused.
        every_rows: Rows between two writings; the end of a pass is written too.
    """

    path: Path
    identity: str
    every_rows: int = 1 << 24

    def save(self, fit: FitPasses) -> None:
        """Write, atomically."""
        content = {
            "format": (FORMAT, HASH_VERSION),
            "identity": self.identity,
            "fit": fit,
        }
        self._sweep()
        with replace_file(self.path) as target, target.open("wb") as file:
            pickle.dump(content, file, protocol=5)

    def load(self) -> FitPasses | None:
        """What was written last; None where nothing was.

        Raises:
            FormatError: The file is damaged or of another version.
            StateMismatchError: It is of another fit.
        """
        if not self.path.exists():
            return None
        try:
            with self.path.open("rb") as file:
                content = _Unpickler(file).load()
            found, identity, fit = content["format"], content["identity"], content["fit"]
        except Exception as error:  # unpickling raises whatever the bytes make it do
            raise FormatError(
                f"{self.path}: not a checkpoint, or damaged ({error}); delete it to start anew"
            ) from error
        if found != (FORMAT, HASH_VERSION):
            raise FormatError(
                f"{self.path}: checkpoint of (format, hash_version) {found}, this lma reads "
                f"{(FORMAT, HASH_VERSION)}; delete it to start anew"
            )
        if identity != self.identity:
            raise StateMismatchError(
                f"{self.path} belongs to the fit of {identity}, this is one of {self.identity}; "
                "delete it to start anew"
            )
        return fit if isinstance(fit, FitPasses) else None

    def remove(self) -> None:
        """Delete the file, if there is one."""
        self._sweep()
        self.path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what a process left that was killed while it wrote: whole fits."""
        # Names as `replace_file` makes them, and no other's.
        for left in self.path.parent.glob(f".{glob.escape(self.path.name)}-????????"):
            left.unlink(missing_ok=True)


class _Unpickler(pickle.Unpickler):
    """Makes arrays and the classes of this package, whatever a file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        ours = module.startswith("lma.signatures.")
        plain = module == "builtins" and name in ("slice", "set")
        # A dotted name would lead on, from a module of ours to one that it imports.
        if "." not in name and (ours or plain or (root == "numpy" and name in _NUMPY)):
            found = super().find_class(module, name)
            if not ours or (isinstance(found, type) and found.__module__.startswith("lma.")):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


__all__ = ["FitCheckpoint"]
