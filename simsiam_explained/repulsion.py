"""Repulsion without images: contrastive arms in the vector world of chapter 00, and the linear toys of Jing et al. 2022."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import one_of, positive
from .collapse import effective_rank, spectrum, uniformity
from .contrast import info_nce, nt_xent, unit
from .micro import Arm, Setting, VectorWorld, encode, predictions, r2
from .switches import Switches
from .training import lr_at
from .world import batches, descend, first_runs, follow, look_steps, seed_list, stacked, unseen, unseen_pair

__all__ = ["Repelled", "RepelledRun", "train_repelled", "TOYS", "toy_weights", "toy_gradient", "follow_toy", "sample_toy",
           "product", "alive_limit"]


@dataclass(frozen=True)
class Repelled:
    """One contrastive way to train in the vector world; the defaults are SimCLR's."""
    temperature: float = 0.5      # τ
    normalise: bool = True        # of the outputs, before they are compared
    head: str = "mlp"             # mlp | linear, without BN
    predictor: str = "none"       # none | mlp
    stop_gradient: bool = False   # on the targets
    m: float | None = None        # a number: MoCo, the keys come from a net that follows with m
    queue: int = 0                # of MoCo: keys of past batches; 0: the other keys of the batch

    def __post_init__(self):
        one_of("head", self.head, ("mlp", "linear"))
        one_of("predictor", self.predictor, ("none", "mlp"))


class RepelledRun(NamedTuple):
    """What train_repelled measured, each (time, seed), at `steps`; σ of the features and of z (seed, d) at the end."""
    steps: tuple[int, ...]
    loss: Tensor           # of the training batch
    found: Tensor          # share of the views of 128 unseen vectors whose nearest neighbour is their partner
    uniform: Tensor        # log mean exp(−2‖z − z′‖²) of clean unseen vectors
    rank: Tensor           # effective rank of z, centred
    content: Tensor        # held-out R² of the content, linearly from the backbone's features
    z_content: Tensor      # and from z
    clock: Tensor          # how much nearer a query is to keys of other images of today than to the queue's, by cosine
    features: Tensor
    z: Tensor


def _outputs(arm: Repelled, encoder: dict, x: Tensor, switches: Switches, views: int = 2) -> tuple[Tensor, Tensor]:
    """Return backbone features (runs, width, n) and z (runs, d, n) of x (runs, size, n)."""
    y, z = encode(encoder, x, switches, views)
    return y, z if arm.head == "mlp" else torch.bmm(encoder["g2"], y)


