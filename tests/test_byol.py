"""BYOL's exact claims, LARS against an independent reference, networks without batch statistics, and the refusals."""
import copy
import math

import pytest
import torch
from nets import Pixels, gradients, rows, two_views
from torch import nn
from torch.nn import functional as F

from simsiam_explained.byol import BYOL, CLAIMS, byol_loss, ema, optimal_predictor, scrambled, tau_at
from simsiam_explained.conditions import CostsLess
from simsiam_explained.encoders import resnet
from simsiam_explained.images import textures
from simsiam_explained.optimisers import LARS
from simsiam_explained.norms import Affine, Standardised, swap_norm
from simsiam_explained.recipe import base
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import Plan, fit, make_optimiser, set_lr
from simsiam_explained.views import make_views


SMALL = dict(dim=8, hidden=10, predictor_hidden=6, shape=(3, 4, 4))


def small(device="cpu", **switches):
    return BYOL(Pixels(), **SMALL | switches).double().to(device)


# ---- the target ----

def test_ema_arithmetic(device):
    old, new = nn.Linear(3, 2).to(device), nn.Linear(3, 2).to(device)
    before, goal = copy.deepcopy(old), copy.deepcopy(new)
    ema(old, new, 0.75)
    assert torch.allclose(old.weight, 0.75 * before.weight + 0.25 * goal.weight)
    assert torch.allclose(old.bias, 0.75 * before.bias + 0.25 * goal.bias)
    assert torch.equal(new.weight, goal.weight), "θ must not move"
    ema(old, new, 1.0)
    assert torch.allclose(old.bias, 0.75 * before.bias + 0.25 * goal.bias)
    ema(old, new, 0.0)
    assert torch.equal(old.weight, new.weight) and torch.equal(old.bias, new.bias)


def test_ema_of_a_constant_is_a_geometric_series():
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(old.weight), nn.init.ones_(new.weight)
    for _ in range(5):
        ema(old, new, 0.9)
    assert old.weight.item() == pytest.approx(1 - 0.9**5, rel=1e-5)


@pytest.mark.parametrize("average", [False, True])
def test_buffers_are_averaged_only_on_demand(average):
    old, new = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    new.running_mean.fill_(2.0), new.num_batches_tracked.fill_(7)
    ema(old, new, 0.5, buffers=average)
    assert old.running_mean.tolist() == [1.0 if average else 0.0] * 3
    assert int(old.num_batches_tracked) == (7 if average else 0)


@pytest.mark.parametrize("average", [False, True])
def test_the_target_trains_its_batch_norm_on_its_own_views(average):
    method = small(tau=0.5, tau_schedule="constant", average_buffers=average)
    ours, theirs = (next(m for m in net.modules() if isinstance(m, nn.BatchNorm1d)) for net in (method.online, method.target))
    method.train()(*two_views())
    assert theirs.training and int(theirs.num_batches_tracked) == 2
    assert torch.allclose(theirs.running_mean, ours.running_mean) and theirs.running_mean.abs().max() > 0
    kept = theirs.running_mean.clone()
    ours.running_mean.add_(1.0)
    method.after_step(0, 10)
    assert torch.allclose(theirs.running_mean, kept + 0.5 * average)


def test_schedule_by_hand():
    """BYOL §3.3: τ rises from τ_base to 1 along a cosine."""
    assert tau_at(0, 100, 0.9) == pytest.approx(0.9)
    assert tau_at(50, 100, 0.9) == pytest.approx(0.95)
    assert tau_at(25, 100, 0.9) == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)
    assert tau_at(100, 100, 0.9) == 1
    assert {tau_at(step, 100, 0.9, "constant") for step in (0, 37, 99)} == {0.9}


def test_the_target_follows_the_weights_after_the_step():
    method, before = small(tau=0.9), small(tau=0.9)
    with torch.no_grad():
        for w in method.online.parameters():
            w.add_(1.0)                       # the optimiser's step
    method.after_step(0, 10)
    for old, now in zip(before.target.parameters(), method.target.parameters()):
        assert torch.allclose(now, old + 0.1, atol=1e-12)
    method.after_step(5, 10)                  # τ = 0.95 half-way
    for old, now in zip(before.target.parameters(), method.target.parameters()):
        assert torch.allclose(now, old + 0.1 + 0.05 * 0.9, atol=1e-12)


