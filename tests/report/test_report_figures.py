import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from fake_results import REFERENCE, make_comparison, make_config, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from lma.report import save_plot, summarise
from lma.report.byte_axis import byte_ticks, ratio_ticks
from lma.report.byte_bars import byte_bars
from lma.report.canvas import add_axes, new_figure, style, to_inline_svg
from lma.report.curves import curve_points, learning_curves, mean_curve
from lma.report.extras import Sharing
from lma.report.labels import spread
from lma.report.palette import looks
from lma.report.picture import draw_picture
from lma.report.sharing_plot import sharing_figure, sharing_statistics
from lma.report.units import signed


@pytest.fixture
def axes():
    with style():
        yield add_axes(new_figure(900, 480), 60, 60, 800, 360)


@pytest.mark.parametrize("x", ["serving", "weights", "training"])
def test_points_lie_at_mean_bytes_and_auc(axes, x):
    cells = summarise(make_comparison())
    tooltips = draw_picture(axes, cells, x)
    drawn = {
        (round(line.get_xdata()[0]), round(line.get_ydata()[0], 9))
        for line in axes.lines
        if line.get_gid() in tooltips
    }
    wanted = {(round(getattr(s, x).mean), round(s.test_auc.mean, 9)) for s in cells}
    assert drawn == wanted
    assert len(tooltips) == len(cells)
    assert axes.get_xscale() == "log"


def test_every_method_is_labelled_once(axes):
    cells = summarise(make_comparison())
    draw_picture(axes, cells, "serving")
    names = [text.get_text() for text in axes.texts]
    assert all(names.count(s.method) == 1 for s in cells if s.method != "full")
    assert "full tables" in names


def test_bands_are_the_intervals(axes):
    runs = [make_run("a", t, s, test=0.7 + s / 100) for t in ("4x", "16x") for s in range(3)]
    runs = [r for r in runs if r.target == "4x"] + [
        make_run("a", "16x", s, test=0.6 + s / 100, serving=9000) for s in range(3)
    ]
    cells = summarise(runs)
    draw_picture(axes, cells, "serving")
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    ends = [end for s in cells for end in s.test_auc.interval()]
    assert (heights.min(), heights.max()) == pytest.approx((min(ends), max(ends)))


def test_one_seed_has_no_bands(axes):
    draw_picture(axes, summarise(make_comparison(seeds=1)), "serving")
    assert len(axes.collections) == 0


