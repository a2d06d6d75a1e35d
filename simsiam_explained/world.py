"""What all trainings in the vector world of chapter 00 do alike: many runs side by side, their data, a step, a look."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .checks import positive
from .micro import Setting, VectorWorld, draw_views, encode, factors, first_weights, mixing, sgd_step
from .switches import Switches

__all__ = ["seed_list", "stacked", "side_by_side", "first_runs", "batches", "unseen", "unseen_pair", "look_steps",
           "encode_unseen", "descend", "follow"]


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Return the seeds: so many from 0 on, or those given."""
    return list(range(positive("seeds", seeds))) if isinstance(seeds, int) else list(seeds)


# The runs: arm after arm, each with every seed.

def stacked(dicts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return one dict of many that have the same names: their tensors along a new first axis."""
    return {name: torch.stack([each[name] for each in dicts]) for name in dicts[0]}


def side_by_side(first: Sequence[dict[str, Tensor]], arms: int = 1) -> dict[str, Tensor]:
    """Return weights (arms · seeds, rows, columns) float32 that can learn, from those of each seed, for every arm."""
    return {name: w.float().repeat(arms, 1, 1).requires_grad_() for name, w in stacked(first).items()}


def first_runs(world: VectorWorld, s: Setting, seeds: Sequence[int], arms: int = 1) -> dict[str, Tensor]:
    """Return the first weights of chapter 00, side by side; arms share a seed's."""
    return side_by_side([first_weights(world.size, s.width, s.dim, seed) for seed in seeds], arms)


# The data: images that are trained on, and others that never are.

def batches(world: VectorWorld, seeds: Sequence[int], batch: int, arms: int = 1) -> Iterator[Tensor]:
    """Yield without end two views (arms · seeds, size, 2·batch) of training images; arms share a seed's."""
    images, mix = factors(world, world.images, world.seed + 1).float(), mixing(world).float()
    streams = [torch.Generator().manual_seed(10_000 + seed) for seed in seeds]
    while True:
        yield draw_views(world, images, mix, streams, batch).repeat(arms, 1, 1)


def unseen(world: VectorWorld, n: int = 1024) -> tuple[Tensor, Tensor]:
    """Return `n` vectors (size, n) float32 without augmentation, never trained on, and their content (n, content)."""
    truth = factors(world, n, world.seed + 2)
    return (truth @ mixing(world)).mT.float(), truth[:, :world.content]


def unseen_pair(world: VectorWorld, batch: int) -> Tensor:
    """Return two views (size, 2·batch) of images that are never trained on."""
    images, stream = factors(world, 1024, world.seed + 2).float(), torch.Generator().manual_seed(20_000)
    return draw_views(world, images, mixing(world).float(), [stream], batch)[0]


# A look and a step.

def look_steps(steps: int, points: int) -> tuple[int, ...]:
    """Return at most `points` steps from 0 to `steps`, closer together early."""
    return tuple(sorted({round(positive("steps", steps) * (i / (points - 1)) ** 2) for i in range(points)}))


def encode_unseen(weights: dict[str, Tensor], x: Tensor, switches: Switches) -> tuple[Tensor, Tensor]:
    """Return features (runs, n, width) and z (runs, n, dim) of the same vectors x (size, n) in every run.

    Without gradient; BN takes the statistics of all n at once."""
    with torch.no_grad():
        y, z = encode(weights, x.expand(len(weights["f"]), *x.shape), switches, views=1)
    return y.mT, z.mT


def descend(loss: Tensor, weights: dict, velocity: dict, rate: dict, momentum: float, decay: float) -> None:
    """Move the weights in place by one step of SGD (micro.sgd_step) down the loss (runs,), each run down its own."""
    slopes = torch.autograd.grad(loss.sum(), list(weights.values()), materialize_grads=True)
    sgd_step(weights, velocity, dict(zip(weights, slopes)), rate, momentum, decay)


def follow(slow: dict, weights: dict, m: float | Tensor, rows: slice | Tensor = slice(None)) -> None:
    """Move slow weights in place to m·slow + (1 − m)·weights; they may be copies of only some of the runs, `rows`."""
    for name, w in slow.items():
        w.lerp_(weights[name].detach()[rows], 1 - m)