@pytest.mark.parametrize("target", ["ema", "copy", "random"])
def test_no_gradient_reaches_the_target(device, target):
    method, xs = small(device, target=target), two_views(device)
    before = copy.deepcopy(method.target)
    method(*xs).loss.backward()
    optimiser = torch.optim.SGD(method.param_groups(), lr=0.1)
    optimiser.step()
    assert all(w.grad is None and not w.requires_grad for w in method.target.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), method.target.parameters()))
    xs = [x.requires_grad_() for x in xs]
    assert not any(t.requires_grad for t in method.targets(tuple(xs), [])), "nor its input"
    ids = {id(w) for group in method.param_groups() for w in group["params"]}
    assert ids == {id(w) for part in (method.online, method.predictor) for w in part.parameters()}


def test_only_the_online_network_itself_as_target_gets_gradient():
    xs = two_views()
    through, cut = gradients(small(target="online"), xs), gradients(small(target="copy"), xs)
    assert not torch.allclose(through["backbone.layer.weight"], cut["backbone.layer.weight"])


def test_a_copy_is_refreshed_and_a_random_target_is_another_net_that_stays():
    copied, fixed = small(target="copy"), small(target="random")
    start = copy.deepcopy(fixed.target)
    for method in (copied, fixed):
        with torch.no_grad():
            method.backbone.layer.weight.add_(1.0)
        method.after_step(3, 10)
    assert all(torch.equal(a, b) for a, b in zip(copied.target.parameters(), copied.online.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(fixed.target.parameters(), start.parameters()))
    twin = small(target="random")
    theirs, own = twin.target[0].layer.weight, twin.backbone.layer.weight
    assert not torch.allclose(theirs, own) and torch.equal(theirs.flatten().sort()[0], own.flatten().sort()[0])
    assert not torch.equal(scrambled(twin.backbone, 1).layer.weight, scrambled(twin.backbone, 2).layer.weight)


def test_tau_0_with_simsiams_heads_and_a_quarter_of_the_loss_is_simsiam(device):
    """BYOL's target refreshed before the forward pass; three steps of SGD stay together."""
    heads = dict(dim=8, hidden=10, layers=2, predictor_hidden=4, shape=(3, 4, 4), bn="default")
    byol = BYOL(Pixels(), target="copy", bias_out=True, loss_scale=0.25, **heads).double().to(device)
    simsiam = SimSiam(Pixels(), predictor_lr="scheduled", **heads).double().to(device)
    for step in range(3):
        xs = two_views(device, seed=step)
        ours, theirs = gradients(byol, xs), gradients(simsiam, xs)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.allclose(ours[name], theirs[name], atol=1e-12), (step, name)
        assert byol(*xs).loss.item() == pytest.approx(0.25 * 4 + simsiam(*xs).loss.item())
        for method in (byol, simsiam):
            torch.optim.SGD(method.param_groups(), lr=0.5).step()
            method.after_step(step, 3)


# ---- the loss ----

def test_the_loss_is_the_sum_of_two_squared_distances_of_unit_vectors(device):
    """2 − 2·cos in both directions; 0 if equal, 4 at right angles, 8 if opposite."""
    (p, t) = (x.to(device) for x in rows())
    cosine = F.cosine_similarity(p, torch.cat([t[3:], t[:3]]))
    by_hand = (2 - 2 * cosine[:3]).mean() + (2 - 2 * cosine[3:]).mean()
    assert torch.allclose(byol_loss(p, t), by_hand, atol=1e-12)
    e = torch.eye(4, device=device)
    same, swap = e[[0, 1, 0, 1]], [2, 3, 0, 1]
    assert byol_loss(same, 5 * same[swap]).item() == pytest.approx(0, abs=1e-6)
    assert byol_loss(same, e[[2, 3, 2, 3]]).item() == pytest.approx(4)
    assert byol_loss(same, -same[swap]).item() == pytest.approx(8)


def test_without_normalisation_it_is_the_plain_distance():
    p, t = rows()
    by_hand = (p - t[[3, 4, 5, 0, 1, 2]]).square().sum(1).reshape(2, 3).mean(1).sum()
    assert torch.allclose(byol_loss(p, t, normalise=False), by_hand)


def nt_xent(z1, z2, temperature):
    """SimCLR's loss, written out image by image: −ln of the partner's share among all but oneself."""
    z, n, total = F.normalize(torch.cat([z1, z2]), dim=1), len(z1), 0.0
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        logits = torch.stack([z[i] @ z[j] / temperature for j in others])
        total = total + F.cross_entropy(logits[None], torch.tensor([others.index((i + n) % (2 * n))]))
    return total / (2 * n)


def test_simclr_is_a_corner_of_the_generalised_loss():
    """β = 1, no predictor, no target: 4 + 4α·NT-Xent, so its gradient is SimCLR's times 4α (BYOL App. F.4)."""
    z1, z2 = rows()
    both = torch.cat([z1, z2]).requires_grad_()
    for temperature in (0.1, 0.5):
        ours = byol_loss(both, both, beta=1.0, temperature=temperature)
        theirs = nt_xent(both[:6], both[6:], temperature)
        assert torch.allclose(ours, 4 + 4 * temperature * theirs, atol=1e-10)
    method, xs = small(target="online", predictor="none", beta=1.0, temperature=0.5), two_views(batch=6)
    out = method(*xs)
    assert out.p1 is out.z1 and method.target is None
    assert torch.allclose(out.loss, 4 + 2 * nt_xent(out.z1, out.z2, 0.5), atol=1e-10)


def test_negatives_by_hand(device):
    """One image: its only negative is the other view's target, so ln Σ is cos/α itself and cancels the positive."""
    p, t = (x.to(device) for x in rows(n=2))
    assert byol_loss(p, t, beta=1.0, temperature=0.3).item() == pytest.approx(4)


def test_the_optimal_predictor_solves_the_least_squares_problem(device):
    z, t = (x.to(device) for x in rows(n=50, d=5))
    exact = torch.linalg.lstsq(z.cpu(), t.cpu()).solution.to(device)
    assert torch.allclose(optimal_predictor(z, t, ridge=0.0), exact, atol=1e-9)
    turn = torch.linalg.qr(rows(5, 5)[0])[0].to(device)
    assert torch.allclose(optimal_predictor(z, z @ turn, ridge=0.0), turn, atol=1e-9)
    assert optimal_predictor(z, t, ridge=10.0).norm() < exact.norm()
    many = optimal_predictor(torch.stack([z, 2 * t]), torch.stack([t, z]), ridge=0.1)
    assert torch.allclose(many[0], optimal_predictor(z, t, ridge=0.1)) and torch.allclose(many[1], optimal_predictor(2 * t, z, ridge=0.1))


def test_the_optimal_predictor_is_as_good_as_any_and_takes_no_gradient(device):
    xs = two_views(device, batch=64)
    method = small(device, predictor="optimal", ridge=0.0, normalise=False)
    other = small(device, predictor="linear", normalise=False)
    assert method(*xs).loss < other(*xs).loss
    assert not list(method.predictor.parameters())
    assert gradients(method, xs)["backbone.layer.weight"].abs().max() > 0


def test_a_scaled_loss_is_a_scaled_rate_under_sgd_and_nothing_under_adam():
    """Sum or mean of the two directions: a factor 2 of the rate, and the decay must be halved with it."""
    def after(optimiser, scale, **numbers):
        method = small(loss_scale=scale)
        rule = optimiser(method.param_groups(), **numbers)
        for step in range(3):
            rule.zero_grad()
            method(*two_views(seed=step)).loss.backward()
            rule.step()
        return method.backbone.layer.weight.detach()

    sgd, adam = torch.optim.SGD, torch.optim.Adam
    one = after(sgd, 1.0, lr=0.1, momentum=0.9, weight_decay=0.01)
    assert torch.allclose(one, after(sgd, 0.5, lr=0.2, momentum=0.9, weight_decay=0.005), atol=1e-12)
    assert not torch.allclose(one, after(sgd, 0.5, lr=0.1, momentum=0.9, weight_decay=0.01), atol=1e-4)
    assert torch.allclose(after(adam, 1.0, lr=0.01), after(adam, 0.5, lr=0.01), atol=1e-5)


# ---- heads, rates, recipes ----

def test_heads_are_the_papers():
    """BYOL §3.3: 4096 and 256, BN and ReLU inside, no BN on the output, and in the official code no bias there."""
    method = BYOL(resnet(width=4, blocks=(1,), seed=0))
    for head, d_in in ((method.projector, 4), (method.predictor, 256)):
        assert [type(m).__name__ for m in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert (head[0].in_features, head[0].out_features, head[3].out_features) == (d_in, 4096, 256)
        assert head[3].bias is None
    assert (method.follows, method.tau, method.tau_schedule) == ("ema", 0.996, "cosine")
    assert (method.beta, method.loss_scale, method.normalise, method.optimal) == (0, 1, True, False)
    assert all(torch.equal(a, b) for a, b in zip(method.online.parameters(), method.target.parameters()))


def test_the_rate_of_each_part_is_its_factor_times_the_schedules():
    method, plan = small(predictor_factor=10.0, projector_factor=2.0), Plan(10, 256, 0.1)
    optimiser = make_optimiser(method, plan)
    rates = set_lr(optimiser, plan, 4)
    found = {id(w): group["lr"] for group in optimiser.param_groups for w in group["params"]}
    for part, factor in ((method.backbone, 1), (method.projector, 2), (method.predictor, 10)):
        assert all(found[id(w)] == pytest.approx(factor * rates["lr"]) for w in part.parameters())
    held = make_optimiser(small(predictor_factor=10.0, predictor_lr="constant"), plan)
    assert set_lr(held, plan, 4)["constant_lr"] == 0.1 and held.param_groups[-1]["lr"] == pytest.approx(1.0)


@pytest.mark.parametrize("changes", [{}, {"target": "copy", "predictor_factor": 10.0}, {"predictor": "optimal"},
                                     {"target": "online", "predictor": "none", "beta": 1.0}, {"norm": "group"}])
def test_every_arm_is_a_recipe(changes):
    recipe = base("small").but(method="byol.BYOL", dim=16, hidden=32, predictor_hidden=32, **changes)
    method = recipe.build(seed=1)
    x = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(method(*x).loss) and "BYOL" in str(recipe)
    assert recipe.key != base("small").but(method="byol.BYOL").key


def train(method, optimiser="sgd", **kwargs):
    return fit(method, textures(128, 12, seed=0), make_views("textures"), steps=6, batch=32, base_lr=0.2, every=2,
               progress=False, device="cpu", optimiser=optimiser, **kwargs)


def tiny(**switches):
    return BYOL(resnet(width=4, blocks=(1, 1), stem="stride2", channels=1, seed=0), dim=8, hidden=8, predictor_hidden=8,
                shape=(1, 12, 12), tau=0.9, **switches)


@pytest.mark.parametrize("optimiser, norm", [("sgd", "batch"), ("lars", "batch"), ("sgd", "matched")])
def test_a_run_that_stops_and_goes_on_has_the_same_bits(optimiser, norm, tmp_path):
    whole = train(tiny(norm=norm), optimiser).method.state_dict()
    assert any(name.startswith("target.") for name in whole)
    stopped = train(tiny(norm=norm), optimiser, checkpoint=str(tmp_path / "run.pt"), save_every=2, limit=1e-6)
    assert stopped.status == "stopped"
    resumed = train(tiny(norm=norm), optimiser, resume=str(tmp_path / "run.pt")).method.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_resuming_with_another_tau_is_refused(tmp_path):
    stopped = train(tiny(), limit=1e-6)
    other = tiny()
    other.tau = 0.5
    with pytest.raises(ValueError, match="method.tau='0.9'"):
        train(other, resume=stopped)


def test_the_target_moves_in_fit_and_lags():
    run = train(tiny())
    start, online, target = run.initial.backbone, run.method.backbone, run.method.target[0]
    far = [float(sum((a - b).detach().square().sum() for a, b in zip(x.parameters(), y.parameters())))
           for x, y in ((start, target), (target, online), (start, online))]
    assert 0 < far[0] < far[2] and far[1] > 0


# ---- LARS ----

def naive_lars(w, grads, lr, momentum, decay, trust, adapt):
    """One weight's path, in plain Python numbers."""
    w, v, path = list(w), [0.0] * len(w), []
    for g in grads:
        g = [a + decay * b for a, b in zip(g, w)]
        size, slope = (math.sqrt(sum(x * x for x in of)) for of in (w, g))
        ratio = trust * size / slope if adapt and size > 0 and slope > 0 else 1.0
        v = [momentum * a + ratio * b for a, b in zip(v, g)]
        w = [a - lr * b for a, b in zip(w, v)]
        path.append(w)
    return path


@pytest.mark.parametrize("adapt", [True, False])
def test_lars_equals_an_independent_reference(device, adapt):
    g = torch.Generator().manual_seed(0)
    start, grads = torch.randn(7, generator=g, dtype=torch.float64), torch.randn(5, 7, generator=g, dtype=torch.float64)
    w = start.clone().to(device).requires_grad_()
    optimiser = LARS([{"params": [w], "adapt": adapt}], lr=0.3, momentum=0.8, weight_decay=0.1, trust=0.02)
    for gradient, expected in zip(grads, naive_lars(start.tolist(), grads.tolist(), 0.3, 0.8, 0.1, 0.02, adapt)):
        w.grad = gradient.to(device)
        optimiser.step()
        assert w.tolist() == pytest.approx(expected, abs=1e-12)


def test_lars_without_adaptation_is_sgd():
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    pairs = [(ours, LARS([{"params": ours.parameters(), "adapt": False}], 0.1, 0.9, 0.01)),
             (theirs, torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.01))]
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        for net, optimiser in pairs:
            optimiser.zero_grad()
            net(x).square().mean().backward()
            optimiser.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7) and torch.allclose(ours.bias, theirs.bias, atol=1e-7)


