"""The vector world of chapter 00 for what its arms do not know: other pulls, computed predictors, a slow target."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import one_of
from .collapse import centre_residual, effective_rank, spectrum, std_ratio
from .decentring import PULLS, extra_centre, pull_loss
from .dynamics import RULES, moments
from .micro import Arm, Setting, VectorWorld, encode, predictions, r2, sgd_step
from .switches import Switches
from .training import lr_at
from .world import batches, encode_unseen, first_runs, follow, look_steps, seed_list, stacked, unseen

__all__ = ["HEADS", "VectorArm", "VectorRun", "train_vectors"]

HEADS = ("mlp", "none", "one vector", "linear", "symmetric", *RULES)
TRAINED = {  # the weights of each, by the beginnings of their names
    "mlp": ("h1", "h2"), "one vector": ("shift",), "linear": ("hl",), "symmetric": ("hl",)}
EPS, RHO = 0.1, 0.3     # Tian et al. 2021, Table 6


@dataclass(frozen=True)
class VectorArm:
    """One way to train in the vector world of chapter 00; the defaults are SimSiam's."""
    predictor: str = "mlp"         # of HEADS: none, or trained, or set by a rule
    pull: str = "z_b"              # of PULLS
    ema: float = 0.0               # of the target's weights; 0: the online net itself
    predictor_lr: float = 1.0      # α_p
    decay: tuple = (5e-4, 5e-4)    # of the encoder, of the predictor
    offset: float = 0.0            # of every output channel at the start, in units of its std: a centre to begin with
    centred: bool = False          # F without the mean of the outputs

    def __post_init__(self):
        one_of("pull", self.pull, PULLS)
        one_of("predictor", self.predictor, HEADS)


def _predictions(arm: VectorArm, heads: dict, z: Tensor, memory: Tensor, switches: Switches) -> Tensor:
    """Return p (runs, dim, n) of outputs z; a rule sets W_p from the averages in `memory` (runs, 2, dim, dim)."""
    if arm.predictor == "mlp":
        return predictions(heads, z, switches)
    if arm.predictor in ("none", "one vector"):
        return z if arm.predictor == "none" else z + heads["shift"]
    W = RULES[arm.predictor](*memory.unbind(-3), EPS) if arm.predictor in RULES else heads["hl"]
    return torch.bmm(0.5 * (W + W.mT) if arm.predictor == "symmetric" else W, z)


def _first(arm: VectorArm, seeds: Sequence[int], world: VectorWorld, s: Setting) -> tuple[dict, dict, dict]:
    """Return the stacked first weights of one arm's runs, float32: encoder, the heads that it trains, inverse."""
    def part(weights: dict, beginnings: tuple) -> dict[str, Tensor]:
        return {name: w for name, w in weights.items() if name.startswith(beginnings)}
    weights = first_runs(world, s, seeds) | {"shift": torch.zeros(len(seeds), s.dim, 1, requires_grad=True)}
    with torch.no_grad():
        weights["g2_offset"] += arm.offset
    other = first_runs(world, s, [seed + 1000 for seed in seeds]) if arm.pull == "inverse" else {}
    return part(weights, ("f", "g")), part(weights, TRAINED.get(arm.predictor, ())), part(other, TRAINED["mlp"])


class VectorRun(NamedTuple):
    """What train_vectors measured, each (time, seed), at `steps`."""
    steps: tuple[int, ...]
    m_o: Tensor       # share of the centre of the outputs z of unseen vectors: 1 is collapse
    m_r: Tensor       # and of the residual
    m_p: Tensor       # share of the centre of the predictions p
    std: Tensor       # std·√d of z
    rank: Tensor      # effective rank of z, centred
    content: Tensor   # held-out R² of the content from the backbone's features
    eta: Tensor       # η_p of the training batch


def _look(arm: VectorArm, weights: tuple, memory: Tensor, clean: Tensor, content: Tensor, switches: Switches) -> dict:
    """Return what is measured on unseen vectors `clean` (size, n), whose content is `content` (n, k)."""
    y, z = encode_unseen(weights[0], clean, switches)
    with torch.no_grad():
        p = _predictions(arm, weights[1], z.mT, memory, switches).mT
    m_o, m_r = centre_residual(z)
    return {"m_o": m_o, "m_r": m_r, "m_p": centre_residual(p).m_o, "std": std_ratio(z),
            "rank": effective_rank(spectrum(z)), "content": r2(y, content)}


def _loss(arm: VectorArm, weights: tuple, slow: dict, memory: Tensor, x: Tensor,
          switches: Switches) -> tuple[Tensor, Tensor]:
    """Return the loss and η_p (runs,) of a batch x (runs, size, 2·batch); `memory` takes its moments first."""
    encoder, heads, inverse = weights
    z = encode(encoder, x, switches)[1]
    with torch.no_grad():
        t = encode(slow, x, switches)[1] if arm.ema else z
        if arm.predictor in RULES:
            memory.lerp_(moments(z.mT.chunk(2, -2), t.mT.chunk(2, -2), arm.centred), 1 - RHO)
    p = _predictions(arm, heads, z, memory, switches)
    q = predictions(inverse, p.detach(), switches) if inverse else p
    t, p, q = ([v.mT for v in each.chunk(2, -1)] for each in (t, p, q))
    return pull_loss(arm.pull, t, p, q), extra_centre(t[0].detach(), p[0].detach())


def _step(arm: VectorArm, weights: tuple, slow: dict, velocity: tuple, loss: Tensor, share: float, s: Setting) -> None:
    """Move the encoder (rate lr·share), the heads (rate lr·α_p) and the slow encoder once."""
    every = [w for part in weights for w in part.values()]
    gradients = iter(torch.autograd.grad(loss.sum(), every, materialize_grads=True))
    for part, speed, rate in zip(weights, velocity, (share, arm.predictor_lr, arm.predictor_lr)):
        rates = dict.fromkeys(part, torch.full((1, 1, 1), s.lr * rate))
        sgd_step(part, speed, dict(zip(part, gradients)), rates, s.momentum, arm.decay[part is not weights[0]])
    follow(slow, weights[0], arm.ema)


def train_vectors(
    arm: VectorArm,
    seeds: int | Sequence[int] = 5,         # how many, or which; arms share a seed's first weights and its data
    steps: int = 400,
    world: VectorWorld = VectorWorld(),
    setting: Setting = Setting(),
) -> VectorRun:
    """Train one arm with every seed at once by the recipe of chapter 00, and return what was measured."""
    seeds, at = seed_list(seeds), look_steps(steps, setting.points)
    weights = _first(arm, seeds, world, setting)
    velocity = tuple({name: torch.zeros_like(w) for name, w in part.items()} for part in weights)
    slow = {name: w.detach().clone() for name, w in weights[0].items()} if arm.ema else {}
    memory, taken = torch.zeros(len(seeds), 2, setting.dim, setting.dim), []
    switches, (clean, content) = Switches.of([Arm()] * len(seeds), memory), unseen(world)
    for step, x in zip(range(steps + 1), batches(world, seeds, setting.batch)):
        loss, eta = _loss(arm, weights, slow, memory, x, switches)
        if step in at:
            taken.append(_look(arm, weights, memory, clean, content, switches) | {"eta": eta})
        _step(arm, weights, slow, velocity, loss, lr_at(step, steps), setting)
    return VectorRun(at, **stacked(taken))
