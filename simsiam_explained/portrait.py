"""The phase portrait of one mode of the linear theory: pure functions from knobs to a figure."""
from __future__ import annotations

import numpy as np
import torch

from .dynamics import Knobs, basin_boundary, integrate, mode_flow, rest_points
from .figures import BLACK, BLUE, GREY, VERMILLION, new_figure

__all__ = ["P", "W", "fate", "draw_plane", "draw_growth", "portrait"]

P, W = (-0.3, 1.15), (0.0, 1.0)       # choice: what is shown, whatever the knobs, so that changes are seen
END, STEPS = 100.0, 500               # choice: so long is a start followed
FLOW, BASIN = 0.5, 0.13               # how dark the streamlines and the basin are


def fate(start: tuple[float, float], knobs: Knobs) -> tuple[np.ndarray, bool]:
    """Return the path (n, 2) of (p, w) from `start`, w = √s, and whether the mode lives."""
    p, w = start
    path = integrate(lambda x: mode_flow(x, knobs), torch.tensor([p, w * w], dtype=torch.float64), END, STEPS).numpy()
    rests = {rest.kind: rest for rest in rest_points(knobs)}
    lives = "alive" in rests and path[-1, 0] > rests["boundary"].p
    return np.stack([path[:, 0], np.sqrt(path[:, 1].clip(0))], -1), bool(lives)


def _shade_basin(ax, knobs: Knobs, named: bool) -> None:
    """Shade the starts that collapse: those under the boundary, or all."""
    line = basin_boundary(knobs).numpy()
    if not len(line):
        ax.axhspan(*W, color=VERMILLION, alpha=BASIN, linewidth=0)
        return
    p, w = line[:, 0], np.sqrt(line[:, 1].clip(0))
    ax.fill_between(p, w, color=VERMILLION, alpha=BASIN, linewidth=0)
    ax.plot(p, w, color=VERMILLION, linewidth=1.2)
    for text, height, colour in (("lives", 0.93, BLUE), ("collapses", 0.04, VERMILLION)) if named else ():
        ax.text(P[0] + 0.02, height, text, color=colour, fontsize=9, backgroundcolor=(1, 1, 1, 0.6 * (text == "lives")))


def _draw_standstills(ax, knobs: Knobs, named: bool) -> None:
    """Draw where p stands still (dashed), where w does (dotted), and the line on which all ends."""
    top = knobs.tau / (1 + knobs.noise)
    p = np.linspace(1e-4, top - 1e-4, 400)
    still = np.sqrt(knobs.decay * p / (knobs.predictor_lr * (1 + knobs.noise) * (top - p)))
    ax.plot(p, still, color=GREY, linestyle="--", linewidth=1.1)
    marks = [(float(np.interp(W[1], still, p)), "ṗ = 0", "left")] + [(r.p, "ẇ = 0", "right") for r in rest_points(knobs)[1:]]
    for at, name, side in marks:
        if named:
            ax.annotate(name, (at, W[1]), xytext=(0, 3), textcoords="offset points", color=GREY, fontsize=8, ha=side)
        if name == "ẇ = 0":
            ax.axvline(at, color=GREY, linestyle=":", linewidth=1.1)
    ax.plot(P, np.array(P) / knobs.predictor_lr ** 0.5, color=BLACK, linewidth=0.9)


def _mark_rests(ax, knobs: Knobs, growth: bool = False) -> None:
    """Draw the rest points: filled where training stays, hollow where it leaves."""
    for rest in rest_points(knobs):
        colour = {"collapsed": VERMILLION, "alive": BLUE}.get(rest.kind, BLACK)
        height = (rest.p > 0) * knobs.decay if growth else rest.s ** 0.5
        if height <= ax.get_ylim()[1]:
            ax.plot(rest.p, height, "o", color=colour, markerfacecolor="white" if rest.kind == "boundary" else colour,
                    markersize=8, zorder=6, clip_on=False)


def draw_plane(ax, knobs: Knobs, starts: list[tuple[float, float]] = (), density: float = 0.75,
               named: bool = True) -> None:
    """Draw the flow of a mode's p and w = √s, the basin of collapse, the rest points, and the path of each start (p, w)."""
    ax.set(xlim=P, ylim=W, xlabel="p, the mode in the predictor", ylabel="w = √s, the mode in the encoder")
    ax.grid(False)
    _shade_basin(ax, knobs, named)
    p, w = np.meshgrid(np.linspace(*P, 36), np.linspace(*W, 28))
    flow = mode_flow(torch.tensor(np.stack([p, w * w], -1)), knobs).numpy()
    ax.streamplot(p, w, flow[..., 0], flow[..., 1] / (2 * w).clip(1e-9), color=(FLOW,) * 3 + (FLOW,), density=density,
                  linewidth=0.7, arrowsize=0.8)
    _draw_standstills(ax, knobs, named)
    for start in starts:
        path, lives = fate(start, knobs)
        for part, mark in ((path, "-"), (path[:1], "o")):
            ax.plot(*part.T, mark, color=BLUE if lives else VERMILLION, linewidth=2.4, markersize=5, zorder=5)
    _mark_rests(ax, knobs)


def draw_growth(ax, knobs: Knobs) -> None:
    """Draw what makes a mode grow, p·(τ − (1 + σ²)p), against the decay η that it must beat."""
    ax.set(xlim=P, ylim=(-0.02, 0.36), xlabel="p, the mode in the predictor", ylabel="growth", yticks=(0, 0.1, 0.2, 0.3))
    ax.grid(False)
    p = np.linspace(*P, 300)
    growth = p * (knobs.tau - (1 + knobs.noise) * p)
    ax.plot(p, growth, color=BLACK, linewidth=1.4)
    ax.axhline(knobs.decay, color=GREY, linestyle=":", linewidth=1.2)
    ax.fill_between(p, knobs.decay, growth, where=growth > knobs.decay, color=BLUE, alpha=0.25, linewidth=0)
    ax.annotate(f"η = {knobs.decay:.3g}", (P[1], knobs.decay), xytext=(4, 0), textcoords="offset points", color=GREY,
                fontsize=8.5, va="center", annotation_clip=False)
    _mark_rests(ax, knobs, growth=True)


def portrait(decay: float = 0.1, predictor_lr: float = 1.0, tau: float = 1.0, noise: float = 0.5, p: float = 0.05,
             w: float = 0.6):
    """Return the figure of a mode that starts at (p, w): the plane above, the growth against the decay below."""
    knobs = Knobs(decay, predictor_lr, tau, noise)
    figure, (plane, growth) = new_figure(2, 1, size=(5.9, 5.3), sharex=True, height_ratios=(3.2, 1))
    draw_plane(plane, knobs, [(p, w)])
    draw_growth(growth, knobs)
    lives = fate((p, w), knobs)[1]
    over = f": nothing lives above η = {knobs.critical:.3f}" if decay >= knobs.critical else ""
    plane.set_title("This start lives" if lives else f"This start collapses{over}", color=BLUE if lives else VERMILLION, pad=16)
    plane.set_xlabel("")
    plane.annotate("s = p²/α_p", (min(P[1], predictor_lr ** 0.5), min(W[1], P[1] / predictor_lr ** 0.5)), xytext=(5, 0),
                   textcoords="offset points", fontsize=8.5, va="center", annotation_clip=False)
    growth.set_title("A mode grows where p·(τ − (1 + σ²)p) beats the decay η", fontsize=9, fontweight="normal")
    return figure
