"""One palette, one meaning per colour, and pure functions that draw on a given axis."""
from __future__ import annotations

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

__all__ = ["BLUE", "VERMILLION", "GREEN", "PURPLE", "ORANGE", "SKY", "BLACK", "GREY", "SERIES", "new_figure",
           "end_label", "end_labels", "reference", "seed_dots", "seed_rows", "draw_curves", "draw_spectra", "draw_sphere",
           "image_grid", "draw_report", "draw_records"]

# Okabe–Ito. One meaning each, in every chapter:
BLUE = "#0072B2"        # the method as published
VERMILLION = "#D55E00"  # the broken variant
GREEN = "#009E73"       # EMA target, BYOL
PURPLE = "#CC79A7"      # contrastive, MoCo v3
ORANGE = "#E69F00"      # another variant
SKY = "#56B4E9"         # another variant
BLACK = "#000000"       # the paper's number (a diamond), ink
GREY = "#777777"        # references, untrained nets
SERIES = [BLUE, VERMILLION, ORANGE, SKY, GREEN, PURPLE, GREY, BLACK]

STYLE = {
    "figure.dpi": 100, "savefig.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9.5,
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
    "lines.linewidth": 1.8, "axes.prop_cycle": plt.cycler(color=SERIES),
}


def new_figure(rows: int = 1, cols: int = 1, size: tuple | None = None, **kwargs):
    """Return (figure, axes) in the house style: 5.5 × 3.2 in for one column, 8 in wide for more.

    The style stays set in matplotlib's rcParams: a title reads its place and weight there when it is written, and
    rc_context would take back the interactive mode that a notebook's backend switches on with its first figure."""
    size = size or (5.5 if cols == 1 else 8.0, 3.2 * rows if cols == 1 else 3.0 * rows)
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, cols, figsize=size, **kwargs)


def end_label(ax, x: float, y: float, text: str, colour: str, dy: float = 0.0) -> None:
    """Write `text` just right of the point (x, y), in `colour`; `dy` shifts it in points."""
    ax.annotate(text, (x, y), xytext=(4, dy), textcoords="offset points", color=colour, va="center",
                fontsize=9, annotation_clip=False)


def end_labels(ax, ends: dict, colours: dict, gap: float = 11.0) -> None:
    """Name the curves that end at {name: (x, y)}, at least `gap` points apart. Set the limits of the axis before."""
    last, point = -np.inf, ax.figure.dpi / 72
    for name, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        at = ax.transData.transform((x, y))[1] / point
        last = max(at, last + gap)
        end_label(ax, x, y, name, colours[name], dy=last - at)


def reference(ax, y: float, text: str, where: float = 0.02, below: bool = False) -> None:
    """Draw a named dashed line at height `y`; `where` is the label's place as a share of the width."""
    ax.axhline(y, color=GREY, linestyle="--", linewidth=1, zorder=0)
    ax.annotate(text, (where, y), xycoords=("axes fraction", "data"), xytext=(0, -10 if below else 2),
                textcoords="offset points", color=GREY, fontsize=8, annotation_clip=True)


def seed_dots(ax, table, x: str, y: str, colours: dict, **kwargs) -> None:
    """Draw one dot per seed: `table` is a DataFrame with columns `x` (the arm) and `y` (the value)."""
    before = np.random.get_state()                # seaborn's jitter takes numpy's global state: the same dots each time
    np.random.seed(0)
    sns.stripplot(table, x=x, y=y, hue=x, order=list(colours), hue_order=list(colours), palette=colours,
                  ax=ax, size=6, alpha=0.75, jitter=0.12, legend=False, **kwargs)
    np.random.set_state(before)


def seed_rows(axes, arms: dict, colours: dict, titles: dict) -> None:
    """Draw arms {name: {measure: [value of each seed]}}: a row for each arm, a dot for each seed, an axis for each of
    `titles` {measure: title}."""
    for ax, (measure, title) in zip(axes, titles.items()):
        for y, (name, of) in enumerate(arms.items()):
            ax.plot(of[measure], [y] * len(of[measure]), "o", color=colours[name], alpha=0.75, markersize=6)
        ax.set(title=title, yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.5, -0.5))
        ax.label_outer()


