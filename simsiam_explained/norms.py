"""What can stand where batch normalisation stood: norms of one image (Richemond et al. 2020), or of part of a batch."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from .checks import one_of, positive

__all__ = ["NORMS", "Affine", "Standardised", "swap_norm", "SplitBN", "split_bn"]

NORMS = ("batch", "group", "none", "matched")


class Affine(nn.Module):
    """scale·x + offset for each channel of (B, C, …): what is left of BN without its statistics.

    matched: the first batch in train mode sets both so that its output has mean 0 and variance 1, as BN's would."""

    def __init__(self, channels: int, matched: bool = False):
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.matched = matched
        self.register_buffer("waiting", torch.tensor(matched))     # a buffer: a resumed run must not match again

    def forward(self, x: Tensor) -> Tensor:
        if self.matched and self.training and self.waiting:
            with torch.no_grad():
                variance, mean = torch.var_mean(x.float().transpose(0, 1).flatten(1), 1, correction=0)
                self.scale.copy_((variance + 1e-5).rsqrt())        # 1e-5: BN's own eps
                self.offset.copy_(-mean * self.scale)
                self.waiting.fill_(False)
        rest = (1,) * (x.ndim - 2)
        return x * self.scale.view(-1, *rest) + self.offset.view(-1, *rest)


class Standardised(nn.Module):
    """Weight standardisation (Qiao et al. 2019): each unit's weights get mean 0 and variance 1 / fan-in."""

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.flatten(1)     # choice: 1 / fan-in keeps the size of a signal; a norm behind it does not care
        variance, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
        return ((rows - mean) * (rows.shape[1] * variance + 1e-8).rsqrt()).view_as(weight)


def _instead(bn: _BatchNorm, kind: str, groups: int) -> nn.Module:
    n = bn.num_features
    if kind == "group":   # choice: 8 channels a group or more; a group of one number would always come out as 0
        fit = max(g for g in range(1, groups + 1) if n % g == 0 and (g == 1 or n // g >= 8))
        return nn.GroupNorm(fit, n, affine=bn.affine)
    return Affine(n, matched=kind == "matched")


def _replace(net: nn.Module, make: Callable[[_BatchNorm], nn.Module]) -> nn.Module:
    """Put make(bn) in place of every BN inside `net`, and return it."""
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                module.add_module(name, make(child))
    return net


def swap_norm(
    net: nn.Module,     # changed in place
    kind: str,          # batch: as it is; group: group norm and weight standardisation; none or matched: Affine
    groups: int = 16,   # at most; choice: the paper's number is not known to us
) -> nn.Module:
    """Replace every BN inside `net`, and return it. Nothing in it then depends on the other images of a batch."""
    if one_of("norm", kind, NORMS) == "batch":
        return net
    _replace(net, lambda bn: _instead(bn, kind, positive("groups", groups)))
    if kind == "group":
        for module in [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]:
            parametrize.register_parametrization(module, "weight", Standardised())
    return net


class SplitBN(nn.Module):
    """A BN layer whose statistics are those of each of `groups` equal parts of a batch, as if each had its own GPU.

    choice: the running statistics take the parts one after the other."""

    def __init__(self, bn: _BatchNorm, groups: int):
        super().__init__()
        self.bn, self.groups = bn, groups

    def forward(self, x: Tensor) -> Tensor:
        if not self.bn.training:     # its own mode: where only BN is settled, the rest is in eval mode
            return self.bn(x)
        if len(x) % self.groups:
            raise ValueError(f"bn_groups: got {self.groups}, which does not divide a batch of {len(x)}; "
                             f"take a multiple of {self.groups}, or other bn_groups.")
        return torch.cat([self.bn(part) for part in x.chunk(self.groups)])


def split_bn(net: nn.Module, groups: int) -> nn.Module:
    """Put a SplitBN in place of every BN inside `net`, and return it."""
    return _replace(net, lambda bn: SplitBN(bn, groups))
