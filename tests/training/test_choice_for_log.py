"""When the default's codes give way to rows, and to rows of which width; the judge is a stub."""

import pytest

from lma.allocation import Auto, Budget, Table
from lma.allocation.auto import ROW_DIMS
from lma.nn import for_log
from lma.signatures import LogStats, fit_signatures


@pytest.mark.parametrize(
    ("codes", "rows", "dim"),
    [
        (0.70, {4: 0.709}, None),  # less than .010 better
        (0.70, {4: 0.711}, 4),
        (0.70, {1: 0.740, 2: 0.738, 4: 0.732}, 2),  # .737, .738, .737 by what widths give
        (0.70, {1: 0.746, 2: 0.740, 4: 0.733, 8: 0.723}, 1),
        (0.70, {1: 0.714, 4: 0.708}, None),  # the best width is judged, not the best judged width
    ],
)
def test_rows_must_be_better_by_a_margin_and_the_width_is_weighed(
    log, monkeypatch, codes, rows, dim
):
    monkeypatch.setattr(
        for_log,
        "judge",
        lambda _log, layouts: (
            [codes] + [rows.get(a.tables[0].embedding_dim, 0.5) for a in layouts[1:]]
        ),
    )
    stats = LogStats.from_dataset(log)
    tables = [Table(f.name, f.num_embeddings, 16) for f in log.schema.features]
    choice, _ = for_log.choose_for_log(
        log, Auto(dense_support=1e9), tables, Budget.of("4x", None, stats.num_tokens), stats,
        lambda config, signed: fit_signatures(log, config, num_signed=signed),
    )  # fmt: skip
    found = None if choice.signatures else choice.tables[0].embedding_dim
    assert found == dim


def test_every_width_has_its_worth():
    assert set(for_log.DIMS_GIVE) == set(ROW_DIMS)
