"""Pupils and their targets in the vector world of chapter 00: what BYOL may be without, all runs trained at once."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from .byol import byol_loss, optimal_predictor
from .checks import one_of, positive
from .collapse import effective_rank, spectrum, std_ratio
from .micro import Arm, Setting, VectorWorld, encode, predictions, r2
from .switches import Switches
from .training import lr_at
from .world import batches, descend, encode_unseen, first_runs, follow, seed_list, unseen, unseen_pair

__all__ = ["TARGETS", "HEADS", "Pupil", "train_pupils"]

TARGETS, HEADS = ("ema", "random", "online"), ("mlp", "none", "linear", "optimal")


@dataclass(frozen=True)
class Pupil:
    """One way to learn from a target. The defaults are BYOL's: its loss, and heads without BN on the output.

    choice: a constant τ; the heads keep the bias of their last layer, which most ports of BYOL have."""
    target: str = "ema"              # of TARGETS: ema | random (another net, which stays) | online (none)
    tau: float = 0.99                # of "ema": 1 stays, 0 is a copy at each step
    same_view: bool = False          # the target is shown the view that the pupil sees, not the other one
    predictor: str = "mlp"           # of HEADS; optimal: solved on each batch
    bn: str = "hidden"               # BN of the heads; "default": on the projector's output too, as SimSiam's
    beta: float = 0.0                # these three as in byol_loss
    temperature: float = 0.1
    normalise: bool = True
    weight_decay: float = 5e-4
    predictor_factor: float = 1.0    # of the learning rate, as in BYOL
    projector_factor: float = 1.0

    def __post_init__(self):
        one_of("target", self.target, TARGETS)
        one_of("predictor", self.predictor, HEADS)


def _kind(pupil: Pupil) -> str:
    """Return the trained part of its predictor, as the vector world knows it."""
    return "none" if pupil.predictor == "optimal" else pupil.predictor


class _Runs:
    """The runs of one batch: their weights, their targets' and where they differ."""

    def __init__(self, pupils: Sequence[Pupil], seeds: Sequence[int], world: VectorWorld, s: Setting):
        self.runs, self.setting = [pupil for pupil in pupils for _ in seeds], s
        self.weights = first_runs(world, s, seeds, len(pupils))
        self.velocity = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.switches = Switches.of([Arm(predictor=_kind(run), bn=run.bn) for run in self.runs], self.weights["f"])
        self.decay = self._column(lambda run: run.weight_decay).flatten()
        self.same_view = self._column(lambda run: run.same_view).bool()
        self.normalise = self._column(lambda run: run.normalise).bool()
        self.online = self._column(lambda run: run.target == "online").bool()
        self.tau = self._column(lambda run: {"random": 1.0, "online": 0.0}.get(run.target, run.tau))
        other = first_runs(world, s, [seed + 500 for seed in seeds], len(pupils))
        random = self._column(lambda run: run.target == "random").bool()
        self.slow = {name: torch.where(random, other[name], w).detach() for name, w in self.weights.items()
                     if name[0] in "fg"}     # a target has no predictor
        rates = {"f": torch.ones(1, 1, 1), "g": self._column(lambda run: run.projector_factor),
                 "h": self._column(lambda run: run.predictor_factor)}
        self.rate = {name: s.lr * rates[name[0]] for name in self.weights}
        self.optimal = torch.tensor([i for i, run in enumerate(self.runs) if run.predictor == "optimal"], dtype=torch.long)
        self.losses = {}
        for i, run in enumerate(self.runs):
            self.losses.setdefault((run.beta, run.temperature, run.normalise), []).append(i)

    def _column(self, of: Callable[[Pupil], float]) -> Tensor:
        """Return a number of each run as (runs, 1, 1)."""
        return torch.tensor([float(of(run)) for run in self.runs]).view(-1, 1, 1)

    def sides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets (runs, 2·B, dim) of x (runs, size, 2·B); view 1 predicts view 2's target."""
        half, z = x.shape[-1] // 2, encode(self.weights, x, self.switches)[1]
        with torch.no_grad():
            slow = encode(self.slow, torch.where(self.same_view, x.roll(half, -1), x), self.switches)[1]
        p, t = predictions(self.weights, z, self.switches).mT, torch.where(self.online, z, slow).mT
        if len(self.optimal):
            with torch.no_grad():
                goal = torch.where(self.normalise, F.normalize(t, dim=-1), t)[self.optimal].roll(half, -2)
                w = optimal_predictor(z[self.optimal].mT, goal).float()
            p = p.index_copy(0, self.optimal, z[self.optimal].mT @ w)
        return p, t

    def loss(self, x: Tensor) -> Tensor:
        """Return byol_loss of each run (runs,), weight decay included."""
        p, t = self.sides(x)
        loss = self.decay / 2 * sum(w.square().sum((1, 2)) for w in self.weights.values())
        for (beta, temperature, normalise), at in self.losses.items():
            each = torch.vmap(partial(byol_loss, beta=beta, temperature=temperature, normalise=normalise))
            loss = loss.index_add(0, torch.tensor(at), each(p[at], t[at]))
        return loss

    def step(self, x: Tensor, share: float) -> None:
        """Move all weights once, at `share` of their rates, then let the targets follow."""
        rate = {name: share * rate for name, rate in self.rate.items()}
        descend(self.loss(x), self.weights, self.velocity, rate, self.setting.momentum, 0.0)
        follow(self.slow, self.weights, self.tau)


