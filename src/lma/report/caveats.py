"""What a reader must know before believing the numbers of a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lma.report.summary import Summary
from lma.report.units import human_ratio


def caveats(summaries: Sequence[Summary]) -> list[str]:
    """Sentences about one dataset's cells: seeds, grids, budgets, data, missing full tables.

    Args:
        summaries: Cells of one dataset.
    """
    found: list[str] = []
    if not any(s.is_full for s in summaries):
        found.append("The full tables were not run: nothing here is compared with them.")
    most = max(len(s.runs) for s in summaries)
    if most == 1:
        found.append(
            "One seed only: there are no standard errors and no intervals, and small differences "
            "mean nothing."
        )
    else:
        fewer = [f"{_name(s)} ({len(s.runs)})" for s in summaries if len(s.runs) < most]
        if fewer:
            found.append(f"Fewer than {most} seeds: {', '.join(fewer)}.")
    found += [
        f"{_name(s)}: no finite AUC for seed {', '.join(map(str, s.failed_seeds))}; its numbers "
        "are over the other seeds."
        for s in summaries
        if s.failed_seeds
    ]
    found += [
        f"{_name(s)} takes {human_ratio(s.compression.mean)} in serving bytes: over its budget, "
        "so it is no candidate for the best where another method keeps to it."
        for s in summaries
        if s.is_over_budget
    ]
    found += [
        f"{_name(s)}: {edge} of {s.num_configs} configurations; the grid is too small."
        for s in summaries
        for edge in s.edges
    ]
    found += [
        f"{_name(s)}: its {s.num_configs} configurations (they differ in {', '.join(s.chosen)}) "
        "have no seed in common, so the choice among them is not a fair one."
        for s in summaries
        if s.num_common_seeds == 0
    ]
    return found + _data_differences(summaries)


def _data_differences(summaries: Sequence[Summary]) -> list[str]:
    """Whether the runs that stand side by side saw the same data."""
    sections = [
        section
        for s in summaries
        for run in s.runs
        if isinstance(section := run.config.get("data", {}), Mapping)
    ]
    keys = sorted({str(key) for section in sections for key in section})
    differing = [
        key
        for key in keys
        if len({json.dumps(s.get(key), sort_keys=True, default=str) for s in sections}) > 1
    ]
    found = []
    if differing:
        found.append(
            f"The runs differ in their data ({', '.join(differing)}): their numbers are not "
            "comparable."
        )
    if len({run.reference_bytes for s in summaries for run in s.runs}) > 1:
        found.append("The runs differ in their reference bytes, so their ratios are not the same.")
    return found


def _name(summary: Summary) -> str:
    return f"{summary.method} at {summary.target}" if summary.target else summary.method
