"""Imports go one way (the package's layers); every import statement is parsed, lazy ones too."""

import ast
from pathlib import Path

import pytest

import lma

ROOT = Path(lma.__file__).parent
# A module imports from its own part or from lower layers only.
LAYERS = [
    {"hashing", "results", "errors", "files", "buffers", "version"},
    {"kernels"},
    {"signatures"},
    {"allocation"},
    {"nn"},
    {"models", "data"},
    {"training"},
    {"benchmarking", "integrations", "report"},
    {"cli"},
    {"__main__"},
]
FOUNDATION = LAYERS[0]
# Parts that may import less than their layer allows.
NARROWER = {
    "data": {"hashing", "errors", "files", "version"},
    "report": {"results", "errors", "files", "version"},
    "hashing": set[str](),
    "errors": set[str](),
    "files": set[str](),
    "version": set[str](),
    "results": {"errors"},
}
# Libraries that a part keeps away from even inside functions.
NEVER = {"report": {"torch", "torchrec"}, "data": {"torchrec", "sklearn"}, "results": {"torch"}}
LAZY_ONLY = {"numba", "triton", "torchrec", "matplotlib", "sklearn", "typer", "polars", "pyarrow"}


def part(module: str) -> str:
    """`lma.nn.memory` -> `nn`; the package itself -> ``."""
    return module.split(".")[1] if "." in module else ""


def level(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imports(path: Path, module: str) -> list[tuple[int, str, bool]]:
    """(line, absolute module, at module level) of every import statement of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            if base == "lma":
                # `from lma import nn` names a part; `from lma import x` would be the door itself.
                found += [(node.lineno, f"lma.{a.name}", id(node) in top) for a in node.names]
            else:
                found.append((node.lineno, base, id(node) in top))
    return found


def files() -> list[tuple[str, Path]]:
    pairs = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        pairs.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return pairs


FILES = [pair for pair in files() if part(pair[0])]


def test_every_part_has_a_layer() -> None:
    known = set().union(*LAYERS)
    assert {part(module) for module, _ in FILES} <= known


@pytest.mark.parametrize(("module", "path"), FILES, ids=[module for module, _ in FILES])
def test_imports_point_downwards(module: str, path: Path) -> None:
    own = part(module)
    wrong = []
    for line, target, _ in imports(path, module):
        if target.split(".")[0] != "lma":
            if target.split(".")[0] in NEVER.get(own, set()):
                wrong.append(f"{path.name}:{line}: {own} never imports {target}")
            continue
        other = part(target)
        if other == own:
            continue
        if other not in set().union(*LAYERS):
            wrong.append(f"{path.name}:{line}: {target}: import from the part, not from the door")
        elif own in NARROWER and other not in NARROWER[own]:
            wrong.append(
                f"{path.name}:{line}: {own} imports {sorted(NARROWER[own])} only: {target}"
            )
        elif own not in NARROWER and other not in FOUNDATION and level(other) >= level(own):
            wrong.append(f"{path.name}:{line}: {own} imports upwards: {target}")
    assert wrong == []


@pytest.mark.parametrize("name", ["hashing", "kernels", "signatures", "allocation", "nn"])
def test_core_imports_heavy_libraries_inside_functions(name: str) -> None:
    # Backends are imported at the first call that needs them, so their own files are exempt.
    exempt = ("lma.kernels.cpu", "lma.kernels.gpu")
    wrong = [
        f"{module}:{line}: {target}"
        for module, path in FILES
        if part(module) == name and not module.startswith(exempt)
        for line, target, top in imports(path, module)
        if top and target.split(".")[0] in LAZY_ONLY
    ]
    assert wrong == []


def test_the_parser_sees_every_form(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import a.b, c\nfrom lma import nn\nfrom lma.data.x import y\nfrom . import z\n"
        "from ..cli import main\ndef f():\n    import d\n"
    )
    assert imports(file, "lma.models.module") == [
        (1, "a.b", True),
        (1, "c", True),
        (2, "lma.nn", True),
        (3, "lma.data.x", True),
        (4, "lma.models", True),
        (5, "lma.cli", True),
        (7, "d", False),
    ]