def test_lars_steps_do_not_depend_on_the_size_of_the_gradient():
    """That is why the factor 4 of the summed loss is seen by biases and BN alone."""
    found = []
    for size in (1.0, 4.0):
        w = torch.arange(1.0, 5.0).requires_grad_()
        w.grad = size * torch.ones(4)
        LARS([w], lr=0.1).step()
        found.append(w.detach())
    assert torch.allclose(*found, atol=1e-7)


def test_a_weight_or_gradient_of_zero_moves_as_under_sgd():
    w, v = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    w.grad, v.grad = torch.ones(3), torch.zeros(3)
    LARS([w, v], lr=0.1).step()
    assert torch.allclose(w, torch.full((3,), -0.1)) and torch.equal(v, torch.ones(3))


def test_lars_spares_biases_and_bn():
    """BYOL §3.3: neither decay nor adaptation."""
    optimiser = make_optimiser(tiny(), Plan(10, 32, weight_decay=0.1, optimiser="lars"))
    assert isinstance(optimiser, LARS)
    for group in optimiser.param_groups:
        vectors = {w.ndim < 2 for w in group["params"]}
        assert vectors == {group["weight_decay"] == 0.0} == {not group["adapt"]}
    with pytest.raises(ValueError, match="optimiser: got 'adam'"):
        train(tiny(), optimiser="adam")


