"""The command `lma`: wires everything, nothing imports it."""

from lma.cli.main import main

__all__ = ["main"]
