"""The live rule of chapter 08 on a real, short pair of runs; swapped arms must fail it. And the common verdict words."""
import pytest

from simsiam_explained.encoders import resnet
from simsiam_explained.images import textures
from simsiam_explained.report import report
from simsiam_explained.simsiam import SimSiam, direction, stop_gradient_rule
from simsiam_explained.training import fit
from simsiam_explained.views import make_views


def pair(seed, steps, n=4000):
    """Return the report's rows with and without stop-gradient, by chapter 08's protocol."""
    train, test, views = textures(n, 24, seed=1), textures(n // 4, 24, seed=2), make_views("textures")
    runs = {}
    for name, stop in (("on", True), ("off", False)):
        backbone = resnet(width=8, blocks=(1, 1, 1), stem="stride2", channels=1, seed=seed)
        method = SimSiam(backbone, stop_gradient=stop, dim=64, layers=2, seed=seed)
        runs[name] = fit(method, train, views, steps=steps, batch=128, base_lr=0.8, seed=seed, device="cpu", progress=False)
    rows = report(runs, train[:2000], test, views, k=50, linear=False)
    return rows.loc["on"].to_dict(), rows.loc["off"].to_dict()


def test_a_short_pair_meets_the_rule_and_swapped_arms_fail_it():
    on, off = pair(seed=100, steps=80)
    assert all(stop_gradient_rule([on], [off]).values())
    assert not any(stop_gradient_rule([off], [on]).values())
    assert not any(stop_gradient_rule([on], [on]).values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_full_rule_at_other_seeds(seed):
    on, off = pair(seed, steps=200)
    assert all(stop_gradient_rule([on], [off]).values())
    assert not any(stop_gradient_rule([off], [on]).values())


def test_one_seed_against_the_others_is_enough_to_refuse():
    on = [{"loss": -0.8, "std": 0.95, "kNN": 0.6}] * 3
    off = [{"loss": -0.98, "std": 0.05, "kNN": 0.4}] * 3
    assert all(stop_gradient_rule(on, off).values())
    for key, value in {"loss": -0.7, "std": 0.48, "kNN": 0.61}.items():
        one_bad = [*off[:2], {**off[2], key: value}]
        assert list(stop_gradient_rule(on, one_bad).values()).count(False) == 1
    with pytest.raises(ValueError):
        stop_gradient_rule(on, off[:2])


@pytest.mark.parametrize("on, off, verdict", [
    ([0.9, 0.92, 0.91], [0.1, 0.12, 0.11], "direction reproduced"),
    ([0.1, 0.12, 0.11], [0.9, 0.92, 0.91], "contradicted"),
    ([0.9, 0.5, 0.7], [0.8, 0.6, 0.65], "no difference seen"),   # mixed signs
    ([0.9, 0.5, 0.7], [0.85, 0.45, 0.65], "no difference seen"),  # one sign, within the spread
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "no difference seen"),
    ([0.9, 0.9], [0.1, 0.1], "not tested"),
])
def test_verdict_words(on, off, verdict):
    assert direction(on, off) == verdict


def test_a_verdict_needs_pairs():
    with pytest.raises(ValueError, match="3 and 2"):
        direction([1.0, 1, 1], [0.0, 0])
