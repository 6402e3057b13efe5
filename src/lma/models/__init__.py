"""Models that take any embedding module and know no compression method."""

from lma.models.dlrm import DLRM, DLRM_PAPER

__all__ = ["DLRM", "DLRM_PAPER"]