# ---- claims ----

def test_every_claim_builds_its_recipes_or_names_a_test():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert {int(claim.id.split("-")[1]) for claim in CLAIMS if claim.id.split("-")[1].isdigit()} == set(range(1, 22))
    built = {}
    for claim in CLAIMS:
        if claim.test:
            assert claim.test.removeprefix("test_byol.py::") in globals()
        for scale in claim.scales if claim.arms else ():
            if scale != "full" or claim.scales == ("full",):      # else the same arms, in a larger net
                built |= {recipe.key: recipe for recipe in claim.recipes(scale).values()}
        asked = {name for condition in claim.rule for name in vars(condition).values() if isinstance(name, str)}
        assert not claim.arms or set(claim.arms) & asked, claim.id
    assert all(recipe.build().views_per_image == 2 for recipe in built.values())


def test_arms_of_one_claim_are_different_runs():
    for claim in (claim for claim in CLAIMS if claim.arms):
        for scale in claim.scales:
            recipes = claim.recipes(scale)
            assert len({recipe.key for recipe in recipes.values()}) == len(recipes), claim.id


def test_costs_less_compares_differences():
    rows = {"a": [1.0, 0.9, 0.95], "a cut": [0.9, 0.81, 0.85], "b": [0.8, 0.75, 0.7], "b cut": [0.4, 0.36, 0.3]}
    rows = {arm: [{"linear": value} for value in of] for arm, of in rows.items()}
    assert CostsLess("linear", "a", "a cut", "b", "b cut")(rows) == "direction reproduced"
    assert CostsLess("linear", "b", "b cut", "a", "a cut")(rows) == "contradicted"
    assert CostsLess("linear", "a", "a cut", "a", "a cut")(rows) == "no difference seen"
    assert CostsLess("linear", "a", "a cut", "b", "b cut").says(rows)[1] == "lost 0.097 against 0.397"