def _loss(arm: Repelled, temperature: Tensor, weights: dict, slow: dict, queue: Tensor, x: Tensor,
          switches: Switches) -> tuple[Tensor, Tensor]:
    """Return the loss (runs,), and of MoCo the keys (runs, B, d) of the second view."""
    z = _outputs(arm, weights, x, switches)[1]
    p = (predictions(weights, z, switches) if arm.predictor == "mlp" else z).mT
    z = z.mT
    if arm.m is None:
        return nt_xent(p, z.detach() if arm.stop_gradient else z, temperature, arm.normalise), z
    with torch.no_grad():
        keys = unit(_outputs(arm, slow, x, switches)[1].mT)[:, z.shape[1] // 2:]
    return info_nce(unit(p[:, :z.shape[1] // 2]), keys, temperature, queue if arm.queue else None), keys


def _found(views: Sequence[Tensor]) -> Tensor:
    """Return the share (runs,) of two views (runs, n, d) whose nearest neighbour by angle is their partner."""
    z = unit(torch.cat([v[:, :128] for v in views], 1))
    n = z.shape[1]
    near = (z @ z.mT).masked_fill(torch.eye(n, dtype=torch.bool), -math.inf).argmax(-1)
    return (near == torch.arange(n).roll(n // 2)).float().mean(-1)


def _clock(arm: Repelled, weights: dict, keys: Tensor, queue: Tensor, x: Tensor, switches: Switches) -> Tensor:
    """Return mean cos(query, today's keys of other images) − mean cos(query, queue), (runs,); NaN without a queue."""
    if not arm.queue:
        return x.new_full((len(x),), math.nan)
    with torch.no_grad():
        q, n = unit(_outputs(arm, weights, x, switches)[1].mT)[:, :keys.shape[1]], keys.shape[1]
    now = q @ keys.mT
    others = (now.sum((1, 2)) - now.diagonal(dim1=1, dim2=2).sum(1)) / (n * (n - 1))
    return others - (q @ queue.mT).mean((1, 2))


def _look(arm: Repelled, weights: dict, clean: Tensor, pair: Tensor, content: Tensor, switches: Switches) -> dict:
    """Return what is measured on unseen vectors: clean (runs, size, n) with their content (n, k), and two views."""
    with torch.no_grad():
        y, z = (v.mT for v in _outputs(arm, weights, clean, switches, views=1))
        views = _outputs(arm, weights, pair, switches)[1].mT.chunk(2, -2)
    sigma = spectrum(z)
    return {"found": _found(views), "uniform": uniformity(z, rows=512),
            "rank": effective_rank(sigma), "content": r2(y, content), "z_content": r2(z, content),
            "features": spectrum(y), "z": sigma}


def _train(arm: Repelled, temperatures: Sequence[float], seeds: list[int], steps: int, world: VectorWorld,
           s: Setting) -> tuple[tuple, dict[str, Tensor]]:
    """Train all temperatures of one arm at once; return the steps and measures (time, temperature, seed, …)."""
    arms, at, taken = len(temperatures), look_steps(steps, s.points), []
    weights = first_runs(world, s, seeds, arms)
    velocity = {name: torch.zeros_like(w) for name, w in weights.items()}
    slow = {name: w.detach().clone() for name, w in weights.items()}
    tau = torch.tensor(temperatures).repeat_interleave(len(seeds)).view(-1, 1, 1)
    noise = [torch.Generator().manual_seed(30_000 + seed) for seed in seeds]
    queue = unit(torch.stack([torch.randn(arm.queue, s.dim, generator=g) for g in noise] * arms))
    switches = Switches.of([Arm()] * len(tau), weights["f"])
    clean, content = unseen(world)
    clean, pair = (x.expand(len(tau), -1, -1) for x in (clean, unseen_pair(world, 512)))
    for step, x in zip(range(steps + 1), batches(world, seeds, s.batch, arms)):
        loss, keys = _loss(arm, tau, weights, slow, queue, x, switches)
        if step in at:
            taken.append(_look(arm, weights, clean, pair, content, switches)
                         | {"loss": loss.detach(), "clock": _clock(arm, weights, keys, queue, x, switches)})
        rate = torch.full((1, 1, 1), lr_at(step, steps, s.lr))
        descend(loss, weights, velocity, dict.fromkeys(weights, rate), s.momentum, s.weight_decay)
        if arm.m is not None:
            follow(slow, weights, arm.m)
            queue = torch.cat([queue, keys], 1)[:, keys.shape[1]:]
    return at, {name: of.unflatten(1, (arms, len(seeds))) for name, of in stacked(taken).items()}


def train_repelled(
    arms: dict[str, Repelled],
    seeds: int | Sequence[int] = 10,        # how many, or which; arms share a seed's first weights and its data
    steps: int = 300,
    world: VectorWorld = VectorWorld(),
    setting: Setting = Setting(batch=32),
) -> dict[str, RepelledRun]:
    """Train every arm with every seed by the recipe of chapter 00; arms that differ in τ alone are trained at once."""
    seeds = seed_list(seeds)
    alike: dict[Repelled, list[str]] = {}
    for name, arm in arms.items():
        alike.setdefault(replace(arm, temperature=1.0), []).append(name)
    runs = {}
    for names in alike.values():
        at, seen = _train(arms[names[0]], [arms[n].temperature for n in names], seeds, steps, world, setting)
        for i, name in enumerate(names):
            of = {k: v[:, i] for k, v in seen.items()}
            runs[name] = RepelledRun(at, **of | {k: of[k][-1] for k in ("features", "z")})
    return {name: runs[name] for name in arms}


TOYS = ("distances", "products")


def toy_weights(
    seeds: Sequence[int], layers: int = 1, size: int = 16,
    decay: float | None = None,   # singular values exp(−decay·k); None: PyTorch's default weights of a linear layer
) -> list[Tensor]:                # layers × (seeds, size, size) float64
    """Return the first weights of Jing et al.'s toys: their singular values given, their directions random."""
    weights = []
    for generator in (torch.Generator().manual_seed(seed) for seed in seeds):
        drawn = [torch.rand(size, size, generator=generator, dtype=torch.float64) for _ in range(layers)]
        if decay is None:
            weights.append([(2 * w - 1) / size**0.5 for w in drawn])
        else:
            sigma = torch.exp(-decay * torch.arange(size, dtype=torch.float64))
            weights.append([u * sigma @ vh for u, _, vh in map(torch.linalg.svd, drawn)])
    return [torch.stack(layer) for layer in zip(*weights)]


def toy_gradient(
    P: Tensor,                  # (…, d, d): z = P·x
    noise: Tensor,              # (d,) σ of the augmentation, for each coordinate of x ~ N(0, I)
    kind: str,                  # of TOYS
    temperature: float = 0.1,   # of "products"
) -> Tensor:
    """Return dL/dP of InfoNCE over infinitely many negatives.

    "distances": −‖z − z′‖²/2 as the similarity, anchor and negatives not augmented, τ = 1: the paper's theory as we read it.
    "products": z·z′/τ, both views augmented: the authors' code."""
    if one_of("kind", kind, TOYS) == "distances":
        inverse = torch.linalg.inv(torch.eye(P.shape[-2], dtype=P.dtype) + P @ P.mT)
        return P * noise**2 - (inverse + inverse @ inverse) @ P
    spread = P * (1 + noise**2)                    # P·A, A the covariance of a view
    return 2 / temperature * (spread @ P.mT @ spread / temperature - P)


def product(weights: Sequence[Tensor]) -> Tensor:
    """Return W_L ⋯ W_1."""
    P = weights[0]
    for w in weights[1:]:
        P = w @ P
    return P


def follow_toy(
    weights: Sequence[Tensor],   # of each layer, first to last
    noise: Tensor, kind: str, steps: int, lr: float, points: int = 11,
) -> tuple[list[int], Tensor]:   # steps, and at each of them the product (time, …, d, d)
    """Return where gradient descent of a linear network of these layers goes, by toy_gradient."""
    weights, taken = list(weights), []
    at = [round(positive("steps", steps) * i / (points - 1)) for i in range(points)]
    for step in range(steps + 1):
        if step in at:
            taken.append(product(weights))
        slope, after = toy_gradient(product(weights), noise, kind), []
        for i, w in enumerate(weights):
            g = product(weights[i + 1:]).mT @ slope if weights[i + 1:] else slope
            after.append(w - lr * (g @ product(weights[:i]).mT if i else g))
        weights = after
    return at, torch.stack(taken)


def sample_toy(
    seeds: Sequence[int],
    noise: Tensor,              # (levels, d) σ for each coordinate
    steps: int, lr: float, batch: int = 128, temperature: float = 0.1, images: int = 10_000,
) -> Tensor:                    # (levels, seeds, d, d)
    """Return the trained layer of the authors' first toy, from batches in place of infinitely many negatives."""
    levels, size = noise.shape
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    data = [torch.randn(images, size, generator=g) for g in generators]
    w = toy_weights(seeds, size=size)[0].float().repeat(levels, 1, 1).requires_grad_()
    amplitude = noise.float().repeat_interleave(len(seeds), 0)[:, None, None]
    for _ in range(positive("steps", steps)):
        x = torch.stack([of[torch.randint(images, (batch,), generator=g)] for of, g in zip(data, generators)])
        e = torch.stack([torch.randn(2, batch, size, generator=g) for g in generators])
        views = (x[:, None] + e * amplitude.unflatten(0, (levels, -1))).flatten(0, 1)      # (runs, 2, batch, d)
        z1, z2 = (views @ w[:, None].mT).unbind(1)
        slope, = torch.autograd.grad(info_nce(z1, z2, temperature).sum(), w)
        with torch.no_grad():
            w -= lr * slope
    return w.detach().unflatten(0, (levels, -1))


def alive_limit(noise: float, kind: str, temperature: float = 0.1) -> float:
    """Return the singular value at which a coordinate with that noise comes to rest; inf where it grows for ever.

    "distances": σ² = s + s² with s = 1/(1 + w²), so 0 from σ = √2 on. "products": w = √τ/(1 + σ²)."""
    if one_of("kind", kind, TOYS) == "products":
        return temperature**0.5 / (1 + noise**2)
    if noise == 0:
        return math.inf
    s = (math.sqrt(1 + 4 * noise**2) - 1) / 2
    return max(0.0, 1 / s - 1) ** 0.5
