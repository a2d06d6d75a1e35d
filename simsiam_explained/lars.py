"""LARS, the optimiser of BYOL and SimCLR: momentum SGD in which each weight tensor sets the size of its own step."""
from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["LARS"]


class LARS(torch.optim.Optimizer):
    """You et al. 2017, in the order of BYOL's code: decay → scale by trust·‖w‖/‖g‖ → momentum → step.

    A group with adapt=False (biases and BN: BYOL §3.3) is not scaled; give it weight_decay=0 too.
    choice: own code. timm's LARS divides by ‖g‖ + decay·‖w‖, not by the norm of their sum, and adapts only where
    there is decay; torch has none."""

    def __init__(self, params, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 1e-3):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay, trust=trust, adapt=True))

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        """Move every weight that has a gradient; return what `closure` returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for w in (w for w in group["params"] if w.grad is not None):
                g = w.grad.add(w, alpha=group["weight_decay"])
                if group["adapt"]:
                    ratio = group["trust"] * w.norm() / g.norm()
                    g.mul_(torch.where(torch.isfinite(ratio) & (ratio > 0), ratio, 1.0))   # a norm of 0: plain SGD
                if "momentum_buffer" not in self.state[w]:
                    self.state[w]["momentum_buffer"] = torch.zeros_like(w)
                w.sub_(self.state[w]["momentum_buffer"].mul_(group["momentum"]).add_(g), alpha=group["lr"])
        return loss
