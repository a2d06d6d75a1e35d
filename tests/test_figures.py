"""Drawing: what stands on the axis."""
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_hex

from simsiam_explained.figures import BLUE, GREY, draw_report, draw_spectra, new_figure, seed_rows
from simsiam_explained.memory import Run


def test_rows_of_seeds_have_a_dot_for_each_seed_beside_the_name_of_their_arm():
    figure, axes = new_figure(1, 2, sharey=True)
    seed_rows(axes, {"upper": {"std": [0.1, 0.2, 0.3], "rank": [5, 6, 7]}, "lower": {"std": [0.9], "rank": [1]}},
              {"upper": BLUE, "lower": GREY}, {"rank": "Rank", "std": "Spread"})
    left, right = axes
    assert [ax.get_title("left") for ax in axes] == ["Rank", "Spread"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["upper", "lower"]
    assert [list(line.get_xdata()) for line in left.lines] == [[5, 6, 7], [1]]
    assert [list(line.get_xdata()) for line in right.lines] == [[0.1, 0.2, 0.3], [0.9]]
    assert [set(line.get_ydata()) for line in left.lines] == [{0}, {1}] and left.yaxis_inverted()
    assert [to_hex(line.get_color()).upper() for line in left.lines] == [BLUE, GREY]
    plt.close(figure)


def test_names_of_spectra_that_end_together_stand_apart():
    figure, ax = new_figure()
    ax.set(xlim=(0, 2), ylim=(1e-3, 1.5))
    draw_spectra(ax, {"one": [1.0, 0.1], "other": [1.0, 0.101]}, {"one": BLUE, "other": GREY})
    figure.canvas.draw()
    low, high = sorted(text.get_window_extent().y0 for text in ax.texts if text.get_text() in ("one", "other"))
    assert high - low >= 10 * figure.dpi / 72 and ax.get_ylim() == (1e-3, 1.5)
    plt.close(figure)


def test_the_report_of_many_runs_takes_the_colours_again_and_leaves_out_the_curves_that_are_not_there():
    net, curve = torch.nn.Linear(1, 1), [(1, -0.1), (2, -0.5)]
    runs = {f"{i}": Run(net, net, {}, 2, history={"loss": curve, "std": curve}) for i in range(10)}
    figure = draw_report(runs | {"gone": Run(net, net, {}, 2, status="diverged")}, {"0": torch.tensor([1.0, 0.5])})
    assert [len(ax.lines) for ax in figure.axes] == [11, 11, 2]     # one more in each: the reference
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert colours[0] == colours[8] == BLUE and len(set(colours[:8])) == 8
    plt.close(figure)
