"""Click logs as tensors: reading, preparing, batching; see `docs/data.md`.

>>> from lma.data import Feature, Schema
>>> Schema("toy", (), (Feature("city", num_embeddings=3),)).one_hot[0].name
'city'
"""

from lma.data.batch import Batch
from lma.data.dataset import Dataset, verify
from lma.data.encoder import RowEncoder
from lma.data.formats import FORMATS, read_raw
from lma.data.prepare import prepare
from lma.data.schema import Feature, Schema
from lma.data.stream import BatchStream
from lma.data.synthetic import write_synthetic
from lma.data.table_schema import TableSchema

__all__ = [
    "FORMATS",
    "Batch",
    "BatchStream",
    "Dataset",
    "Feature",
    "RowEncoder",
    "Schema",
    "TableSchema",
    "prepare",
    "read_raw",
    "verify",
    "write_synthetic",
]