def draw_curves(ax, curves: dict, colours: dict, dashed: tuple = (), label: bool = True) -> None:
    """Draw {name: (x, y)} as lines, each named at its end in its colour."""
    for name, (x, y) in curves.items():
        ax.plot(x, y, color=colours[name], linestyle="--" if name in dashed else "-")
        if label:
            end_label(ax, x[-1], y[-1], name, colours[name])


def draw_spectra(ax, spectra: dict, colours: dict, floor: float = 1e-7) -> None:
    """Draw {name: singular values} divided by the largest, on a log axis, down to float32's noise floor.

    Limits that the axis has are kept: set them before."""
    ax.set_yscale("log")
    ends = {}
    for name, sigma in spectra.items():
        share = np.asarray(sigma, dtype=float) / max(float(sigma[0]), 1e-30)
        share = share[share > floor]
        ax.plot(np.arange(1, len(share) + 1), share, color=colours[name])
        if len(share):
            ends[name] = len(share), share[-1]
    end_labels(ax, ends, colours)
    reference(ax, floor, "float32 noise floor")
    ax.set(xlabel="index of the singular value", ylabel="σ / σ₁")


def draw_sphere(ax, points, colours, title: str = "") -> None:
    """Draw unit vectors (N, 3) on a wire sphere; `ax` is a 3-D axis, `colours` one per point."""
    u, v = np.mgrid[0:2 * np.pi:25j, 0:np.pi:13j]
    ax.plot_wireframe(np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v), color=GREY, alpha=0.15, linewidth=0.5)
    x, y, z = np.asarray(points, dtype=float).T
    ax.scatter(x, y, z, c=colours, s=10, depthshade=True)
    ax.set(xticks=[], yticks=[], zticks=[], title=title)
    ax.set_box_aspect((1, 1, 1))


def image_grid(ax, pixels, columns: int = 8, gap: int = 2) -> None:
    """Draw uint8 images (N, C, H, W) as one contact sheet, `columns` to a row."""
    pixels = np.asarray(pixels)
    n, c, h, w = pixels.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[top:top + h, left:left + w] = image.transpose(1, 2, 0)   # one grey channel fills all three
    ax.imshow(sheet)
    ax.set_axis_off()


def draw_report(runs: dict, spectra: dict):
    """Return a figure of `runs` {name: Run}: loss and std·√d over the steps, and `spectra` {name: σ} at the end."""
    figure, (left, middle, right) = new_figure(1, 3, size=(11, 3.2))
    colours = dict(zip(runs, cycle(SERIES))) | {"untrained": GREY}
    for ax, key in ((left, "loss"), (middle, "std")):            # a run that diverged at once has no curve
        curves = {name: run.curve(key) for name, run in runs.items() if key in run.history}
        draw_curves(ax, curves, colours, label=ax is left)
    begun = [run.curve("loss")[1][0] for run in runs.values() if "loss" in run.history]
    if cosine := max(begun, default=0) < 0.1:                    # no other loss begins so low
        reference(left, -1, "−1: the lowest there is", below=True)
    reference(middle, 1, "1: as spread out as can be")
    left.set(xlabel="step", title="Loss", ylim=(-1.15, 0.1) if cosine else (None, None))
    middle.set(xlabel="step", title="std·√d of the output z", ylim=(0, 1.15))
    floor = {name: sigma.cpu().clamp_min(1e-3 * float(sigma[0])) for name, sigma in spectra.items()}  # labels stay inside
    right.set(title="Spectrum of the backbone's features", ylim=(1e-3, 1.5))
    draw_spectra(right, floor, colours)
    return figure


def draw_records(axes, runs: dict, measures: dict, colours: dict, dashed: tuple = ()) -> None:
    """Draw the curves of records, runs {arm: [record of each seed]}: one axis for each of `measures` {curve: limits},
    one line for each seed. The arms are named beside the last axis."""
    for ax, (measure, limits) in zip(axes, measures.items()):
        ends = {}
        for arm, records in runs.items():
            for record in records:
                x, y = zip(*record.curves[measure])
                ax.plot(x, y, color=colours[arm], linestyle="--" if arm in dashed else "-", linewidth=1.1, alpha=0.8)
                ends[arm] = (x[-1], y[-1])
        ax.set(ylim=limits, xlabel="step")
    end_labels(axes[-1], ends, colours)
