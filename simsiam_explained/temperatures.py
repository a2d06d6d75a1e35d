"""Temperatures against learning rates in the vector world: what the factor 2τ of MoCo v3's loss is for."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from .checks import positive
from .contrast import info_nce, unit
from .micro import Arm, Setting, VectorWorld, encode, r2
from .switches import Switches
from .training import lr_at
from .world import batches, descend, encode_unseen, first_runs, seed_list, unseen

__all__ = ["contrast", "rates_by_temperature"]


def contrast(z: Tensor, tau: Tensor) -> Tensor:
    """Return 2τ·InfoNCE (runs,) of outputs z (runs, d, 2·batch), view 1 then view 2; keys are detached.

    tau: (runs, 1, 1). MoCo v3 with m = 0 and no predictor: keys of the net itself."""
    z1, z2 = unit(z.mT).chunk(2, 1)                                  # (runs, batch, d)
    return 2 * tau.flatten() * sum(info_nce(q, k.detach(), tau) for q, k in ((z1, z2), (z2, z1)))


def rates_by_temperature(
    temperatures: Sequence[float],
    rates: Sequence[float],        # of SGD, peak of a half-cosine
    seeds: int | Sequence[int] = 3,
    scaled: bool = True,           # False: plain InfoNCE, without the factor 2τ
    steps: int = 300,
    world: VectorWorld = VectorWorld(),
    setting: Setting = Setting(weight_decay=0.0),   # choice: a decay would be rescaled with the rate
) -> Tensor:
    """Return the held-out R² of the content (temperature, rate, seed) after training every combination at once."""
    seeds = seed_list(seeds)
    runs = list(product(temperatures, rates, seeds))
    tau, lr = (torch.tensor([run[i] for run in runs]).view(-1, 1, 1) for i in (0, 1))
    arms = len(temperatures) * len(rates)
    weights = first_runs(world, setting, seeds, arms)
    velocity, factor = {n: torch.zeros_like(w) for n, w in weights.items()}, 1.0 if scaled else 1 / (2 * tau.flatten())
    switches = Switches.of([Arm(predictor="none")] * len(runs), weights["f"])
    for step, x in zip(range(positive("steps", steps)), batches(world, seeds, setting.batch, arms)):
        loss = factor * contrast(encode(weights, x, switches)[1], tau)
        rate = dict.fromkeys(weights, lr_at(step, steps) * lr)
        descend(loss, weights, velocity, rate, setting.momentum, setting.weight_decay)
    clean, content = unseen(world)
    features, _ = encode_unseen(weights, clean, switches)
    return r2(features, content).view(len(temperatures), len(rates), len(seeds))
