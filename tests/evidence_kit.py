"""What the tests of the evidence machine share: the smallest recipe that is whole, and records without a run."""
import torch

from simsiam_explained import evidence, recipe
from simsiam_explained.origin import machine
from simsiam_explained.recipe import SCHEMA, base
from simsiam_explained.records import Record

TINY = base("live").but(steps=4, n=96, batch=16, size=16, width=4, dim=16, predictor_hidden=8)     # a third of a second


def figures(**changes):
    """A row of figures as a run of a healthy arm leaves it."""
    return {"loss": -0.8, "std": 0.9, "AUC": 0.8, "rank": 20.0, "kNN": 0.6, "linear": 0.7, "layers": {}} | changes


def claims_on_tiny(monkeypatch):
    """Let every claim stand on TINY; its images are grey, so those that a claim adds to them must be."""
    monkeypatch.setattr(evidence, "base", lambda scale: TINY)
    monkeypatch.setitem(recipe.SHAPES, "cifar100", (50_000, 1, 32))


def record(recipe=TINY, seed=0, rules=None, status="ok", speed=100.0, **final):
    """A record that no run has made; what is said of `final` overrides `figures`."""
    return Record(
        schema=SCHEMA, key=recipe.key, recipe=recipe.whole(), seed=seed,
        seeds={"init": seed, "order": seed, "views": seed}, status=status, final=figures(**final),
        untrained=figures(kNN=0.5), curves={"loss": [[1, -0.1], [2, -0.2]]},
        spectra={"backbone": torch.tensor([2.0, 1.0])}, machine=machine(torch.device("cpu")), code="c0de", commit=None,
        data="da7a", flops=1e6, wall=1.0, images_per_second=speed, peak_memory=10.0, digest="d19e57", rules=rules or {})
