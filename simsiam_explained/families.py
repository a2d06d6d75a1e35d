"""Families of small nets in the vector world of chapter 00: one recipe; width, noise and seed differ."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor

from .checks import one_of
from .collapse import alpha_slope, auc, effective_rank, rankme, spectrum, std_ratio, uniformity
from .micro import (Arm, Setting, VectorWorld, draw_views, encode, factors, first_weights, lr_rule, mixing, pair_loss,
                    predictions, r2, sgd_step)
from .switches import Switches

__all__ = ["METHODS", "contrast", "train_family"]

METHODS = {"SimSiam": Arm(), "slow target": Arm(), "linear predictor": Arm(predictor="linear"),
           "no stop-gradient": Arm(stop_gradient=False), "no predictor": Arm(predictor="none"),
           "contrastive": Arm(predictor="none")}
EMA = 0.95       # choice: of the slow target; its memory is a twentieth of the shortest run in the chapter
TAIL = 50        # as in the records: the final loss is the mean of so many last steps


def contrast(
    z: Tensor,                  # (runs, dim, 2·batch) outputs: view 1 of the batch, then view 2
    temperature: float = 0.2,   # choice: between SimCLR's 0.1 and 0.5
) -> Tensor:                    # (runs,)
    """Return SimCLR's loss: the cross-entropy of picking an output's other view among all others (Chen et al. 2020)."""
    unit = torch.nn.functional.normalize(z, dim=1)
    score = unit.mT @ unit / temperature
    own = torch.eye(z.shape[-1], dtype=torch.bool, device=z.device)
    partner = score.diagonal(z.shape[-1] // 2, -2, -1)                  # of each first view; the second's is the same
    return score.masked_fill(own, -math.inf).logsumexp(-1).mean(-1) - partner.mean(-1)


def _loss(method: str, weights: dict, slow: dict, x: Tensor, switches: Switches) -> Tensor:
    """Return the loss (runs,) of `method` on a batch x (runs, size, 2·batch)."""
    z = encode(weights, x, switches)[1]
    if method == "contrastive":
        return contrast(z)
    p = predictions(weights, z, switches)
    with torch.no_grad():
        target = encode(slow, x, switches)[1] if slow else None
    return pair_loss(target.requires_grad_() if slow else z, p, switches)     # its hook asks for a gradient


def _figures(weights: dict, x: Tensor, content: Tensor, switches: Switches) -> dict[str, Tensor]:
    """Return {figure: (runs,)} on unseen clean vectors x (size, n): of outputs z the std and the uniformity, of the
    backbone's features all else; "accuracy" is the R² of the content (n, k), held out."""
    with torch.no_grad():
        y, z = (t.mT for t in encode(weights, x.expand(len(weights["f"]), *x.shape), switches, views=1))
    sigma = spectrum(y)
    return {"std": std_ratio(z), "AUC": auc(sigma), "rank": effective_rank(sigma), "rankme": rankme(y),
            "alpha": alpha_slope(sigma), "uniformity": uniformity(z, rows=512), "accuracy": r2(y, content)}


def _train(method: str, worlds: Sequence[VectorWorld], seeds: Sequence[int], steps: int, s: Setting) -> dict:
    """Train a net for each world and seed, all at once, by chapter 00's recipe; return {figure: (worlds · seeds,)}."""
    world, first = worlds[0], [first_weights(worlds[0].size, s.width, s.dim, seed) for seed in seeds]
    weights = {k: torch.stack([w[k] for w in first] * len(worlds)).float().requires_grad_() for k in first[0]}
    slow = {k: w.detach().clone() for k, w in weights.items()} if method == "slow target" else {}
    switches = Switches.of([METHODS[method]] * len(worlds) * len(seeds), weights["f"])
    images, mix = factors(world, world.images, world.seed + 1).float(), mixing(world).float()
    truth = factors(world, 1024, world.seed + 2)                        # images that are never trained on
    streams = [[torch.Generator().manual_seed(10_000 + seed) for seed in seeds] for _ in worlds]
    velocity, losses = {k: torch.zeros_like(w) for k, w in weights.items()}, []
    for step in range(max(steps, 1)):
        x = torch.cat([draw_views(w, images, mix, of, s.batch) for w, of in zip(worlds, streams)])
        losses.append((loss := _loss(method, weights, slow, x, switches)).detach())
        if step < steps:
            gradients = torch.autograd.grad(loss.sum(), list(weights.values()), materialize_grads=True)
            now = {"frozen": 0.0, "constant": s.lr, "scheduled": s.lr * 0.5 * (1 + math.cos(math.pi * step / steps))}
            rates = {k: torch.full((1, 1, 1), now[lr_rule(METHODS[method], k)]) for k in weights}
            sgd_step(weights, velocity, dict(zip(weights, gradients)), rates, s.momentum, s.weight_decay)
            for k, w in slow.items():
                w.lerp_(weights[k].detach(), 1 - EMA)
    if not torch.isfinite(last := torch.stack(losses[-TAIL:]).mean(0)).all():
        raise FloatingPointError(f"loss: {method} of width {s.width} ends at {float(last[~last.isfinite()][0])}, "
                                 "expected a finite number; use a smaller lr in `setting`.")
    clean = (truth @ mixing(world)).mT.float()
    return {"loss": last} | _figures(weights, clean, truth[:, :world.content], switches)


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
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps: got {steps!r}, expected a whole number ≥ 0.")
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
