"""Models that take any embedding module and know no compression method."""

from lma.models.dlrm import DLRM
from lma.models.gmf import GMF

__all__ = ["DLRM", "GMF"]
