"""The phase portrait of one mode of the linear theory: pure functions from knobs to a figure."""
from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from matplotlib.colors import to_rgba
from matplotlib.patheffects import Normal, Stroke

from .dynamics import Knobs, basin_border, integrate, mode_flow, rest_points
from .figures import BLACK, BLUE, GREY, VERMILLION, new_figure

__all__ = ["P", "W", "border", "lives", "follow", "draw_path", "draw_plane", "draw_course", "draw_growth", "portrait"]

P, W = (-0.3, 1.15), (0.0, 1.0)       # choice: what is shown, whatever the knobs, so that changes are seen
END = 60.0                            # choice: so long is a start followed
FATE = {True: BLUE, False: VERMILLION}
HALO = [Stroke(linewidth=4.4, foreground="white"), Normal()]


@lru_cache(16)     # one figure asks several times
def border(knobs: Knobs) -> np.ndarray:
    """Return the border of the basin of collapse, (n, 2) of rising p and of w = √s; empty where no start survives."""
    unit = knobs.tau / (1 + knobs.noise) or 1.0
    p, s = basin_border(knobs, length=2 * (P[1] - P[0]) / unit, steps=400).numpy().T
    return np.stack([p, np.sqrt(s.clip(0))], -1)[p.argsort()]


def lives(p, w, line: np.ndarray) -> np.ndarray:
    """Return whether modes that start at p and w end alive: whether they lie above the border `line`."""
    return w > np.interp(p, *line.T) if len(line) else np.zeros(np.shape(w), dtype=bool)


@lru_cache(16)     # one figure asks several times
def follow(start: tuple[float, float], knobs: Knobs) -> np.ndarray:
    """Return the path (n, 3) from `start` (p, w): time, p and w."""
    steps = math.ceil(END * max(5.0, knobs.predictor_lr * (1 + knobs.noise)))      # fine enough for a fast predictor
    begin = torch.tensor([start[0], start[1] ** 2], dtype=torch.float64)
    p, s = integrate(lambda x: mode_flow(x, knobs), begin, END, steps).numpy().T
    return np.stack([np.linspace(0, END, steps + 1), p, np.sqrt(s.clip(0))], -1)


def _draw_flow(ax, knobs: Knobs, line: np.ndarray, density: float) -> None:
    """Draw ground and streamlines in the colour of their end: blue lives, vermillion collapses."""
    p, w = np.meshgrid(np.linspace(*P, 71), np.linspace(*W, 57))
    flow = mode_flow(torch.tensor(np.stack([p, w * w], -1)), knobs).numpy()
    u, v, alive = flow[..., 0], flow[..., 1] / (2 * w).clip(1e-9), lives(p, w, line)
    for end in (True, False):
        if (alive == end).any():
            ax.streamplot(p, w, np.ma.masked_where(alive != end, u), v, color=to_rgba(FATE[end], 0.45), density=density,
                          linewidth=0.8, arrowsize=0.8)
    edge = np.interp(p[0], *line.T) if len(line) else np.full(71, W[1])
    ax.fill_between(p[0], edge, color=VERMILLION, alpha=0.12, linewidth=0)
    ax.fill_between(p[0], edge, np.maximum(edge, W[1]), color=BLUE, alpha=0.05, linewidth=0)
    ax.plot(*line.T, color=VERMILLION, linewidth=1.6)


def _draw_standstills(ax, knobs: Knobs, named: bool) -> None:
    """Draw where p stands still (dashed), where w does (dotted), and the line on which all paths end."""
    top, slope = knobs.tau / (1 + knobs.noise), knobs.predictor_lr ** -0.5
    p = np.linspace(0, top, 400, endpoint=False)
    still = np.sqrt(knobs.decay * p / (knobs.predictor_lr * (1 + knobs.noise) * (top - p)))
    ax.plot(p, still, color=GREY, linestyle="--", linewidth=1.1)
    ax.plot([P[0], 0, P[1]], [-P[0] * slope, 0, P[1] * slope], color=BLACK, linewidth=1.0)
    alive = [rest.p for rest in rest_points(knobs)[1:]]
    for at in alive:
        ax.axvline(at, color=GREY, linestyle=":", linewidth=1.1)
    if named:
        x = 0.97 * min(P[1], W[1] / slope)
        ax.text(x, x * slope, "$s = p^2/\\alpha_p$", fontsize=8.5, ha="right", va="bottom", rotation_mode="anchor",
                rotation=math.degrees(math.atan(slope)), transform_rotates_text=True)
        marks = [(np.interp(W[1], still, p), "$\\dot p = 0$", "left")] + [(x, "$\\dot w = 0$", "right") for x in alive]
        for at, name, side in marks:
            ax.annotate(name, (at, W[1]), xytext=(0, 3), textcoords="offset points", color=GREY, fontsize=8.5, ha=side)


