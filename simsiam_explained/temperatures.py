"""Temperatures against learning rates in the vector world: what the factor 2τ of MoCo v3's loss is for."""
from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import positive
from .micro import Arm, Setting, VectorWorld, draw_views, encode, factors, first_weights, mixing, r2, sgd_step
from .switches import Switches

__all__ = ["contrast", "rates_by_temperature"]


def contrast(z: Tensor, tau: Tensor) -> Tensor:
    """Return 2τ·InfoNCE (runs,) of outputs z (runs, d, 2·batch), view 1 then view 2; keys are detached.

    tau: (runs, 1, 1). MoCo v3 with m = 0 and no predictor: keys of the net itself."""
    z1, z2 = F.normalize(z, dim=1).mT.chunk(2, 1)                                  # (runs, batch, d)
    sides = [q @ k.detach().mT / tau for q, k in ((z1, z2), (z2, z1))]
    loss = sum(s.logsumexp(-1) - s.diagonal(dim1=-2, dim2=-1) for s in sides)
    return 2 * tau.flatten() * loss.mean(-1)


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
    seeds = list(range(positive("seeds", seeds))) if isinstance(seeds, int) else list(seeds)
    runs = list(product(temperatures, rates, seeds))
    tau, lr = (torch.tensor([run[i] for run in runs]).view(-1, 1, 1) for i in (0, 1))
    first = [first_weights(world.size, setting.width, setting.dim, seed) for _, _, seed in runs]
    weights = {n: torch.stack([w[n] for w in first]).float().requires_grad_() for n in first[0] if n[0] in "fg"}
    velocity, factor = {n: torch.zeros_like(w) for n, w in weights.items()}, 1.0 if scaled else 1 / (2 * tau.flatten())
    switches = Switches.of([Arm(predictor="none")] * len(runs), weights["f"].detach())
    images, mix = factors(world, world.images, world.seed + 1).float(), mixing(world).float()
    streams = [torch.Generator().manual_seed(10_000 + seed) for seed in seeds]
    for step in range(positive("steps", steps)):
        x = draw_views(world, images, mix, streams, setting.batch).repeat(len(runs) // len(seeds), 1, 1)
        loss = factor * contrast(encode(weights, x, switches)[1], tau)
        gradients = dict(zip(weights, torch.autograd.grad(loss.sum(), list(weights.values()))))
        now = 0.5 * (1 + math.cos(math.pi * step / steps))
        sgd_step(weights, velocity, gradients, dict.fromkeys(weights, now * lr), setting.momentum, setting.weight_decay)
    truth = factors(world, 1024, world.seed + 2)
    with torch.no_grad():
        clean = (truth @ mixing(world)).mT.float()
        features = encode(weights, clean.expand(len(runs), *clean.shape), switches, views=1)[0].mT
    found = r2(features, truth[:, :world.content])
    return found.view(len(temperatures), len(rates), len(seeds))
