"""A net, inputs and a measurement that several tests share."""
import torch
from torch import nn


class Pixels(nn.Module):
    """A backbone of one linear layer: small enough for exact gradients."""

    def __init__(self, d=12, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Linear(3 * 4 * 4, d)

    def forward(self, x):
        return self.layer(x.flatten(1))


def two_views(device="cpu", batch=16, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, 4, 4, generator=g, dtype=torch.float64).to(device) for _ in range(2)]


def rows(n=6, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2)]


def gradients(method, xs):
    """Return {name: gradient} of the loss, of those weights that have one."""
    method.zero_grad()
    method(*xs).loss.backward()
    return {name: w.grad.clone() for name, w in method.named_parameters() if w.grad is not None}
