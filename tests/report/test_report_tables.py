import io
import math

import pytest
from fake_results import REFERENCE, make_comparison, make_config, make_run
from rich.console import Console

from lma.report import markdown_table, results_table, summarise


def terminal(runs, width=140, **options):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(results_table(summarise(runs), **options))
    return console.file.getvalue()


def test_terminal_shows_bytes_by_kind_and_quality():
    run = make_run("lma rows", "16x", test=0.75, serving=75_000, signatures=30_000, index=5_000)
    line = next(line for line in terminal([run]).splitlines() if line.startswith("lma rows"))
    assert line.split() == [
        "lma", "rows", "75.0kB", "40.0kB", "30.0kB", "5.00kB", "16.6x", "0.7500", "0.5800", "41.5",
    ]  # fmt: skip


def test_terminal_fits_eighty_columns_without_losing_a_number():
    text = terminal(make_comparison(), width=80, title="Results")
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count(" ±.0") == 28
    assert "± standard error over seeds" in text
    assert "* best on validation" in text


def test_terminal_takes_names_literally():
    run = make_run("[bold]x[/]", "[16x]", dataset="[red]")
    text = terminal([run, make_run(dataset="b")], title="[t]")
    assert "[bold]x[/]" in text
    assert "[red] · [16x]" in text
    assert "[t]" in text
    assert "one seed only" in text


def test_markdown_by_serving_bytes():
    text = markdown_table(summarise(make_comparison()))
    lines = text.splitlines()
    columns = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert columns == [
        "method", "asked", "serving", "weights", "signatures", "index", "ratio", "training",
        "test AUC", "against full", "log-loss", "train s",
    ]  # fmt: skip
    assert len([line for line in lines if line.startswith("|")]) == 30
    assert all(line.count("|") == 13 for line in lines if line.startswith("|"))
    assert lines[2].startswith("| full |  | 1.24 MB | 1.24 MB | \N{EN DASH} | \N{EN DASH} | 1x |")
    assert lines[3].startswith("| **lma labelled context** \\* | 16x | 77.6 kB | 43.5 kB | 29.5 kB")


def test_markdown_by_weights():
    text = markdown_table(summarise(make_comparison()), by="weights")
    assert "| weights | fewer weights | serving |" in text
    assert "| **lma labelled context** \\* | 16x | 43.5 kB | 28.6x | 77.6 kB | 16x |" in text
    with pytest.raises(ValueError, match="by must be 'serving' or 'weights', got 'bytes'"):
        markdown_table(summarise(make_comparison()), by="bytes")


def test_markdown_of_more_datasets_and_synthetic_ones():
    synthetic = make_config("a", description="synthetic")
    runs = [make_run(dataset="a"), make_run(dataset="b|*", config=synthetic)]
    text = markdown_table(summarise(runs))
    assert "**a**" in text
    assert "**b\\|\\***" in text
    assert text.count("*Synthetic log.*") == 1


def test_marks_have_footnotes():
    runs = [
        make_run("over", "16x", serving=REFERENCE),
        *(
            make_run(
                "edge",
                "16x",
                serving=500,
                validation=rate / 10,
                config=make_config("e", learning_rate=rate),
            )
            for rate in (7, 8)
        ),
        make_run("gone", "16x", test=math.nan, serving=500),
    ]
    text = markdown_table(summarise(runs))
    assert "over \\!" in text
    assert "edge \\#" in text
    assert "gone \\~" in text
    for note in ("over its budget by more", "edge of its grid", "no finite AUC", "one seed only"):
        assert note in text


def test_small_errors_are_not_shown_as_none():
    runs = [make_run(seed=s, test=0.8 + s * 2e-5) for s in range(2)]
    assert "0.8000 ± 0.00001" in markdown_table(summarise(runs))
