"""The phase portrait: what it draws of the linear theory."""
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from simsiam_explained.dynamics import Knobs, rest_points
from simsiam_explained.figures import BLACK, BLUE, VERMILLION, new_figure
from simsiam_explained.portrait import draw_growth, draw_plane, fate, portrait


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def marks(ax):
    """Return {(x, y): (edge, face)} of the large dots."""
    return {(round(float(line.get_xdata()[0]), 4), round(float(line.get_ydata()[0]), 4)):
            (to_hex(line.get_color()).upper(), line.get_markerfacecolor()) for line in ax.lines if line.get_markersize() == 8 and line.get_marker() == "o"}


def test_rest_points_are_filled_where_training_stays_and_hollow_where_it_leaves():
    _, ax = new_figure()
    draw_plane(ax, Knobs(), density=0.2)
    collapsed, boundary, alive = rest_points(Knobs())
    found = marks(ax)
    assert found == {(0, 0): (VERMILLION, VERMILLION), (round(boundary.p, 4), round(boundary.s ** 0.5, 4)): (BLACK, "white"),
                     (round(alive.p, 4), round(alive.s ** 0.5, 4)): (BLUE, BLUE)}


def test_the_lower_panel_shows_the_same_rest_points_where_growth_meets_decay():
    _, ax = new_figure()
    draw_growth(ax, knobs := Knobs(decay=0.08))
    line = next(line for line in ax.lines if len(line.get_xdata()) == 300)
    for (p, height), (_, face) in marks(ax).items():
        assert height == pytest.approx(0.08 if p else 0) and p * (1 - 1.5 * p) == pytest.approx(height, abs=1e-4)
    assert line.get_ydata().max() == pytest.approx(knobs.critical, abs=1e-4) and len(marks(ax)) == 3


@pytest.mark.parametrize("given, title, colour", [({}, "lives", BLUE), ({"w": 0.08}, "collapses", VERMILLION),
                                                  ({"decay": 0.2}, "nothing lives above η = 0.167", VERMILLION)])
def test_the_title_and_the_path_say_what_becomes_of_the_start(given, title, colour):
    plane = portrait(**given).axes[0]
    assert title in plane.get_title("left") and plane._left_title.get_color() == colour
    paths = [line for line in plane.lines if line.get_linewidth() == 2.4 and len(line.get_xdata()) > 2]
    assert len(paths) == 1 and paths[0].get_color() == colour and paths[0].get_ydata()[0] == pytest.approx(given.get("w", 0.6))


def test_above_the_critical_decay_the_whole_plane_is_the_basin_and_one_rest_point_is_left():
    plane, growth = portrait(decay=0.2).axes
    assert len(marks(plane)) == len(marks(growth)) == 1
    assert not [text for text in plane.texts if text.get_text() == "lives"]


def test_a_path_ends_where_its_fate_says():
    knobs = Knobs()
    (path, lives), (dead_path, dead) = fate((0.125, 0.125), knobs), fate((0.12, 0.12), knobs)
    assert lives and not dead and path.shape == dead_path.shape == (501, 2)
    long, still = fate((0.05, 0.6), knobs)
    assert still and long[-1] == pytest.approx([rest_points(knobs)[2].p, rest_points(knobs)[2].s ** 0.5], abs=1e-3)
