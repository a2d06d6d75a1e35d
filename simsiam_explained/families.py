"""Families of small nets in the vector world of chapter 00: one recipe; width, noise and seed differ."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from .checks import one_of, whole
from .collapse import alpha_slope, auc, effective_rank, rankme, spectrum, std_ratio, uniformity
from .contrast import nt_xent
from .micro import Arm, Setting, VectorWorld, encode, lr_rule, pair_loss, predictions, r2
from .switches import Switches
from .training import lr_at
from .world import batches, descend, encode_unseen, first_runs, follow, unseen

__all__ = ["METHODS", "train_family"]

METHODS = {"SimSiam": Arm(), "slow target": Arm(), "no stop-gradient": Arm(stop_gradient=False),
           "contrastive": Arm(predictor="none")}
EMA = 0.95           # choice: of the slow target; its memory is a twentieth of the shortest run in the chapter
TEMPERATURE = 0.2    # choice: between SimCLR's 0.1 and 0.5
TAIL = 50            # as in the records: the final loss is the mean of so many last steps


def _loss(method: str, weights: dict, slow: dict, x: Tensor, switches: Switches) -> Tensor:
    """Return the loss (runs,) of `method` on a batch x (runs, size, 2·batch)."""
    z = encode(weights, x, switches)[1]
    if method == "contrastive":
        return nt_xent(z.mT, temperature=TEMPERATURE)
    p = predictions(weights, z, switches)
    with torch.no_grad():
        target = encode(slow, x, switches)[1] if slow else None
    return pair_loss(target.requires_grad_() if slow else z, p, switches)     # its hook asks for a gradient


def _figures(weights: dict, x: Tensor, content: Tensor, switches: Switches) -> dict[str, Tensor]:
    """Return {figure: (runs,)} on unseen clean vectors x (size, n): of outputs z the std and the uniformity, of the
    backbone's features all else; "accuracy" is the R² of the content (n, k), held out."""
    y, z = encode_unseen(weights, x, switches)
    sigma = spectrum(y)
    return {"std": std_ratio(z), "AUC": auc(sigma), "rank": effective_rank(sigma), "rankme": rankme(y),
            "alpha": alpha_slope(sigma), "uniformity": uniformity(z, rows=512), "accuracy": r2(y, content)}


def _train(method: str, worlds: Sequence[VectorWorld], seeds: Sequence[int], steps: int, s: Setting) -> dict:
    """Train a net for each world and seed, all at once, by chapter 00's recipe; return {figure: (worlds · seeds,)}."""
    weights = first_runs(worlds[0], s, seeds, len(worlds))
    slow = {k: w.detach().clone() for k, w in weights.items()} if method == "slow target" else {}
    switches = Switches.of([METHODS[method]] * len(worlds) * len(seeds), weights["f"])
    velocity, losses = {k: torch.zeros_like(w) for k, w in weights.items()}, []
    for step, *views in zip(range(max(steps, 1)), *(batches(world, seeds, s.batch) for world in worlds)):
        losses.append((loss := _loss(method, weights, slow, torch.cat(views), switches)).detach())
        if step < steps:
            now = {"frozen": 0.0, "constant": s.lr, "scheduled": lr_at(step, steps, s.lr)}
            rate = {k: torch.full((1, 1, 1), now[lr_rule(METHODS[method], k)]) for k in weights}
            descend(loss, weights, velocity, rate, s.momentum, s.weight_decay)
            follow(slow, weights, EMA)
    if not torch.isfinite(last := torch.stack(losses[-TAIL:]).mean(0)).all():
        raise FloatingPointError(f"loss: {method} of width {s.width} ends at {float(last[~last.isfinite()][0])}, "
                                 "expected a finite number; use a smaller lr in `setting`.")
    return {"loss": last} | _figures(weights, *unseen(worlds[0]), switches)     # a world's noise is only in its views


def train_family(
    method: str = "SimSiam",
    widths: Sequence[int] = (4, 8, 16, 32),            # of the backbone and inside the projector
    jitters: Sequence[float] = (0.4, 0.8, 1.6),        # std of the noise that the views add to the content
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 400,                                  # 0: untrained nets
    setting: Setting = Setting(),
) -> pd.DataFrame:
    """Return a row for each net of the family: what it is, its figures, and its accuracy on unseen vectors."""
    one_of("method", method, METHODS)
    whole("steps", steps)
    for name, given in {"widths": widths, "jitters": jitters, "seeds": seeds}.items():
        if not len(given):
            raise ValueError(f"{name}: got none, expected at least one.")
    worlds, tables = [VectorWorld(jitter=jitter) for jitter in jitters], []
    for width in widths:
        found = _train(method, worlds, seeds, steps, replace(setting, width=width))
        nets = [(method, width, jitter, seed) for jitter in jitters for seed in seeds]
        table = pd.DataFrame(nets, columns=["method", "width", "jitter", "seed"])
        tables.append(table.assign(steps=steps, **{name: values.numpy() for name, values in found.items()}))
    return pd.concat(tables, ignore_index=True)
