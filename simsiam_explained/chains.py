"""A chain of linear layers under SimSiam, in the vector world of chapter 00: all seeds at once, with or without a slow target."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .checks import positive
from .collapse import auc, spectrum, std_ratio
from .micro import VectorWorld, factors, mixing
from .training import lr_at
from .world import descend, follow, seed_list, stacked, unseen

__all__ = ["Chain", "ChainRun", "GRADED", "JITTER", "first_chain", "chain_layers", "train_chain"]

GRADED = VectorWorld(content=16, style=16)
TAIL = 20               # choice: the loss is the mean of so many last steps; a single batch is noise
JITTER = (0.2, 1.4)     # std of what views add to the first and to the last content coordinate, whose own std is 1


@dataclass(frozen=True)
class Chain:
    """A linear encoder of vectors: `depth` layers of one width, then a representation of the same size for all."""
    width: int = 16     # of what passes from layer to layer
    depth: int = 1
    dim: int = 32       # of the representation, of z and of p
    ema: float = 0.0    # of a slow target's weights; 0: none, as in SimSiam

    def __post_init__(self):
        for name in ("width", "depth", "dim"):
            positive(f"chain: {name}", getattr(self, name))
        if not 0 <= self.ema < 1:
            raise ValueError(f"chain: ema: got {self.ema}, expected 0 ≤ ema < 1; at 1 the target would never move.")


def first_chain(chain: Chain, size: int, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Return the stacked first weights, each (seeds, rows, inputs): c0 …, the representation r, the heads g1, g2, h1, h2.

    Normal with variance 1/inputs: a linear layer then keeps the size of what passes through it, at any depth."""
    hidden = max(chain.dim // 4, 1)                            # bottleneck d/4, SimSiam §3
    shapes = {f"c{k}": (chain.width, chain.width if k else size) for k in range(chain.depth)}
    shapes |= {"r": (chain.dim, chain.width), "g1": (chain.dim, chain.dim), "g2": (chain.dim, chain.dim),
               "h1": (hidden, chain.dim), "h2": (chain.dim, hidden)}

    def drawn(seed: int, k: int, shape: tuple) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + k)) / math.sqrt(shape[1])

    return {name: torch.stack([drawn(seed, k, shape) for seed in seeds]) for k, (name, shape) in enumerate(shapes.items())}


