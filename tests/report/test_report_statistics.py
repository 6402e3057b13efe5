import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lma.report.statistics import estimate, student_t_quantile
from lma.report.units import NOTHING, human_bytes, human_ratio, score, seconds, signed


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 30, 101, 1000])
@pytest.mark.parametrize("probability", [0.001, 0.3, 0.5, 0.6, 0.95, 0.975, 0.9995])
def test_quantile_equals_scipy(degrees, probability):
    found = student_t_quantile(probability, degrees)
    assert found == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_quantile_refuses_what_has_none(probability, degrees):
    with pytest.raises(ValueError, match="got"):
        student_t_quantile(probability, degrees)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_estimate_equals_numpy_and_scipy(values):
    found = estimate(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    if error > 1e-6:
        wanted = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert found.interval() == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_estimate_leaves_out_what_is_not_finite():
    found = estimate([1.0, math.nan, 3.0, math.inf])
    assert (found.mean, found.n) == (2.0, 2)


def test_estimate_of_one_value_has_no_error():
    found = estimate([0.8])
    assert found.mean == 0.8
    assert math.isnan(found.standard_error)
    assert all(math.isnan(end) for end in found.interval())


def test_estimate_of_nothing():
    assert estimate([]).n == 0
    assert math.isnan(estimate([]).mean)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (999.6, "1.00 kB"),
        (1000, "1.00 kB"),
        (9_999, "10.0 kB"),
        (62_500, "62.5 kB"),
        (342_400, "342 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (452e9, "452 GB"),
        (3e18, "3000 PB"),
        (math.nan, NOTHING),
    ],
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1, "1x"),
        (100, "100x"),
        (16.04, "16x"),
        (0.0194, "0.0194x"),
        (1023.6, "1024x"),
        (9.999, "10x"),
    ],
)
def test_human_ratio(ratio, text):
    assert human_ratio(ratio) == text


def test_other_numbers():
    assert score(0.79251) == "0.7925"
    assert (
        score(math.nan) == signed(math.nan) == seconds(math.nan) == human_ratio(math.inf) == NOTHING
    )
    assert (signed(-0.00121), signed(0.5), signed(-0.000001)) == (
        "\N{MINUS SIGN}0.0012",
        "+0.5000",
        "0.0000",
    )
    assert (seconds(9.96), seconds(99.99)) == ("10.0", "100")
