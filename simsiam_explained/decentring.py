"""De-centring: vectors as centre and residual, and siamese nets pulled by parts of their gradient (Zhang et al. 2022)."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from .checks import one_of
from .predictor import make_predictor
from .simsiam import Output, Siamese, check_views

__all__ = ["Parts", "centre_and_residual", "extra_centre", "Sides", "PULLS", "pull_loss", "Pulled"]


class Parts(NamedTuple):
    """v = o + r: the centre, and what is left of each vector."""
    o: Tensor
    r: Tensor


def centre_and_residual(v: Tensor) -> Parts:
    """Return the mean (…, 1, d) of vectors (…, N, d), and the vectors without it (…, N, d)."""
    o = v.mean(-2, keepdim=True)
    return Parts(o, v - o)


def extra_centre(z: Tensor, p: Tensor) -> Tensor:
    """Return η_p (…) for which o_e − η_p·o_p is at a right angle to o_p, of z and p (…, N, d); negative: away from it.

    o_e is the centre of the extra gradient Z − P of unit vectors; the paper finds about −0.5 (Zhang et al. 2022)."""
    o_z, o_p = (centre_and_residual(F.normalize(v, dim=-1)).o for v in (z, p))
    return (o_z * o_p).sum((-2, -1)) / o_p.square().sum((-2, -1)) - 1


class Sides(NamedTuple):
    """Unit vectors (…, N, d) of views a and b: outputs z, predictions p = h(z), the trained inverse's q = h⁻¹(p)."""
    z_b: Tensor
    p_a: Tensor
    p_b: Tensor
    q_b: Tensor | None


PULLS = {  # what p_a is moved towards, a constant (Zhang et al. 2022); G_e = z_b − p_b is the extra gradient
    "z_b": lambda v: v.z_b,                                                      # SimSiam: p_b + G_e
    "p_b": lambda v: v.p_b,                                                      # h on both sides: without G_e
    "inverse": lambda v: v.q_b,                                                  # of p_b, on the target's side
    "p_b + o_e": lambda v: v.p_b + centre_and_residual(v.z_b - v.p_b).o,
    "p_b + r_e": lambda v: v.p_b + centre_and_residual(v.z_b - v.p_b).r,
    "its centre": lambda v: centre_and_residual(v.p_a).o,
    "its residual": lambda v: centre_and_residual(v.p_a).r,
}


def pull_loss(pull: str, target: Sequence[Tensor], p: Sequence[Tensor], q: Sequence[Tensor] | None = None) -> Tensor:
    """Return −p_a · sg(what it is pulled to) (…), mean over vectors (…, N, d) and over both ways of two views.

    target: z, of the online or of a slow encoder. q = h⁻¹(sg p), where it is used, learns to give z, by a term that
    adds its gradient and nothing to the value. choice: what p is pulled to keeps its length, as in the paper."""
    inverse = pull == "inverse"
    t, p, q = ([F.normalize(v, dim=-1) for v in each] for each in (target, p, q if inverse else ()))
    sides = [Sides(t[j], p[i], p[j], q[j] if inverse else None) for i, j in ((0, 1), (1, 0))]
    loss = -sum((v.p_a * PULLS[pull](v).detach()).sum(-1).mean(-1) for v in sides) / 2
    own = -sum((qi * ti.detach()).sum(-1).mean(-1) for qi, ti in zip(q, t))
    return loss + own - own.detach() if inverse else loss


class Pulled(Siamese):
    """A siamese net whose predictions are pulled by one of PULLS, on images. Besides: the arguments of Siamese."""

    def __init__(self, backbone: nn.Module, *, pull: str = "z_b", bn: str = "default",
                 predictor_hidden: int | None = None, seed: int = 0, **parts):
        super().__init__(backbone, bn=bn, predictor_hidden=predictor_hidden, seed=seed, **parts)
        self.pull = one_of("pull", pull, PULLS)
        d = [m for m in self.projector if isinstance(m, nn.Linear)][-1].out_features
        self.inverse = make_predictor("mlp", d, predictor_hidden, bn, seed=seed + 2) if pull == "inverse" else None

    def param_groups(self) -> list[dict]:
        """Return Siamese's groups; the inverse, which is built like h, learns as h does."""
        own = [] if self.inverse is None else list(self.inverse.parameters())
        return super().param_groups() + [{"params": own, "constant_lr": self.predictor_lr == "constant"}] * bool(own)

    def forward(self, *views: Tensor) -> Output:
        """Return the Output for 2 views, each (B, C, H, W) float."""
        check_views(views, self.views_per_image)
        z = [self.projector(self.backbone(x)) for x in views]
        p = [self.predictor(zi) for zi in z]
        q = None if self.inverse is None else [self.inverse(pi.detach()) for pi in p]
        return Output(pull_loss(self.pull, z, p, q), z[0], z[1], p[0], p[1])
