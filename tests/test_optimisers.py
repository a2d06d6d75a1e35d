"""LAMB against an independent reference and against torch's AdamW; what the names of optimisers mean in a run."""
import math

import pytest
import torch
from torch import nn

from simsiam_explained import training
from simsiam_explained.optimisers import LAMB, LARS, OPTIMISERS
from simsiam_explained.recipe import Recipe
from simsiam_explained.training import Plan, make_optimiser, set_lr


def naive_lamb(w, grads, lr, b1, b2, eps, decay, adapt):
    """One weight's path, in plain Python numbers (You et al. 2020, Alg. 2, φ(x) = x)."""
    w, m, v, path = list(w), [0.0] * len(w), [0.0] * len(w), []
    for t, g in enumerate(grads, 1):
        m = [b1 * a + (1 - b1) * x for a, x in zip(m, g)]
        v = [b2 * a + (1 - b2) * x * x for a, x in zip(v, g)]
        r = [a / (1 - b1 ** t) / (math.sqrt(b / (1 - b2 ** t)) + eps) for a, b in zip(m, v)]
        u = [a + decay * b for a, b in zip(r, w)]
        size, length = (math.sqrt(sum(x * x for x in of)) for of in (w, u))
        ratio = size / length if adapt and size > 0 and length > 0 else 1.0
        w = [a - lr * ratio * b for a, b in zip(w, u)]
        path.append(w)
    return path


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("zero", [True, False])
def test_lamb_equals_an_independent_reference(device, adapt, zero):
    g = torch.Generator().manual_seed(0)
    start, grads = torch.randn(7, generator=g, dtype=torch.float64), torch.randn(5, 7, generator=g, dtype=torch.float64)
    start = torch.zeros_like(start) if zero else start          # a bias at its first step has no length
    w = start.clone().to(device).requires_grad_()
    optimiser = LAMB([{"params": [w], "adapt": adapt}], lr=0.3, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.1)
    for gradient, expected in zip(grads, naive_lamb(start.tolist(), grads.tolist(), 0.3, 0.8, 0.95, 1e-3, 0.1, adapt)):
        w.grad = gradient.to(device)
        optimiser.step()
        assert w.tolist() == pytest.approx(expected, abs=1e-12)


def walk(net, optimiser, steps=5):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimiser.zero_grad()
        (100 * net(x)).square().mean().backward()
        optimiser.step()
    return [w.detach().clone() for w in net.parameters()]


def layer():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Linear(4, 3)


def test_lamb_without_adaptation_is_torchs_adamw():
    a, b = layer(), layer()
    ours = walk(a, LAMB([{"params": a.parameters(), "adapt": False}], 0.01, weight_decay=0.1))
    theirs = walk(b, torch.optim.AdamW(b.parameters(), 0.01, eps=1e-6, weight_decay=0.1))
    assert all(torch.allclose(x, y, atol=1e-7) for x, y in zip(ours, theirs))
    assert not torch.allclose(ours[0], walk(a := layer(), LAMB(a.parameters(), 0.01, weight_decay=0.1))[0], atol=1e-4)


def test_a_step_of_lamb_is_lr_times_the_length_of_the_weight():
    w = torch.arange(1.0, 5.0).requires_grad_()
    before, w.grad = w.detach().clone(), torch.tensor([1.0, -200.0, 3e-3, 0.4])
    LAMB([w], lr=0.1).step()
    assert float((w.detach() - before).norm() / before.norm()) == pytest.approx(0.1, rel=1e-5)


def test_two_steps_of_lars_as_published():
    """Each adds lr · 0.001·‖w‖ along the gradient with its decay, and 0.9 of the step before."""
    w = torch.tensor([3.0, -4.0], dtype=torch.float64).requires_grad_()
    optimiser, by_hand, moved = LARS([w], lr=2.0, weight_decay=0.1), w.detach().clone(), 0.0
    for slope in ([0.5, 1.0], [-30.0, 2.0]):
        w.grad = torch.tensor(slope, dtype=torch.float64)
        optimiser.step()
        moved = 0.9 * moved + 0.001 * by_hand.norm() * nn.functional.normalize(w.grad + 0.1 * by_hand, dim=0)
        by_hand = by_hand - 2.0 * moved
        assert torch.allclose(w, by_hand, rtol=1e-12)