def _cosines(views: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cosine (runs,) of two views of an image, and of views of two images; views (runs, 2·n, dim)."""
    a, b = F.normalize(views, dim=-1).chunk(2, -2)
    own, among = (a * b).sum(-1), (a.sum(-2) * b.sum(-2)).sum(-1)
    return own.mean(-1), (among - own.sum(-1)) / (a.shape[-2] * (a.shape[-2] - 1))


def _look(made: _Runs, world: VectorWorld) -> dict[str, Tensor]:
    """Return what unseen vectors show, each (runs,)."""
    clean, content = unseen(world)
    (y, z), (taught, _) = (encode_unseen(weights, clean, made.switches) for weights in (made.weights, made.slow))
    pair = unseen_pair(world, 512).expand(len(made.runs), -1, -1)
    with torch.no_grad():
        cosines = _cosines(encode(made.weights, pair, made.switches)[1].mT)
    return {"content": r2(y, content), "teacher": r2(taught, content), "std": std_ratio(z),
            "rank": effective_rank(spectrum(z)), "two views": cosines[0], "two images": cosines[1],
            "norm": z.norm(dim=-1).mean(-1)}


def train_pupils(
    pupils: Mapping[str, Pupil],
    seeds: int | Sequence[int] = 5,         # how many, or which; pupils share a seed's first weights and its data
    steps: int = 400,
    world: VectorWorld = VectorWorld(),
    setting: Setting = Setting(),           # its weight decay is each pupil's own
) -> pd.DataFrame:
    """Train every pupil with every seed at once by the recipe of chapter 00. Return a row for each pupil and seed:
    R² of the content in the features of the pupil and of its teacher (the target); std·√d, rank and norm of the
    outputs z, and their mean cosine between two views of an image and between two images."""
    seeds = seed_list(seeds)
    kinds = sorted(dict.fromkeys(pupils.values()), key=_kind)    # equal ones once; each predictor is one product
    made = _Runs(kinds, seeds, world, setting)
    for step, x in zip(range(positive("steps", steps)), batches(world, seeds, setting.batch, len(kinds))):
        made.step(x, lr_at(step, steps))
    at = [kinds.index(pupil) * len(seeds) + i for pupil in pupils.values() for i in range(len(seeds))]
    rows = pd.DataFrame([(name, seed) for name in pupils for seed in seeds], columns=["pupil", "seed"])
    return rows.assign(**{name: value[at].numpy() for name, value in _look(made, world).items()})