# ---- networks without batch statistics ----

@pytest.mark.parametrize("norm", ["group", "none", "matched"])
def test_without_batch_norm_an_output_depends_on_its_own_image_alone(norm):
    method = tiny(norm=norm).train()
    x = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    method(x, x)                                        # "matched" looks at its first batch
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in method.modules())
    with torch.no_grad():
        alone, among = method.projector(method.backbone(x[:1])), method.projector(method.backbone(x))
    assert torch.allclose(alone, among[:1], atol=1e-6)


@pytest.mark.parametrize("norm", ["group", "none", "matched"])
def test_another_norm_leaves_the_backbone_that_was_given_as_it_was(norm):
    net = resnet(width=4, blocks=(1, 1), channels=1, seed=0)
    names, weights = str(net), [w.clone() for w in net.parameters()]
    method = BYOL(net, norm=norm, dim=8, hidden=8, predictor_hidden=8)
    assert str(net) == names and all(torch.equal(a, b) for a, b in zip(weights, net.parameters()))
    assert method.backbone is not net and BYOL(net, dim=8, hidden=8, predictor_hidden=8).backbone is net


def test_matched_scales_give_the_first_batch_mean_0_and_variance_1_once():
    layer = Affine(5, matched=True)
    x = 3 + 2 * torch.randn(64, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer.eval()(x), x)              # not in eval mode
    y = layer.train()(x).transpose(0, 1).flatten(1)
    assert y.mean(1).abs().max() < 1e-5 and (y.var(1) - 1).abs().max() < 1e-3
    assert layer(x + 1).mean() > 0.3                    # later batches are taken as they come
    fresh = Affine(5, matched=True)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))


