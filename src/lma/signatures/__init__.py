"""What a token is like, in a few codes: builders that read a log, the table they freeze into."""

from lma.signatures.budget import signed_within
from lma.signatures.checkpoint import FitCheckpoint
from lma.signatures.config import SignatureConfig
from lma.signatures.context import ContextCodeBuilder
from lma.signatures.distributed import all_reduce
from lma.signatures.drift import TableDrift, drift, freeze_old
from lma.signatures.fit import fit_context_codes, fit_signatures
from lma.signatures.minhash import MinHashBuilder
from lma.signatures.simhash import SimHashBuilder
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.support import SupportCounter
from lma.signatures.table import Section, SignatureTable

__all__ = [
    "ContextCodeBuilder",
    "FitCheckpoint",
    "LogStats",
    "MinHashBuilder",
    "Section",
    "SignatureConfig",
    "SignatureTable",
    "SimHashBuilder",
    "SupportCounter",
    "TableDrift",
    "TableStats",
    "all_reduce",
    "drift",
    "fit_context_codes",
    "fit_signatures",
    "freeze_old",
    "signed_within",
]
