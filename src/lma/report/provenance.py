"""What a repetition needs: configuration, seeds and environment of every cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lma.report.summary import Summary


def configurations(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """Configuration, seeds and choice of each cell, as text."""
    return [
        {
            "name": f"{s.method} · {s.target}" if s.target else s.method,
            "seeds": ", ".join(str(seed) for seed in s.seeds),
            "chosen": ", ".join(f"{key} = {value}" for key, value in s.chosen.items()),
            "num_configs": s.num_configs,
            "cells": ", ".join(run.cell for run in s.runs),
            "config": as_json(s.runs[0].config),
        }
        for s in summaries
    ]


def environment_rows(summaries: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """Each fact about the machines, with the different values that it has among the runs."""
    environments = [run.environment for s in summaries for run in s.runs]
    keys = dict.fromkeys(str(key) for environment in environments for key in environment)
    return [
        (
            key,
            list(
                dict.fromkeys(
                    value if isinstance(value := environment[key], str) else as_json(value)
                    for environment in environments
                    if key in environment
                )
            ),
        )
        for key in keys
    ]


def as_json(value: object) -> str:
    """Readable JSON; what JSON does not know is written as its text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