def test_standardised_weights_have_mean_0_and_variance_1_over_fan_in():
    w = Standardised()(torch.randn(6, 3, 3, 3, generator=torch.Generator().manual_seed(0)) + 1).flatten(1)
    assert w.mean(1).abs().max() < 1e-6 and (w.var(1, correction=0) * 27 - 1).abs().max() < 1e-4


@pytest.mark.parametrize("channels, groups", [(512, 16), (24, 3), (40, 5), (8, 1), (7, 1)])
def test_group_norm_takes_up_to_16_groups_of_at_least_8_channels(channels, groups):
    net = swap_norm(nn.Sequential(nn.Linear(4, channels), nn.BatchNorm1d(channels)), "group")
    assert isinstance(net[1], nn.GroupNorm) and net[1].num_groups == groups


def test_batch_norm_stays_on_demand():
    net = nn.Sequential(nn.BatchNorm1d(4))
    assert swap_norm(net, "batch") is net and isinstance(net[0], nn.BatchNorm1d)


# ---- refusals ----

@pytest.mark.parametrize("switches, message", [
    ({"target": "emma"}, "target: got 'emma'.*Did you mean 'ema'"),
    ({"tau": 1.5}, "tau: got 1.5, expected a number from 0 to 1"),
    ({"tau_schedule": "linear"}, "tau_schedule: got 'linear'"),
    ({"predictor": "optimum"}, "predictor: got 'optimum'"),
    ({"predictor_factor": -1.0}, "predictor_factor: got -1.0"),
    ({"temperature": 0.0}, "temperature: got 0.0"),
    ({"beta": 1.0, "normalise": False}, "beta: got 1.0 with normalise=False"),
    ({"norm": "layer"}, "norm: got 'layer'"),
    ({"predictor_lr": "fast"}, "predictor_lr: got 'fast'"),
    ({"loss_scale": 0}, "loss_scale: got 0, expected a number from 1e-06"),
])
def test_refusals(switches, message):
    with pytest.raises(ValueError, match=message):
        small(**switches)


@pytest.mark.parametrize("name", ["normalise", "average_buffers", "bias_out", "affine"])
def test_a_word_for_a_switch_is_refused(name):
    with pytest.raises(TypeError, match=f"{name}: got 'no', expected True or False"):
        small(**{name: "no"})                               # it would count as True


def test_other_numbers_of_views_are_refused():
    with pytest.raises(ValueError, match="views: got 1"):
        small()(two_views()[0])