@pytest.mark.parametrize("values", [[math.nan], [math.nan, 0.7], [0.5], [0.0, 1.0]])
def test_odd_scores_can_be_drawn(axes, values):
    sizes = [1, 10**12]
    runs = [make_run(f"m{i}", "16x", test=v, serving=sizes[i]) for i, v in enumerate(values)]
    tooltips = draw_picture(axes, summarise(runs), "serving")
    assert len(tooltips) == sum(math.isfinite(v) for v in values)


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 100), max_size=30), st.floats(0.5, 20), st.sampled_from([100.0, 300.0])
)
def test_spread_labels_stay_apart_inside_and_in_order(wanted, gap, high):
    placed = spread(wanted, gap, 0.0, high)
    room = min(gap, high / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    levels = [placed[i] for i in order]
    assert all(b - a >= room - 1e-6 for a, b in itertools.pairwise(levels))
    assert all(-1e-6 <= level <= high + 1e-6 for level in levels)


def test_spread_leaves_alone_what_is_apart():
    assert spread([5.0, 90.0, 40.0], 10.0, 0.0, 100.0) == [5.0, 90.0, 40.0]


def test_ticks():
    assert byte_ticks(1, 3) == [1, 2]
    assert byte_ticks(900, 300e3) == [1e3, 2e3, 4e3, 8e3, 16e3, 32e3, 64e3, 128e3, 256e3]
    assert byte_ticks(900, 600e3) == [1e3, 4e3, 16e3, 64e3, 256e3]
    for low, high in [(1, 10), (500, 5e3), (1e3, 1e12), (1, 1e17)]:
        ticks = byte_ticks(low, high)
        assert 1 <= len(ticks) <= 9
        assert all(low <= tick <= high for tick in ticks)
        assert ticks == sorted(set(ticks))
    assert ratio_ticks(1, 16) == [1, 2, 4, 8, 16]
    assert ratio_ticks(1, 65536) == [2.0**k for k in range(0, 17, 2)]


def test_mean_curve_only_where_all_seeds_are():
    curves = [[(1, 0.5), (2, 0.6), (3, 0.7)], [(1, 0.7), (2, 0.7)]]
    assert mean_curve(curves) == [(1, pytest.approx(0.6)), (2, pytest.approx(0.65))]
    assert mean_curve([]) == []


def test_curves_fall_back_to_epochs_and_skip_nan():
    entries = ({"epoch": 1, "auc": 0.5}, {"epoch": 2, "auc": math.nan}, {"epoch": 3, "auc": 0.6})
    (cell,) = summarise([make_run(curve=entries)])
    assert curve_points(cell) == [[(1, 0.5), (3, 0.6)]]


def test_learning_curves_have_a_panel_per_budget():
    with style():
        figure, _ = learning_curves(summarise(make_comparison()))
        assert [panel.get_title(loc="left") for panel in figure.axes] == ["16x", "64x", "256x"]
        assert learning_curves(summarise([make_run()])) is None
        late = [{"step": s, "auc": a} for s, a in [(1, 0.5), (2, 0.8), (3, 0.8)]]
        figure, is_cut = learning_curves(summarise([make_run(curve=tuple(late))]))
        assert is_cut
        assert len(figure.axes) == 1
        one = make_run(curve=({"step": 5, "auc": 0.7},))
        assert learning_curves(summarise([one])) is not None


def test_bars_are_as_long_as_the_bytes():
    run = make_run("lma rows", "16x", serving=70_000, signatures=20_000, index=5_000)
    with style():
        figure = byte_bars(summarise([run, make_run()]))
        (axes,) = figure.axes
        assert [bar.get_width() for bar in axes.patches] == [45_000, 20_000, 5_000]
        assert [bar.get_x() for bar in axes.patches] == [0, 45_000, 65_000]
        assert byte_bars(summarise([make_run()])) is not None
        assert byte_bars(summarise([make_run(serving=0)])) is None


@pytest.mark.parametrize("pairs", [1, 2, 40, 5000])
def test_sharing_figures_and_statistics(pairs):
    rng = np.random.default_rng(0)
    wanted = rng.random(pairs)
    realised = rng.binomial(64, wanted) / 64
    sharing = Sharing("", tuple(wanted), tuple(realised))
    text = sharing_statistics(sharing)
    assert text.startswith(f"{pairs:,} pair")
    assert f"mean {signed(np.mean(realised - wanted))}" in text
    assert f"mean absolute {np.mean(np.abs(realised - wanted)):.4f}" in text
    if pairs > 2:
        assert f"correlation {np.corrcoef(wanted, realised)[0, 1]:.3f}" in text
    with style():
        figure = sharing_figure(sharing)
        counts = [c.get_array() for c in figure.axes[0].collections]
    if pairs == 5000:
        assert counts[0].sum() == pairs


def test_equal_values_have_no_correlation():
    assert "correlation" not in sharing_statistics(Sharing("", (0.0, 0.0), (0.0, 0.0)))


def test_looks_are_fixed_and_distinct():
    names = [*{r.method for r in make_comparison(1)}, "lma plan", "something new"]
    found = looks(names)
    assert len({(look.color, look.marker) for look in found.values()}) == len(names)
    assert looks(["hashed"])["hashed"] == found["hashed"]
    assert found["lma plan"].is_strong
    assert not found["something new"].is_strong


def test_inline_svg_is_well_formed_with_its_own_ids_and_colours(axes):
    runs = [make_run("<b>&\"'#1f2329", "16x", serving=9000), make_run()]
    tooltips = draw_picture(axes, summarise(runs), "serving")
    svg = to_inline_svg(axes.figure, prefix="p1", label='a "b" <c>', tooltips=tooltips)
    root = ElementTree.fromstring(svg)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("p1-") for name in ids)
    used = [e.get("href") for e in root.iter() if e.get("href")]
    assert set(used) <= {f"#{name}" for name in ids}
    assert root.get("aria-label") == 'a "b" <c>'
    texts = ["".join(e.itertext()) for e in root.iter() if e.tag == "text"]
    assert "<b>&\"'#1f2329" in texts
    assert "http" not in svg
    assert "var(--ink)" in svg
    assert len([e for e in root.iter() if e.tag == "title"]) == 2


@pytest.mark.filterwarnings("error")
def test_save_plot_writes_both_kinds(tmp_path):
    runs = [*make_comparison(), make_run(dataset="日本 $x$", config=make_config("f"))]
    save_plot(runs, tmp_path / "a" / "plot.png")
    save_plot(runs, tmp_path / "plot.SVG", x="weights", size=(500, 300))
    assert (tmp_path / "a" / "plot.png").read_bytes().startswith(b"\x89PNG")
    root = ElementTree.fromstring((tmp_path / "plot.SVG").read_bytes())
    assert root.get("viewBox") == "0 0 500 600"
    first = (tmp_path / "plot.SVG").read_bytes()
    save_plot(runs, tmp_path / "plot.SVG", x="weights", size=(500, 300))
    assert (tmp_path / "plot.SVG").read_bytes() == first


def test_save_plot_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.png or \.svg, got 'x\.pdf'"):
        save_plot([make_run()], "x.pdf")
    with pytest.raises(ValueError, match="x must be one of"):
        save_plot([make_run()], tmp_path / "x.png", x="bytes")
    with pytest.raises(ValueError, match="size must be"):
        save_plot([make_run()], tmp_path / "x.png", size=(8, 5))
    with pytest.raises(ValueError, match="no results"):
        save_plot([], tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_the_user_s_settings_are_left_alone():
    import matplotlib

    with matplotlib.rc_context({"font.size": 31}):
        with style():
            assert matplotlib.rcParams["font.size"] == 11
        assert matplotlib.rcParams["font.size"] == 31


def test_reference_is_one_x(axes):
    draw_picture(axes, summarise(make_comparison()), "serving")
    (top,) = axes.child_axes
    labels = {
        t.get_text(): at for t, at in zip(top.get_xticklabels(), top.get_xticks(), strict=True)
    }
    assert labels["1x"] == REFERENCE
    assert labels["16x"] == REFERENCE / 16
