"""The phase portrait: what it draws of the linear theory."""
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from simsiam_explained.dynamics import Knobs, integrate, mode_flow, rest_points
from simsiam_explained.figures import BLACK, BLUE, VERMILLION, new_figure
from simsiam_explained.portrait import P, W, border, draw_course, draw_growth, draw_plane, follow, lives, portrait


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def marks(ax):
    """Return {(x, y): (edge, face)} of the large dots."""
    return {(round(float(line.get_xdata()[0]), 4), round(float(line.get_ydata()[0]), 4)):
            (to_hex(line.get_color()).upper(), line.get_markerfacecolor()) for line in ax.lines if line.get_markersize() == 8 and line.get_marker() == "o"}


def paths(ax):
    return [line for line in ax.lines if line.get_linewidth() == 2.4]


@pytest.mark.parametrize("knobs", [Knobs(), Knobs(0.03, 4.0, 0.7, 0.9), Knobs(0.02, 0.5, 1.2, 0.1)])
def test_a_start_lives_where_the_flow_takes_it_to_the_living_point(knobs):
    """Two roads: the side of the border, and a long integration."""
    rng, (_, middle, alive) = np.random.default_rng(0), rest_points(knobs)
    p, w = rng.uniform(*P, 60), rng.uniform(*W, 60)
    start = torch.tensor(np.stack([p, w * w], -1))
    end = integrate(lambda x: mode_flow(x, knobs), start, 200.0, 2000)[-1, :, 0].numpy()
    line = border(knobs)
    clear = abs(w - np.interp(p, *line.T)) > 0.01
    assert (lives(p, w, line) == (end > middle.p))[clear].all() and clear.sum() > 40
    assert (np.diff(line[:, 0]) >= 0).all() and lives(p, w, line).any()
    assert (abs(end - alive.p) < 0.05)[lives(p, w, line) & clear].all()


def test_nothing_lives_above_the_critical_decay():
    assert border(Knobs(decay=0.17)).shape == (0, 2)
    assert not lives(np.array([0.3, 0.9]), np.array([0.9, 0.9]), border(Knobs(decay=0.17))).any()


def test_a_path_is_followed_in_time_and_stays_smooth_where_the_predictor_is_fast():
    time, p, w = follow((0.05, 0.6), Knobs()).T
    assert (p[0], w[0], time[0]) == pytest.approx((0.05, 0.6, 0.0)) and (np.diff(time) > 0).all()
    alive = rest_points(Knobs())[2]
    assert (p[-1], w[-1]) == pytest.approx((alive.p, alive.s ** 0.5), abs=2e-3)
    fast = follow((1.1, 0.95), Knobs(0.1, 8.0, 1.0, 1.5))[:, 1]
    assert np.isfinite(fast).all() and (np.diff(fast)[:5] < 0).all() and 0 < fast[-1] < 0.4


def test_rest_points_are_filled_where_training_stays_and_hollow_where_it_leaves():
    _, ax = new_figure()
    draw_plane(ax, Knobs(), density=0.2)
    _, middle, alive = rest_points(Knobs())
    assert marks(ax) == {(0, 0): (VERMILLION, VERMILLION), (round(middle.p, 4), round(middle.s ** 0.5, 4)): (BLACK, "white"),
                         (round(alive.p, 4), round(alive.s ** 0.5, 4)): (BLUE, BLUE)}


def test_streamlines_have_the_colour_of_their_end():
    for knobs, expected in ((Knobs(), {BLUE, VERMILLION}), (Knobs(decay=0.2), {VERMILLION})):
        _, ax = new_figure()
        draw_plane(ax, knobs, density=0.2)
        streams = [lines for lines in ax.collections if hasattr(lines, "get_segments")]
        assert {to_hex(lines.get_color()[0]).upper() for lines in streams} == expected
    line = border(Knobs())
    _, ax = new_figure()
    draw_plane(ax, Knobs(), density=0.2)
    for lines in ax.collections:
        if hasattr(lines, "get_segments"):
            p, w = np.concatenate(lines.get_segments()).T
            far = abs(w - np.interp(p, *line.T)) > 0.03
            assert (lives(p, w, line) == (to_hex(lines.get_color()[0]).upper() == BLUE))[far].all()


def test_the_lower_panel_shows_the_same_rest_points_where_growth_meets_decay():
    _, ax = new_figure()
    draw_growth(ax, knobs := Knobs(decay=0.08))
    line = next(line for line in ax.lines if len(line.get_xdata()) == 300)
    for (p, height), (_, face) in marks(ax).items():
        assert height == pytest.approx(0.08 if p else 0) and p * (1 - 1.5 * p) == pytest.approx(height, abs=1e-4)
    assert line.get_ydata().max() == pytest.approx(knobs.critical, abs=1e-4) and len(marks(ax)) == 3


def test_the_course_is_the_path_of_the_plane_over_time():
    _, (plane, course) = new_figure(1, 2)
    draw_plane(plane, Knobs(), [(0.3, 0.1)], density=0.2)
    draw_course(course, Knobs(), (0.3, 0.1))
    (there,), (here,) = paths(plane), paths(course)
    assert np.array_equal(there.get_ydata(), here.get_ydata()) and here.get_color() == there.get_color() == BLUE


@pytest.mark.parametrize("given, title, colour", [({}, "lives", BLUE), ({"w": 0.08}, "collapses", VERMILLION),
                                                  ({"decay": 0.2}, "collapses, as every other does", VERMILLION)])
def test_the_title_and_the_path_say_what_becomes_of_the_start(given, title, colour):
    plane, course, _, corner = portrait(**given).axes
    assert plane.get_title("left").endswith(title) and plane._left_title.get_color() == colour
    assert [line.get_color() for ax in (plane, course) for line in paths(ax)] == [colour] * 2
    assert paths(plane)[0].get_ydata()[0] == pytest.approx(given.get("w", 0.6))
    told = corner.texts[0].get_text().splitlines()
    assert told[0].endswith("0.167") and len(told) == (1 if "decay" in given else 3)


def test_above_the_critical_decay_the_whole_plane_is_the_basin_and_one_rest_point_is_left():
    plane, _, growth, _ = portrait(decay=0.2).axes
    assert len(marks(plane)) == len(marks(growth)) == 1
    assert not [text for text in plane.texts if text.get_text() == "lives"]
