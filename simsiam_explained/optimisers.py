"""The optimisers of the papers by name. In LARS and LAMB, which are ours, each tensor sets the size of its own step."""
from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["LARS", "LAMB", "OPTIMISERS", "SPARING"]


def _scale(step: torch.Tensor, w: torch.Tensor, trust: float) -> torch.Tensor:
    """Return trust·‖w‖/‖step‖; 1 where a norm is 0."""
    ratio = trust * w.norm() / step.norm()
    return torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, 1.0)


class LARS(torch.optim.Optimizer):
    """You et al. 2017, in the order of BYOL's code: decay → scale by trust·‖w‖/‖g‖ → momentum → step.

    A group with adapt=False (biases and BN: BYOL §3.3) is not scaled; give it weight_decay=0 too. clip=True is LARC: no
    step is longer than with the rate alone, so that the rate is a ceiling (solo-learn's `clip_lr`, with trust=0.02).
    choice: own code. timm's LARS divides by ‖g‖ + decay·‖w‖, not by the norm of their sum, and adapts only where
    there is decay; torch has none."""

    def __init__(self, params, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3,
                 clip: bool = False):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust, clip=clip, adapt=True))

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Move every weight that has a gradient; return what `closure` returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for w in (w for w in group["params"] if w.grad is not None):
                g = w.grad.add(w, alpha=group["weight_decay"])
                if group["adapt"]:
                    scale = _scale(g, w, group["trust"])
                    g.mul_((scale / group["lr"]).clamp_max(1.0) if group["clip"] and group["lr"] else scale)
                if "momentum_buffer" not in self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
                w.sub_(self.state[w]["momentum_buffer"].mul_(group["momentum"]).add_(g), alpha=group["lr"])
        return loss


class LAMB(torch.optim.Optimizer):
    """You et al. 2020, Alg. 2: Adam's step with its bias correction, plus decay·w, scaled to lr·‖w‖ tensor by tensor.

    A group with adapt=False is not scaled, which makes it AdamW; give it weight_decay=0 too, as the authors' code for
    BERT does for norms and biases. choice: own code, φ the identity; torch has none, and timm's clips the gradient of
    the whole network first."""

    def __init__(self, params, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
                 weight_decay: float = 0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, adapt=True))

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Move every weight that has a gradient; return what `closure` returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            (b1, b2), eps = group["betas"], group["eps"]
            for w in (w for w in group["params"] if w.grad is not None):
                if not (state := self.state[w]):
                    state |= {"t": 0, "m": torch.zeros_like(w), "v": torch.zeros_like(w)}
                state["t"] += 1
                m = state["m"].lerp_(w.grad, 1 - b1) / (1 - b1 ** state["t"])
                v = state["v"].mul_(b2).addcmul_(w.grad, w.grad, value=1 - b2) / (1 - b2 ** state["t"])
                u = m.div_(v.sqrt_().add_(eps)).add_(w, alpha=group["weight_decay"])
                if group["adapt"]:
                    u.mul_(_scale(u, w, 1.0))
                w.sub_(u, alpha=group["lr"])
        return loss


OPTIMISERS = {  # {name: (groups, lr, momentum) → optimiser}; momentum is β₁ of the last two, β₂ their default of 0.999
    "sgd": torch.optim.SGD,
    "lars": LARS,
    "larc": lambda groups, lr, momentum: LARS(groups, lr=lr, momentum=momentum, trust=0.02, clip=True),   # solo-learn's
    "adamw": lambda groups, lr, momentum: torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999)),
    "lamb": lambda groups, lr, momentum: LAMB(groups, lr=lr, betas=(momentum, 0.999)),
}
SPARING = ("lars", "larc", "lamb")      # these neither decay nor scale vectors (biases, norms): BYOL §3.3, LAMB's code for BERT