def chain_layers(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return what passes along the chain, each (seeds, channels, n): after every layer, and last the representation."""
    found = [x]
    for name in [name for name in weights if name[0] in "cr"]:
        found.append(weights[name] @ found[-1])
    return found[1:]


def _normal(x: Tensor, views: int) -> Tensor:
    """Return x (seeds, channels, views·batch) with mean 0 and variance 1 over each view: BN without affine, as in the
    code of Li et al."""
    x = x.unflatten(-1, (views, -1))
    return F.layer_norm(x, x.shape[-1:]).flatten(-2)


def _outputs(weights: dict[str, Tensor], x: Tensor, views: int = 2) -> Tensor:
    """Return z (seeds, dim, n) of inputs x: the chain, then the projector."""
    hidden = _normal(weights["g1"] @ chain_layers(weights, x)[-1], views).relu()
    return _normal(weights["g2"] @ hidden, views)


def _loss(weights: dict[str, Tensor], slow: dict[str, Tensor] | None, x: Tensor) -> Tensor:
    """Return SimSiam's symmetric loss (seeds,) of two views x (seeds, size, 2·batch); the target is z, or `slow`'s."""
    z = _outputs(weights, x)
    p = weights["h2"] @ _normal(weights["h1"] @ z, 2).relu()
    with torch.no_grad():
        target = (_outputs(slow, x) if slow else z).roll(x.shape[-1] // 2, -1)     # view 1 predicts view 2, and the reverse
    return -F.cosine_similarity(p, target, dim=1).mean(-1)


class ChainRun(NamedTuple):
    """What train_chain measured on vectors that are never trained on: at the start, then at the last step."""
    loss: Tensor      # (2, seeds), of the training batches: the first, and the mean of the last TAIL
    std: Tensor       # (2, seeds), std·√d of z
    auc: Tensor       # (2, seeds), of the representation
    content: Tensor   # (2, seeds, factors), held-out R² of each content coordinate from the representation
    layers: Tensor    # (2, depth, seeds), AUC of each layer of the chain

    def row(self, seed: int | None = None) -> dict[str, float]:
        """Return the last figures of one seed (its place), or the means of all; gain: in content, over the untrained chain."""
        content = self.content.mean(-1)
        found = {"loss": self.loss[1], "std": self.std[1], "AUC": self.auc[1], "content": content[1],
                 "gain": content[1] - content[0]}
        return {name: float(value.mean() if seed is None else value[seed]) for name, value in found.items()}


def _read(y: Tensor, truth: Tensor) -> Tensor:
    """Return held-out R² (seeds, factors) of truth (n, factors) from y (seeds, n, d): ridge on standardised features."""
    half = len(truth) // 2
    y = (y - y.mean(1, True)).double()
    y = y / y.std(1, keepdim=True).clamp_min(1e-12)
    a, b = y[:, :half], y[:, half:]
    ridge = 1e-3 * half * torch.eye(y.shape[-1], dtype=y.dtype)
    solved = torch.linalg.solve(a.mT @ a + ridge, a.mT @ truth[:half].expand(len(y), -1, -1))
    return 1 - (truth[half:] - b @ solved).square().mean(1) / truth[half:].var(0, correction=0)


def _look(weights: dict[str, Tensor], clean: Tensor, content: Tensor, losses: list) -> dict[str, Tensor]:
    """Return the figures of a ChainRun at one moment, on unseen vectors `clean` (size, n) and their content."""
    with torch.no_grad():
        x = clean.expand(len(losses[-1]), -1, -1)
        *layers, y = chain_layers(weights, x)
        return {"loss": torch.stack(losses[-TAIL:]).mean(0), "std": std_ratio(_outputs(weights, x, 1).mT), "auc": auc(spectrum(y.mT)),
                "content": _read(y.mT, content), "layers": torch.stack([auc(spectrum(h.mT)) for h in layers])}


def _views(world: VectorWorld, images: Tensor, streams: list, batch: int, amount: Tensor, mix: Tensor) -> Tensor:
    """Return two views of one batch for each seed, (seeds, size, 2·batch); `amount` (size,) is the std that they add."""
    picked = torch.stack([images[torch.randint(len(images), (batch,), generator=g)] for g in streams])
    noise = torch.stack([torch.randn(2, batch, world.size, generator=g) for g in streams])
    keep = (torch.arange(world.size) < world.content).float()
    return ((picked[:, None] * keep + noise * amount) @ mix).flatten(1, 2).mT


def train_chain(
    chain: Chain,
    seeds: int | Sequence[int] = 10,   # how many, or which; all are trained at once
    steps: int = 300,
    world: VectorWorld = GRADED,
    jitter: tuple[float, float] = JITTER,
    lr: float = 0.05,                  # of the encoder, to 0 by a half-cosine; of the predictor, constant (SimSiam Table 1c)
    batch: int = 64, momentum: float = 0.9, weight_decay: float = 5e-4,   # choice: chapter 00's
) -> ChainRun:
    """Train SimSiam, or its twin with a slow target, on a chain, and return what is measured before and after."""
    seeds = seed_list(seeds)
    weights, streams = first_chain(chain, world.size, seeds), [torch.Generator().manual_seed(10_000 + s) for s in seeds]
    slow = {name: w.clone() for name, w in weights.items()} if chain.ema else {}
    velocity, losses, taken = {name: torch.zeros_like(w) for name, w in weights.items()}, [], []
    images, mix = factors(world, world.images, world.seed + 1).float(), mixing(world).float()
    clean, content = unseen(world, 2048)
    amount = torch.cat([torch.linspace(*jitter, world.content), torch.ones(world.style)])
    for w in weights.values():
        w.requires_grad_()
    for step in range(positive("steps", steps) + 1):
        loss = _loss(weights, slow, _views(world, images, streams, batch, amount, mix))
        losses.append(loss.detach())
        if step in (0, steps):
            taken.append(_look(weights, clean, content, losses))
        now = lr_at(step, steps, lr)
        rate = {name: torch.full((1, 1, 1), lr if name.startswith("h") else now) for name in weights}
        descend(loss, weights, velocity, rate, momentum, weight_decay)
        follow(slow, weights, chain.ema)
    return ChainRun(**stacked(taken))
