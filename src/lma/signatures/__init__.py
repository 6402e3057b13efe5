"""What a token is like, in a few codes: builders that read a log, the table they freeze into."""

from lma.signatures.config import SignatureConfig
from lma.signatures.context import ContextCodeBuilder
from lma.signatures.fit import fit_context_codes, fit_signatures
from lma.signatures.minhash import MinHashBuilder
from lma.signatures.stats import LogStats, TableStats
from lma.signatures.table import Section, SignatureTable

__all__ = [
    "ContextCodeBuilder",
    "LogStats",
    "MinHashBuilder",
    "Section",
    "SignatureConfig",
    "SignatureTable",
    "TableStats",
    "fit_context_codes",
    "fit_signatures",
]
