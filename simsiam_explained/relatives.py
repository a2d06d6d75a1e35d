"""Eight relatives of SimSiam in the vector world of chapter 00, whole and without their parts, all trained at once."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from .codes import entropies, sinkhorn, swapped_loss, use_of
from .collapse import effective_rank, spectrum, std_ratio
from .contrast import info_nce, nt_xent
from .dynamics import moments, spectral_predictor
from .micro import Arm, Setting, VectorWorld, encode, first_weights, predictions, r2, stop_gradient
from .parts import NEGATIVES, PREDICTORS, Made, Seen, kind_of_death
from .switches import Switches
from .training import lr_at
from .world import (batches, descend, encode_unseen, first_runs, follow, look_steps, seed_list, side_by_side, stacked,
                    unseen)

__all__ = ["SETTING", "aligned", "apart_from_both", "apart_from_other", "apart_from_queue", "Film", "train_relatives"]

SETTING = Setting(batch=32, lr=0.3, points=4)   # choice: thrice chapter 00's rate, so that 300 steps are enough to die
SLOW, CENTRE = 0.9, 0.9                  # choice: a target with a memory of ten steps; DINO's centre momentum
QUEUE, PROTOTYPES = 256, 16              # choice: eight batches; fewer prototypes than images in a batch
TAU = 0.2                                # of the contrastive losses: MoCo v2 and v3
TEMPERATURE, SHARP = 0.1, 0.05           # of p and of the codes, SwAV's; DINO's τ_t is 0.04
CODE_SCALE = 0.3                         # choice: codes' cross-entropy beside a cosine, at one learning rate


# Losses (runs,) of unit rows p and targets t, each a pair of views (runs, B, d), all on SimSiam's scale, in which
# agreement alone is −cos: τ times NT-Xent, a quarter of BYOL's sum (but for a constant) and of MoCo v3's.

def aligned(p: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
    """Each view's prediction agrees with the other view's target: SimSiam eq. 1, BYOL §3.1."""
    return -((p[0] * t[1]).sum(-1) + (p[1] * t[0]).sum(-1)).mean(-1) / 2


def apart_from_both(p: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
    """And it differs from the targets of all other views of the batch: SimCLR eq. 1."""
    return TAU * nt_xent(torch.cat(list(p), -2), torch.cat(list(t), -2), TAU)


def apart_from_other(p: Sequence[Tensor], t: Sequence[Tensor]) -> Tensor:
    """And it differs from the other view's targets of other images: MoCo v3 Alg. 1."""
    return TAU * (info_nce(p[0], t[1], TAU) + info_nce(p[1], t[0], TAU)) / 2


def apart_from_queue(p: Sequence[Tensor], t: Sequence[Tensor], queue: Tensor) -> Tensor:
    """View 1's prediction agrees with view 2's target and differs from past ones in `queue` (runs, n, d): MoCo v2."""
    return TAU * info_nce(p[0], t[1], TAU, queue)


def _unit(v: Tensor) -> Tensor:
    """Return columns v (runs, dim, n) as rows of length 1."""
    return (v * v.square().sum(1, True).clamp_min(1e-16).rsqrt()).mT


def _switches(n: int, like: Tensor) -> Switches:
    """Return n times those of SimSiam's layers, which all methods have here."""
    return Switches.of([Arm()] * n, like)


LOSSES = {"none": aligned, "both views": apart_from_both, "other view": apart_from_other}


def _more(seed: int, s: Setting) -> dict[str, Tensor]:
    """Return those of one run's first weights, float64, that chapter 00 does not have: prototypes, a wide predictor."""
    generator = torch.Generator().manual_seed(30_000 + seed)
    prototypes = torch.randn(PROTOTYPES, s.dim, generator=generator, dtype=torch.float64)
    weights = {"codes": F.normalize(prototypes, dim=-1)}
    if s.dim < 8:     # choice: on the sphere a predictor as wide as the backbone; a quarter of 3 channels is none
        wide = first_weights(s.dim, s.width, s.dim, 50_000 + seed)
        weights |= {"h1": wide["f"], "h1_scale": wide["f_scale"], "h1_offset": wide["f_offset"], "h2": wide["g2"]}
    return weights


