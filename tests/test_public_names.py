"""One door: the public names exist, are documented, and importing them loads nothing heavy."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lma

ROOT = Path(lma.__file__).parent
HEAVY = [
    "numba", "triton", "polars", "pyarrow", "torchrec", "matplotlib", "sklearn", "typer",
    "pandas", "jinja2", "rich", "safetensors",
]  # fmt: skip
# Parts that are loaded when first asked for.
LATER = ("lma.report", "lma.integrations", "lma.cli", "lma.data", "lma.training")
DOORS = ["lma", "lma.allocation", "lma.nn", "lma.signatures"]


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, lma; "
        f"print([name for name in {HEAVY} if name in sys.modules], "
        f"[m for m in sys.modules if m.startswith({LATER})])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"


def test_what_is_loaded_later_is_there_all_the_same() -> None:
    code = (
        "import lma; print(lma.training.load is lma.load, lma.data.Dataset.__name__, "
        "{'data', 'training', 'load', 'save', 'Bundle'} <= set(dir(lma)), hasattr(lma, 'nonsense'))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True Dataset True False"


@pytest.mark.parametrize("name", DOORS)
def test_all_is_sorted_and_complete(name: str) -> None:
    module = importlib.import_module(name)
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    # What is imported at once, and for type checkers what is imported when asked for.
    later = [node for block in tree.body if isinstance(block, ast.If) for node in block.body]
    imported = {
        alias.asname or alias.name
        for node in (*tree.body, *later)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lma")
        for alias in node.names
    }
    assert set(module.__all__) == imported
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), public


def test_design_names_are_public() -> None:
    promised = {
        "token_key", "plan", "Plan", "fit_signatures", "MinHashBuilder", "SignatureTable",
        "SharedMemory", "Embedding", "EmbeddingBag", "EmbeddingBagCollection", "shared_fraction",
        "compress_", "LmaError",
    }  # fmt: skip
    assert promised <= set(lma.__all__)
    methods = {
        "Lma", "Hashed", "Robe", "HashingTrick", "QuotientRemainder", "LowDimension",
        "FrequencyCutoff", "Full", "MixedDimension", "TensorTrain", "DeepHash",
    }  # fmt: skip
    assert methods <= set(lma.allocation.__all__)


def test_errors_are_one_family() -> None:
    errors = [lma.BudgetError, lma.DataError, lma.FormatError, lma.StateMismatchError]
    assert all(issubclass(error, lma.LmaError) for error in errors)
    assert all(issubclass(error, ValueError) for error in errors[:3])
    assert issubclass(lma.StateMismatchError, RuntimeError)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_thing_is_documented(name: str) -> None:
    # Parsed, not imported: a module may need an extra that is not installed here.
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    if not tree.body:
        return
    missing = [] if ast.get_docstring(tree) else [name]
    scopes: list[tuple[str, list[ast.stmt]]] = [(name, tree.body)]
    while scopes:
        scope, body = scopes.pop()
        for node in body:
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if node.name.startswith("_"):
                continue
            here = f"{scope}.{node.name}"
            overloaded = any("setter" in ast.unparse(d) for d in node.decorator_list)
            if ast.get_docstring(node) is None and not overloaded:
                missing.append(here)
            if isinstance(node, ast.ClassDef):
                scopes.append((here, node.body))
    assert missing == []


@pytest.mark.parametrize("public", [n for n in lma.__all__ if n != "HASH_VERSION"])
def test_public_objects_have_help(public: str) -> None:
    thing = getattr(lma, public)
    assert isinstance(thing, str) or inspect.getdoc(thing)


WITH_EXAMPLES = [name for name, path in MODULES.items() if ">>> " in path.read_text("utf-8")]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run(name: str) -> None:
    module: ModuleType = importlib.import_module(name)
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS, raise_on_error=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_there_are_examples() -> None:
    assert {"lma.hashing", "lma.allocation.tables"} <= set(WITH_EXAMPLES)
