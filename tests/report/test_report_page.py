import ast
import contextlib
import doctest
import html.parser
import importlib
import importlib.resources
import math
import pkgutil
import re
import resource
from pathlib import Path

import pytest
from fake_results import make_comparison, make_config, make_run

import lma.report
from lma.report import render_report, write_report
from lma.report.extras import read_extras

VOID = {"meta", "br", "link", "img", "hr", "input"}
EVIL = "<script>alert('&\"x')</script>"


class Page(html.parser.HTMLParser):
    """Tags, ids and text of a page, and whether every tag that opens closes."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.ids, self.links, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[key] for key in ("href", "src", "action") if key in values]
        assert not any(key.startswith("on") for key in values)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page():
    extras = {
        "sharing": {"wanted": [0.1, 0.5], "realised": [0.2, math.nan], "label": "movie"},
        "neighbours": [
            {"token": "Toy Story (1995)", "table": "movie", "neighbours": [["Aladdin", 0.62]]},
            {"token": "Alien", "neighbours": []},
        ],
    }
    runs = make_comparison() + make_comparison(1, dataset="demo", description="synthetic clicks")
    return render_report(runs, title="A title", extras=extras, notes=["A note."])


def test_page_is_well_formed_and_needs_nothing_else(page):
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert not {"link", "img", "iframe", "object"} & set(parsed.tags)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


def test_page_says_everything(page):
    text = " ".join(" ".join(Page(page).text).split())
    for part in (
        "A title", "A note.", "On ml-1m, where the full tables have test AUC 0.8065",
        "Quality against serving bytes", "All results", "Learning curves", "Where the bytes went",
        "Realised against wanted sharing", "Nearest tokens by shared memory", "How to reproduce",
        "1 pair; realised minus wanted: mean +0.1000", "Toy Story (1995)", "Aladdin", "0.62",
        "49c3924", '"learning_rate": 0.001', "demo is a synthetic log", "synthetic clicks",
        "One seed only",
    ):  # fmt: skip
        assert part in text, part


def test_synthetic_stands_wherever_its_numbers_show(page):
    start = page.index('<section id="data-1">')
    section = page[start : page.index("</section>", start)]
    headings = re.findall(r"<h[23]>(.*?)</h[23]>", section)
    data_headings = [h for h in headings if h != "Read this first"]
    assert len(data_headings) == 5
    assert all("synthetic log" in h for h in data_headings)
    assert page.index("is a synthetic log") < page.index("<main>")


def test_numbers_of_the_table_stand_in_the_page(page):
    assert "<td>lma labelled context <sup>*</sup></td><td>77.6 kB</td><td>43.5 kB</td>" in page
    assert page.count('<tr class="best">') == 6


def test_page_repeats_bit_for_bit():
    runs = [run for run in make_comparison(1) if run.target in ("", "16x")]
    assert render_report(runs, title="t") == render_report(runs, title="t")


def test_text_from_data_is_escaped():
    config = make_config(EVIL, description=f"synthetic {EVIL}")
    config["training"][EVIL] = EVIL
    curve = ({"step": 1, "auc": 0.7},)
    run = make_run(
        EVIL, "16x", dataset=EVIL, config=config, curve=curve, serving=7000,
        environment={EVIL: EVIL, "nested": {"a": [EVIL]}},
    )  # fmt: skip
    other = make_config(EVIL)
    other["training"][EVIL] = 0
    runs = [run, make_run(EVIL, "16x", validation=0.1, dataset=EVIL, config=other)]
    extras = {
        "sharing": {"wanted": [0.1], "realised": [0.2], "label": EVIL},
        "neighbours": [{"token": EVIL, "table": EVIL, "neighbours": [[EVIL, 0.5]]}],
    }
    text = render_report(runs, title=EVIL, extras=extras, notes=[EVIL])
    parsed = Page(text)
    assert "script" not in parsed.tags
    assert "<script" not in text
    assert "alert('&\"x')" in "".join(parsed.text)


@pytest.mark.parametrize(
    "runs",
    [
        [make_run()],
        [make_run("hashed", "16x")],
        [make_run(test=math.nan)],
        [make_run("a", "16x", serving=10), make_run("b", "64MB", serving=10**13)],
        [make_run("a", "", config={}, environment={}), make_run("full", test=0.5)],
        [make_run("a", "16x", s, test=t) for s, t in enumerate([0.7, math.nan])],
        [make_run("a", "16x", bytes={}, reference_bytes=0)],
        [make_run("a", "16x", serving=0)],
        [make_run("full", "16x"), make_run("full", "")],
        [make_run("a", "16x", curve=({"epoch": 0, "auc": 0.5},))],
    ],
)
def test_odd_results_make_a_page(runs):
    Page(render_report(runs, title="t"))


def test_empty_results_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="no results to report"):
        write_report([], tmp_path / "x.html", title="t")
    assert list(tmp_path.iterdir()) == []


def test_write_report_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "runs" / "report.html"
    write_report([make_run()], path, title="old")
    write_report([make_run()], str(path), title="new")
    assert "<title>new</title>" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]
    other = path.parent / "other"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


@contextlib.contextmanager
def largest_file(num_bytes):
    """Files cannot grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write_report([make_run()], path, title="t")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"shares": []}, r"unknown keys \['shares'\]"),
        ({"sharing": {"wanted": [1]}}, "'realised' is missing"),
        ({"sharing": {"wanted": [1], "realised": [1, 2]}}, "equal length, got 1 and 2"),
        ({"sharing": {"wanted": ["a"], "realised": [1]}}, "expected numbers"),
        ({"sharing": "abc"}, "expected a list"),
        ({"neighbours": [3]}, "expected an object, got 3"),
        ({"neighbours": [{"token": "a"}]}, "extras\\['neighbours'\\]: expected"),
        ({"neighbours": [{"token": "a", "neighbours": [["b", "c"]]}]}, "expected"),
    ],
)
def test_extras_of_another_form_are_refused(extras, message):
    with pytest.raises(ValueError, match=message):
        read_extras(extras)


def test_no_extras():
    assert read_extras(None) == read_extras({}) == read_extras({"sharing": None})


def test_template_is_package_data():
    assert importlib.resources.files("lma.report").joinpath("page.html.j2").is_file()


def imported(tree, *, at_import_only):
    """Modules that a file imports: all, or those that importing the file imports."""
    nodes = list(tree.body) if at_import_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_report_never_imports_torch_and_plots_only_at_first_use():
    files = sorted(Path(lma.report.__file__).parent.glob("*.py"))
    assert len(files) > 20
    below = {"lma.files", "lma.results"}
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        everything = {name.split(".")[0] for name in imported(tree, at_import_only=False)}
        assert not everything & {"torch", "numba", "polars", "triton"}, file
        first = {name.split(".")[0] for name in imported(tree, at_import_only=True)}
        assert not first & {"matplotlib", "jinja2", "markupsafe", "rich", "numpy"}, file
        own = {name for name in imported(tree, at_import_only=False) if name.startswith("lma")}
        assert all(name.startswith("lma.report.") or name in below for name in own), file


def test_examples_in_docstrings():
    names = [module.name for module in pkgutil.iter_modules(lma.report.__path__)]
    found = [doctest.testmod(importlib.import_module(f"lma.report.{name}")) for name in names]
    assert sum(result.attempted for result in found) > 10
    assert all(result.failed == 0 for result in found)


def test_public_names():
    for name in lma.report.__all__:
        assert getattr(lma.report, name).__doc__
    assert lma.report.__all__ == sorted(lma.report.__all__)
