"""Made images of many classes and causes: a disc of one texture on a ground of another."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch

from .checks import positive
from .images import Images, textures

__all__ = ["mosaics"]


def mosaics(
    n: int = 10_000,                     # images; disc and ground each share the patterns evenly, in random order
    size: int = 32,                      # pixels a side, at least 8
    patterns: int | Sequence[str] = 8,   # of disc and of ground, as the `classes` of `textures`
    seed: int = 0,                       # same seed, same bytes
    device="cpu",
) -> Images:
    """Return `n` made grey mosaics; a class is a pair of patterns, one on the disc, one on the ground: 64 by default.

    Factors: all those of both textures, as in "disc class" and "ground frequency", and of the disc, which lies wholly
    inside the image: "radius" (of the side), "centre" (N, 2) (row and column, of the side)."""
    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    disc, ground = (textures(positive("mosaics: n", n), size, patterns, seed=s) for s in seeds[:2])
    u = torch.rand(n, 3, generator=torch.Generator().manual_seed(seeds[2]))
    radius = 0.3 + 0.15 * u[:, :1]            # choice: the disc covers 28 to 64 per cent, so both can be seen
    centre = radius + (1 - 2 * radius) * u[:, 1:]
    square = ((torch.arange(size) + 0.5) / size - centre[..., None]) ** 2                       # (N, 2, size)
    inside = square[:, 0, :, None] + square[:, 1, None, :] < radius[..., None] ** 2             # (N, size, size)
    pixels = torch.where(inside[:, None], disc.pixels, ground.pixels)
    factors = {f"disc {name}": value for name, value in disc.factors.items()}
    factors |= {"radius": radius[:, 0], "centre": centre}
    factors |= {f"ground {name}": value for name, value in ground.factors.items()}
    classes = tuple(f"{one} on {other}" for one, other in product(disc.classes, ground.classes))
    return Images(pixels, disc.labels * len(ground.classes) + ground.labels, classes, factors, "mosaics").to(device)