def test_lamb_returns_what_its_closure_returns_and_skips_what_has_no_gradient():
    w, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    def closure():
        loss = w.square().sum()
        loss.backward()
        return loss

    assert LAMB([w, still], lr=0.1, weight_decay=0.5).step(closure).item() == 2.0
    assert torch.equal(still, torch.ones(2)) and not torch.equal(w, torch.ones(2))


# ---- by name ----

def groups(optimiser, **changes):
    return make_optimiser(nn.Sequential(layer(), nn.BatchNorm1d(3)), Plan(10, optimiser=optimiser, **changes))


def test_adamw_by_name_is_torchs_and_decays_all_weights():
    """MoCo v3's official recipe for ViTs makes no groups: norms and biases decay as well."""
    made = groups("adamw", weight_decay=0.1)
    assert type(made) is torch.optim.AdamW
    (group,) = made.param_groups
    assert len(group["params"]) == 4 and group["weight_decay"] == 0.1
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)          # torch's defaults
    assert groups("adamw", momentum=0.8).param_groups[0]["betas"] == (0.8, 0.999)
    spared = groups("adamw", decay="no_norm_bias").param_groups
    assert sorted(len(g["params"]) for g in spared) == [1, 3]


def test_momentum_by_name_is_the_plans():
    """Of AdamW and LAMB it is β₁, and β₂ stays 0.999."""
    found = {name: groups(name, momentum=0.8).param_groups for name in OPTIMISERS}
    assert {name: {g.get("momentum") or g["betas"] for g in of} for name, of in found.items()} == {
        "sgd": {0.8}, "lars": {0.8}, "larc": {0.8}, "adamw": {(0.8, 0.999)}, "lamb": {(0.8, 0.999)}}
    assert {g["trust"] for g in found["lars"]} == {1e-3}


def test_adamw_in_a_run_equals_torchs_own_loop():
    a, b = layer(), layer()
    ours = walk(a, make_optimiser(a, Plan(10, base_lr=0.01, weight_decay=0.1, optimiser="adamw")))
    theirs = walk(b, torch.optim.AdamW(b.parameters(), 0.01, weight_decay=0.1))
    assert all(torch.equal(x, y) for x, y in zip(ours, theirs))


@pytest.mark.parametrize("name, kind", [("lars", LARS), ("larc", LARS), ("lamb", LAMB)])
def test_lars_and_lamb_by_name_neither_scale_nor_decay_vectors(name, kind):
    made = groups(name, weight_decay=0.1)
    assert type(made) is kind
    for group in made.param_groups:
        assert all((w.ndim > 1) == group["adapt"] == (group["weight_decay"] > 0) for w in group["params"])


@pytest.mark.parametrize("size, expected", [(100.0, 0.02 * 5), (1e-3, 0.4 * 1e-3)])      # trust·‖w‖, or lr·‖g‖
def test_the_rate_of_larc_is_a_ceiling(device, size, expected):
    w = torch.tensor([[3.0, 4.0]], dtype=torch.float64, device=device, requires_grad=True)
    optimiser = OPTIMISERS["larc"]([{"params": [w], "weight_decay": 0.0}], lr=0.4, momentum=0.0)
    w.grad = torch.tensor([[0.6, -0.8]], dtype=torch.float64, device=device) * size
    before = w.detach().clone()
    optimiser.step()
    assert float((w.detach() - before).norm()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_follows_the_schedule_and_learns(name):
    net, losses, x = layer(), [], torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    optimiser = make_optimiser(net, plan := Plan(10, base_lr=0.1, optimiser=name))
    for step in range(10):
        rate = 0.05 * (1 + math.cos(math.pi * step / 10))
        assert set_lr(optimiser, plan, step)["lr"] == pytest.approx(rate) == optimiser.param_groups[0]["lr"]
        optimiser.zero_grad()
        (loss := net(x).square().mean()).backward()
        optimiser.step()
        losses.append(loss.item())
    assert max(losses[1:]) < losses[0]


def test_names_are_one_table_for_plans_and_recipes():
    assert training.OPTIMISERS is OPTIMISERS and set(OPTIMISERS) == {"sgd", "lars", "larc", "adamw", "lamb"}
    keys = {Recipe(optimiser=name).key for name in OPTIMISERS}
    assert len(keys) == len(OPTIMISERS) and Recipe(optimiser="sgd").key == Recipe().key
    with pytest.raises(ValueError, match="adamw"):
        Recipe(optimiser="adam")
