"""The commands and code of README and guide, run as they stand there, in an empty folder."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(file, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / file).read_text(), re.S | re.M)


def run(words, folder):
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


def test_readme(tmp_path):
    first, second = blocks("README.md", "python")
    commands = [
        shlex.split(line, comments=True)
        for block in blocks("README.md", "bash")
        for line in block.splitlines()
    ]
    assert [" ".join(c) for c in commands[:2]] == ["make demo", "make test"]
    (tmp_path / "first.py").write_text(first)
    run([sys.executable, "first.py"], tmp_path)
    for command in commands[2:]:
        assert command[0] == "lma", command
        run([sys.executable, "-m", "lma", *command[1:]], tmp_path)
    (tmp_path / "second.py").write_text("import lma, torch\n" + second)
    run([sys.executable, "second.py"], tmp_path)


@pytest.mark.parametrize("page", ["guide", "signatures"])
def test_pages_of_code(tmp_path, page):
    (tmp_path / "page.py").write_text("\n".join(blocks(f"docs/{page}.md", "python")))
    run([sys.executable, "page.py"], tmp_path)


def test_the_guide_s_settings_are_settings():
    from lma.training import CompareConfig, RunConfig, method_spec
    from lma.training.cells import cells
    from lma.training.config import from_dict, tomllib

    of_train, of_compare = blocks("docs/guide.md", "toml")
    config = from_dict(RunConfig, tomllib.loads(of_train))
    method_spec(config.method.name).configure(config.method.settings)
    search = tomllib.loads(of_compare)
    runs = list(cells(from_dict(CompareConfig, {**search, "methods": list(search["grid"])})))
    # Per budget four widths, another rate and another decay, then two more seeds.
    assert len(runs) == 2 * (4 + 1 + 1 + 2)


def test_make_knows_the_targets_that_readme_names():
    for target in ("demo", "test", "check"):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "file", ["README.md", *sorted(p.name for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(file):
    path = ROOT / file if file == "README.md" else ROOT / "docs" / file
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{file} -> {target}"


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_no_placeholder_is_left():
    assert not re.search(r"^@?[A-Z_]{5,}$", (ROOT / "README.md").read_text(), re.M)
