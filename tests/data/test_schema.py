import subprocess
import sys

import pytest

import lma.data
from lma.data import Feature, Schema
from lma.errors import FormatError


def test_import_is_light():
    code = (
        "import sys, lma.data; "
        "print([m for m in ('polars', 'pyarrow', 'numba', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist():
    assert all(hasattr(lma.data, name) for name in lma.data.__all__)


def test_schema_survives_json():
    schema = Schema("a", ("x", "x_missing"), (Feature("u", num_embeddings=3), Feature("g", True)))
    assert Schema.from_dict(schema.to_dict()) == schema
    assert [f.name for f in schema.one_hot] == ["u"]
    assert [f.name for f in schema.multi_hot] == ["g"]


def test_schema_names_the_missing_key():
    with pytest.raises(FormatError, match="'features'"):
        Schema.from_dict({"name": "a", "dense": []})