class _Runs:
    """The runs of one batch: their weights, where they differ, and what they remember."""

    def __init__(self, arms: Mapping[str, Made], seeds: Sequence[int], world: VectorWorld, s: Setting):
        self.made, self.setting = [made for made in arms.values() for _ in seeds], s
        more = side_by_side([_more(seed, s) for seed in seeds], len(arms))
        self.weights = first_runs(world, s, seeds, len(arms)) | more
        self.velocity = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.through, self.centred = self._column("stop_gradient", (1.0, 0.0)), self._column("centring", (0.0, 1.0))
        self.eps = self._column("sharpening", (TEMPERATURE, SHARP))
        self.slow_rows = self._rows(lambda made: made.ema)
        copied = [name for name in self.weights if name.startswith(("f", "g", "codes"))]     # no predictor
        self.slow = {name: self.weights[name].detach()[self.slow_rows] for name in copied}
        self.heads = {kind: self._rows(lambda made: made.predictor == kind) for kind in PREDICTORS[1:]}
        losses = {name: self._rows(lambda made: made.loss == name) for name in (*NEGATIVES, "shared codes", "codes")}
        self.losses = {name: rows for name, rows in losses.items() if len(rows)}
        self.rate = {name: torch.full((len(self.made), 1, 1), s.lr) for name in self.weights}
        for name in ("g2_scale", "g2_offset"):
            self.rate[name] = s.lr * self._column("affine", (0.0, 1.0))
        starts = [torch.randn(QUEUE, s.dim, generator=torch.Generator().manual_seed(40_000 + seed)) for seed in seeds]
        waiting = len(losses["queue"]) // len(seeds)
        self.queue = F.normalize(torch.stack(starts).repeat(waiting, 1, 1), dim=-1)
        self.centre = torch.zeros(len(self.made), 1, PROTOTYPES)
        self.moments = torch.zeros(len(self.heads["computed"]), 2, s.dim, s.dim)
        self.codes = {}

    def _column(self, field: str, values: tuple[float, float]) -> Tensor:
        """Return values[made.field] of all runs as (runs, 1, 1)."""
        return torch.tensor([values[getattr(made, field)] for made in self.made]).view(-1, 1, 1)

    def _rows(self, which) -> Tensor:
        """Return the numbers of the runs for whose Made `which` holds."""
        return torch.tensor([i for i, made in enumerate(self.made) if which(made)], dtype=torch.long)

    def sides(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return predictions p and targets t (runs, 2·B, dim), of unit length, and the target's prototypes."""
        z = encode(self.weights, x, _switches(len(x), x))[1]
        t, prototypes = stop_gradient(z, self.through), stop_gradient(self.weights["codes"], self.through)
        with torch.no_grad():
            slow = encode(self.slow, x[self.slow_rows], _switches(len(self.slow_rows), x))[1]
        t = t.index_copy(0, self.slow_rows, slow)
        prototypes = prototypes.index_copy(0, self.slow_rows, self.slow["codes"])
        mlp, computed = self.heads.values()
        h = {name: w[mlp] for name, w in self.weights.items() if name.startswith("h")}
        p = z.index_copy(0, mlp, predictions(h, z[mlp], _switches(len(mlp), x))) if len(mlp) else z
        if len(computed):
            with torch.no_grad():                               # ρ = 0.3, ε = 0.1: Tian et al. 2021, Table 6
                self.moments.lerp_(moments(z[computed].mT.chunk(2, -2), t[computed].mT.chunk(2, -2)), 0.7)
                W = spectral_predictor(self.moments[:, 0], 0.1)
            p = p.index_copy(0, computed, torch.bmm(W, z[computed]))
        return _unit(p), _unit(t), prototypes

    def loss(self, x: Tensor) -> Tensor:
        """Return the loss (runs,) of a batch of views x (runs, size, 2·B); queue, centre and codes take it in."""
        p, t, prototypes = self.sides(x)
        loss = p.new_zeros(len(p))
        for name, rows in self.losses.items():
            pair = [v[rows].chunk(2, -2) for v in (p, t)]
            if name in LOSSES:
                loss = loss.index_copy(0, rows, LOSSES[name](*pair))
            elif name == "queue":
                loss = loss.index_copy(0, rows, apart_from_queue(*pair, self.queue))
                self.queue = torch.cat([pair[1][1].detach(), self.queue], 1)[:, :QUEUE]
            else:
                loss = loss.index_copy(0, rows, self._coded(name, rows, pair, prototypes))
        return loss

    def _coded(self, name: str, rows: Tensor, pair: list, prototypes: Tensor) -> Tensor:
        """Return the loss of runs whose views predict codes, those of chapter 15's module; keep the batch's codes."""
        scores = [v @ self.weights["codes"][rows].mT for v in pair[0]]
        raw = [v @ prototypes[rows].mT for v in pair[1]]
        rounds = 3 if name == "shared codes" else 0
        q = [sinkhorn((v - self.centred[rows] * self.centre[rows]) / self.eps[rows], 1.0, rounds) for v in raw]
        self.centre[rows] = self.centre[rows].lerp(torch.cat(raw, -2).detach().mean(-2, keepdim=True), 1 - CENTRE)
        self.codes[name] = torch.stack(entropies(q[0], (scores[1] / TEMPERATURE).log_softmax(-1))).detach()
        return CODE_SCALE * swapped_loss(q, scores, TEMPERATURE)

    def step(self, loss: Tensor, share: float) -> None:
        """Move all weights once: the predictor at the whole rate, the rest at a `share` of it; the slow ones follow."""
        rate = {name: r * (1.0 if name.startswith("h") else share) for name, r in self.rate.items()}
        descend(loss, self.weights, self.velocity, rate, self.setting.momentum, self.setting.weight_decay)
        with torch.no_grad():
            self.weights["codes"].copy_(F.normalize(self.weights["codes"], dim=-1))
        follow(self.slow, self.weights, SLOW, self.slow_rows)

    def look(self, clean: Tensor, content: Tensor) -> dict[str, Tensor]:
        """Return what is measured on unseen vectors `clean` (size, n), whose content is `content` (n, k)."""
        y, z = encode_unseen(self.weights, clean, _switches(len(self.made), clean))
        told, own = torch.full((2, 2, len(z)), math.nan)
        for name in self.codes:
            rows = self.losses[name]
            p = (F.normalize(z[rows], dim=-1) @ self.weights["codes"].detach()[rows].mT / TEMPERATURE).softmax(-1)
            told[:, rows] = torch.stack(use_of(p))[[0, 2]]
            own[:, rows] = self.codes[name][1:]
        return {"std": std_ratio(z), "rank": effective_rank(spectrum(z)), "content": r2(y, content), "unsure": told[0],
                "told": told[1], "own": own[0], "kl": own[1], "z": z}


class Film(NamedTuple):
    """What train_relatives measured, each (time, arm, seed), at `steps`, on vectors that no run was trained on."""
    arms: dict[str, Made]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    loss: Tensor      # of the training batch; on SimSiam's scale
    std: Tensor       # std·√d of z
    rank: Tensor      # effective rank of z, centred
    content: Tensor   # held-out R² of the content from the backbone's features
    unsure: Tensor    # see parts.Seen
    told: Tensor
    own: Tensor       # entropy of the training batch's codes, in nats
    kl: Tensor        # and their KL divergence from the predictions: with `own` the diagnostic of DINO
    z: Tensor         # (time, arm, seed, n, dim)

    def seen(self, arm: str, seed: int, at: int = -1) -> Seen:
        """Return what one run showed at `steps[at]`."""
        i, j = list(self.arms).index(arm), self.seeds.index(seed)
        return Seen(*(float(getattr(self, name)[at, i, j]) for name in Seen._fields))

    def fates(self, where: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], list[str]]:
        """Return {(method, part): [how each seed ended]} of where {(method, part): arm}; the method is healthy."""
        return {(method, part): [kind_of_death(self.seen(arm, seed), self.seen(method, seed)) for seed in self.seeds]
                for (method, part), arm in where.items()}

    def table(self) -> pd.DataFrame:
        """Return a row for each arm: the means over the seeds, at the end."""
        names = [name for name in self._fields[3:-1]]
        return pd.DataFrame({name: getattr(self, name)[-1].mean(-1).numpy() for name in names}, index=list(self.arms))


def train_relatives(
    arms: Mapping[str, Made],
    seeds: int | Sequence[int] = 10,     # how many, or which; arms share a seed's first weights and its data
    steps: int = 300,
    world: VectorWorld = VectorWorld(),
    setting: Setting = SETTING,
) -> Film:
    """Train every arm with every seed, all at once, and return what was measured."""
    seeds, at = seed_list(seeds), look_steps(steps, setting.points)
    runs, taken, (clean, content) = _Runs(arms, seeds, world, setting), [], unseen(world)
    for step, x in zip(range(steps + 1), batches(world, seeds, setting.batch, len(arms))):
        loss = runs.loss(x)
        if step in at:
            taken.append({"loss": loss.detach(), **runs.look(clean, content)})
        if step < steps:
            runs.step(loss, lr_at(step, steps))
    split = {name: of.unflatten(1, (len(arms), len(seeds))) for name, of in stacked(taken).items()}
    return Film(dict(arms), tuple(seeds), at, **split)
