"""LMA: embedding tables compressed by sharing memory between similar tokens."""

from lma.version import __version__

__all__ = ["__version__"]