def _mark_rests(ax, knobs: Knobs, growth: bool = False) -> None:
    """Draw the rest points: filled where training stays, hollow where it leaves."""
    for rest in rest_points(knobs):
        colour = {"collapsed": VERMILLION, "alive": BLUE}.get(rest.kind, BLACK)
        height = (rest.p > 0) * knobs.decay if growth else rest.s ** 0.5
        if height <= ax.get_ylim()[1]:
            ax.plot(rest.p, height, "o", color=colour, markerfacecolor="white" if rest.kind == "border" else colour,
                    markersize=8, zorder=6, clip_on=False)


def draw_path(ax, p, w, alive: bool) -> None:
    """Draw the path of a mode in the colour of its end, its start as a small dot."""
    ax.plot(p, w, color=FATE[alive], linewidth=2.4, zorder=5, path_effects=HALO)
    ax.plot(p[:1], w[:1], "o", color=FATE[alive], markeredgecolor="white", markersize=6.5, zorder=5)


def draw_plane(ax, knobs: Knobs, starts: list[tuple[float, float]] = (), density: float = 0.7,
               named: bool = True) -> None:
    """Draw the flow of p and w = √s, the basin of collapse, the rest points, and the path of each start (p, w)."""
    ax.set(xlim=P, ylim=W, xlabel="p, the mode in the predictor", ylabel="w = √s, the mode in the encoder")
    ax.grid(False)
    line = border(knobs)
    _draw_flow(ax, knobs, line, density)
    _draw_standstills(ax, knobs, named)
    for start in starts:
        draw_path(ax, *follow(start, knobs).T[1:], bool(lives(*start, line)))
    _mark_rests(ax, knobs)
    for (x, y), side, end in (((0.02, 0.94), "left", True), ((0.98, 0.03), "right", False)) if named else ():
        if len(line) or not end:
            ax.text(x, y, "lives" if end else "collapses", color=FATE[end], fontsize=10, fontweight="bold", ha=side,
                    transform=ax.transAxes)


def draw_course(ax, knobs: Knobs, start: tuple[float, float]) -> None:
    """Draw w over time from `start` (p, w)."""
    time, _, w = follow(start, knobs).T
    ax.set(xlim=(-2, END), ylim=W, xlabel="time", xticks=(0, 20, 40, 60))
    ax.tick_params(labelbottom=True)                                        # its axis is the corner's, which has none
    ax.grid(False)
    draw_path(ax, time, w, bool(lives(*start, border(knobs))))
    for rest in rest_points(knobs):
        ax.axhline(rest.s ** 0.5, color=GREY, linestyle=":", linewidth=1.1)


def draw_growth(ax, knobs: Knobs) -> None:
    """Draw what makes a mode grow, p·(τ − (1 + σ²)p), against the decay η that it must beat."""
    ax.set(xlim=P, ylim=(-0.02, 0.36), yticks=(0, 0.1, 0.2, 0.3))
    ax.set(xlabel="p, the mode in the predictor", ylabel="growth")
    ax.grid(False)
    p = np.linspace(*P, 300)
    growth = p * (knobs.tau - (1 + knobs.noise) * p)
    ax.plot(p, growth, color=BLACK, linewidth=1.4)
    ax.axhline(knobs.decay, color=GREY, linewidth=1.1)
    ax.fill_between(p, knobs.decay, growth, where=growth > knobs.decay, color=BLUE, alpha=0.25, linewidth=0)
    for rest in rest_points(knobs)[1:]:
        ax.axvline(rest.p, color=GREY, linestyle=":", linewidth=1.1)
    ax.annotate(f"decay η = {knobs.decay:.3g}", (P[1], knobs.decay), xytext=(-2, 3), textcoords="offset points",
                color=GREY, fontsize=8.5, ha="right")
    _mark_rests(ax, knobs, growth=True)


def portrait(decay: float = 0.1, predictor_lr: float = 1.0, tau: float = 1.0, noise: float = 0.5, p: float = 0.05,
             w: float = 0.6):
    """Return the figure of a mode that starts at (p, w): the plane, w over time beside it, the growth below."""
    knobs, start = Knobs(decay, predictor_lr, tau, noise), (p, w)
    figure, ((plane, course), (growth, corner)) = new_figure(
        2, 2, size=(7.8, 5.3), sharex="col", sharey="row", width_ratios=(3, 1), height_ratios=(3.4, 1))
    draw_plane(plane, knobs, [start])
    draw_course(course, knobs, start)
    draw_growth(growth, knobs)
    corner.set_axis_off()
    told = [f"nothing lives above η = {knobs.critical:.3f}",
            *(f"{rest.kind} at p = {rest.p:.3f}" for rest in rest_points(knobs)[1:])]
    corner.text(0, 1, "\n".join(told), transform=corner.transAxes, va="top", fontsize=9, linespacing=1.6)
    alive = bool(lives(p, w, border(knobs)))
    over = ", as every other does" if decay >= knobs.critical else ""
    plane.set_title("This start lives" if alive else f"This start collapses{over}", color=FATE[alive], pad=16)
    plane.set_xlabel("")
    course.set_title("… over time", fontsize=9, fontweight="normal")
    growth.set_title("A mode grows where p·(τ − (1 + σ²)p) beats the decay η", fontsize=9, fontweight="normal")
    return figure
