"""The two-weight network against autograd and hand values; the batched runs against plain PyTorch, one at a time."""
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simsiam_explained.encoders import BN_PLACEMENTS
from simsiam_explained.micro import (CHOICES, PREDICTORS, Arm, Setting, TwoWeights, VectorWorld, curl, draw_views, factors, field,
                                     first_weights, fixed_points, jacobian, mixing, r2, stop_gradient, train_arms, trajectory,
                                     two_weight_loss)
from simsiam_explained.predictor import PREDICTORS as KINDS
from simsiam_explained.simsiam import PAIRS, SIMILARITY, SimSiam
from simsiam_explained.switches import Switches

DETACHED, PLAIN = TwoWeights(), TwoWeights(stop_gradient=False)
ARMS = {
    "SimSiam": Arm(),
    "linear": Arm(predictor="linear", affine=False),
    "no sg": Arm(stop_gradient=False, predictor_lr="scheduled"),
    "no sg, affine off": Arm(stop_gradient=False, affine=False),
    "fixed": Arm(predictor="fixed"),
    "none": Arm(predictor="none"),
    "none, no sg": Arm(predictor="none", stop_gradient=False),
}
HARMLESS = {          # what changes the accuracy, says the paper, but does not collapse; and some of it together
    "BN none": Arm(bn="none"),
    "BN hidden": Arm(bn="hidden"),
    "BN all": Arm(bn="all"),
    "cross-entropy": Arm(similarity="cross_entropy"),
    "asymmetric": Arm(symmetry="asymmetric"),
    "asymmetric 2x": Arm(symmetry="asymmetric 2x"),
    "all, fixed, affine off": Arm(bn="all", predictor="fixed", affine=False),
    "hidden, linear, affine off": Arm(bn="hidden", predictor="linear", affine=False),
    "2x, none, cross-entropy, no sg": Arm(symmetry="asymmetric 2x", bn="none", similarity="cross_entropy", stop_gradient=False),
    "2x, no predictor": Arm(symmetry="asymmetric 2x", predictor="none"),
}
SMALL = VectorWorld(content=3, style=5, images=64)
TINY = Setting(batch=16, width=12, dim=8, points=3)


def exact_sample(noise, device):
    """x1, x2 whose sample moments are exactly E x1² = E x2² = 1 + noise and E x1x2 = 1."""
    generator = torch.Generator().manual_seed(0)
    x, n1, n2 = torch.linalg.qr(torch.randn(50, 3, generator=generator, dtype=torch.float64))[0].T.to(device) * 50 ** 0.5
    return x + noise ** 0.5 * n1, x + noise ** 0.5 * n2


def plane(device, n=9):
    axis = torch.linspace(-1.4, 1.4, n, dtype=torch.float64, device=device)
    return torch.cartesian_prod(axis, axis)


@pytest.mark.parametrize("net", [DETACHED, PLAIN, TwoWeights(noise=1.3, decay=0.02, predictor_lr=3.0)])
def test_field_is_what_autograd_and_detach_give(net, device):
    x1, x2 = exact_sample(net.noise, device)
    for theta in plane(device, 4):
        w, v = (t.clone().requires_grad_() for t in theta)
        target = (w * x2).detach() if net.stop_gradient else w * x2
        loss = 0.5 * (v * (w * x1) - target).square().mean()
        assert torch.allclose(loss + 0.5 * net.decay * (w ** 2 + v ** 2), two_weight_loss(theta, net))
        dw, dv = torch.autograd.grad(loss, (w, v))
        expected = -torch.stack([dw, net.predictor_lr * dv]) - net.decay * theta
        assert torch.allclose(field(theta, net), expected, atol=1e-12)


def test_only_the_whole_gradient_has_a_potential(device):
    theta = plane(device)
    assert curl(theta, PLAIN).abs().max() < 1e-12
    assert torch.allclose(curl(theta, DETACHED), theta[:, 0])
    step = 1e-5 * torch.eye(2, dtype=torch.float64, device=device)
    slopes = torch.stack([(field(theta + e, DETACHED) - field(theta - e, DETACHED)) / 2e-5 for e in step], -1)
    assert torch.allclose(jacobian(theta, DETACHED), slopes, atol=1e-8)


def test_fixed_points_are_those_of_the_linear_theory():
    found = fixed_points(DETACHED)                 # noise 0.5, decay 0.1: 0.1225 and 0.5442 by hand (Tian et al. 2021, 1-D)
    root = math.sqrt(1 - 4 * 0.1 * 1.5)
    low, high = (1 - root) / 3, (1 + root) / 3
    assert [(round(p.w, 5), round(p.v, 5), p.kind) for p in found] == [
        (-round(high, 5), round(high, 5), "stable"), (-round(low, 5), round(low, 5), "saddle"), (0.0, 0.0, "stable"),
        (round(low, 5), round(low, 5), "saddle"), (round(high, 5), round(high, 5), "stable")]
    assert [(p.w, p.v, p.kind) for p in fixed_points(PLAIN)] == [(0.0, 0.0, "stable")]
    assert len(fixed_points(replace(DETACHED, decay=0.16))) == 5
    assert len(fixed_points(replace(DETACHED, decay=0.17))) == 1          # beyond 1/6 collapse is all there is


def test_trajectories_end_where_they_should(device):
    starts = torch.tensor([[0.12, 0.12], [0.125, 0.125], [0.5, -0.8]], dtype=torch.float64, device=device)
    ends = trajectory(starts, DETACHED, steps=6000)[-1]
    assert ends[[0, 2]].abs().max() < 1e-3 and torch.allclose(ends[1], torch.full_like(ends[1], 0.54415), atol=1e-4)
    path = trajectory(plane(device), PLAIN, steps=400)
    assert path.shape == (401, 81, 2)
    assert (two_weight_loss(path, PLAIN).diff(dim=0) <= 1e-12).all()      # with the whole gradient the loss only falls


def test_without_a_potential_needs_decay_to_have_points():
    with pytest.raises(ValueError, match="got 0.0, expected > 0"):
        fixed_points(TwoWeights(decay=0.0))
    with pytest.raises(ValueError, match="steps: got 0"):
        trajectory(torch.zeros(2), steps=0)


def test_views_keep_the_content_and_redraw_the_style():
    world = VectorWorld(content=3, style=5, images=50, jitter=0.1)
    images, mix = factors(world, 50, seed=1), mixing(world)
    assert torch.allclose(mix @ mix.T, torch.eye(8, dtype=torch.float64), atol=1e-12)
    x = draw_views(world, images, mix, [torch.Generator().manual_seed(s) for s in (0, 0, 1)], batch=2000)
    assert x.shape == (3, 8, 4000) and torch.equal(x[0], x[1]) and not torch.equal(x[0], x[2])
    one, two = (x[0].mT @ mix.T).chunk(2)                                   # back to factors, one row a vector
    same = (one * two).mean(0) / one.square().mean(0)
    assert (same[:3] > 0.95).all() and same[3:].abs().max() < 0.1
    assert abs(float((one - two)[:, :3].std()) - 0.1 * 2 ** 0.5) < 0.005    # the jitter is that of each view


class Plain(nn.Module):
    """One run's network, in the ordinary way."""

    def __init__(self, arm, first):
        super().__init__()
        self.arm = arm
        (width, size), (dim, _), (hidden, _) = first["f"].shape, first["g2"].shape, first["h1"].shape
        self.f, self.g1 = nn.Linear(size, width, bias=False), nn.Linear(width, width, bias=False)
        self.g2, self.h1 = nn.Linear(width, dim, bias=False), nn.Linear(dim, hidden, bias=False)
        self.h2, self.hl = nn.Linear(hidden, dim), nn.Linear(dim, dim, bias=False)
        self.f_bn, self.g1_bn, self.h1_bn = nn.BatchNorm1d(width), nn.BatchNorm1d(width), nn.BatchNorm1d(hidden)
        self.g2_bn = nn.BatchNorm1d(dim, affine=arm.affine)
        self.double()
        with torch.no_grad():
            for name in ("f", "g1", "g2", "h1", "h2", "hl"):
                getattr(self, name).weight.copy_(first[name])
            self.h2.bias.copy_(first["h2_bias"][:, 0])

    def encode(self, x):
        y = F.relu(self.f_bn(self.f(x)))
        return y, self.g2_bn(self.g2(F.relu(self.g1_bn(self.g1(y)))))

    def predict(self, z):
        mlp = lambda z: self.h2(F.relu(self.h1_bn(self.h1(z))))
        return {"mlp": mlp, "fixed": mlp, "linear": self.hl, "none": lambda z: z}[self.arm.predictor](z)


    def loss(self, x1, x2):
        z1, z2 = self.encode(x1)[1], self.encode(x2)[1]
        p1, p2 = self.predict(z1), self.predict(z2)
        t1, t2 = (z1.detach(), z2.detach()) if self.arm.stop_gradient else (z1, z2)
        return -0.5 * (F.cosine_similarity(p1, t2) + F.cosine_similarity(p2, t1)).mean()

    def groups(self):
        heads = [w for name, w in self.named_parameters() if name.startswith("h") and self.arm.predictor != "fixed"]
        return [w for name, w in self.named_parameters() if not name.startswith("h")], heads


class Full(nn.Module):
    """One run's network as chapter 08 builds it for images: simsiam.SimSiam, here on a backbone of one layer."""

    def __init__(self, arm, first):
        super().__init__()
        (width, size), (dim, _) = first["f"].shape, first["g2"].shape
        backbone = nn.Sequential(nn.Flatten(), nn.Linear(size, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.arm, self.method = arm, SimSiam(backbone, predictor=arm.predictor, bn=arm.bn, affine=arm.affine, dim=dim,
                                             layers=2, shape=(size, 1, 1), stop_gradient=arm.stop_gradient,
                                             similarity=arm.similarity, symmetry=arm.symmetry).double()
        g, h = self.method.projector, self.method.predictor
        at = {"f": backbone[1], "g1": g.fc1, "g2": g.fc2}
        at |= {"hl": h.fc1} if arm.predictor == "linear" else {} if arm.predictor == "none" else {"h1": h.fc1, "h2": h.fc2}
        with torch.no_grad():
            for name, layer in at.items():
                layer.weight.copy_(first[name])
                if layer.bias is not None:           # where there is no BN
                    layer.bias.copy_(first["h2_bias"][:, 0]) if name == "h2" else layer.bias.zero_()

    def encode(self, x):
        y = self.method.backbone(x)
        return y, self.method.projector(y)

    def loss(self, *views):
        return self.method(*(x[..., None, None] for x in views)).loss

    def groups(self):
        return [*self.method.backbone.parameters(), *self.method.projector.parameters()], [
            w for w in self.method.predictor.parameters() if w.requires_grad]


def plainly(make, arm, seed, steps, world, s):
    """Train one arm by nn.Module, torch.optim.SGD and autograd; return (final loss, features, z of the evaluation set)."""
    net = make(arm, first_weights(world.size, s.width, s.dim, seed))
    images, mix = factors(world, world.images, world.seed + 1), mixing(world)
    body, heads = net.groups()
    groups = [{"params": body}] + ([{"params": heads}] if heads else [])
    sgd = torch.optim.SGD(groups, lr=s.lr, momentum=s.momentum, weight_decay=s.weight_decay)
    stream, second = (torch.Generator().manual_seed(start + seed) for start in (10_000, 20_000))
    for step in range(steps + 1):
        more = [[second]] if arm.symmetry == "asymmetric 2x" else []
        views = draw_views(world, images, mix, [stream], s.batch, more)[0].mT.split(s.batch)
        loss = net.loss(*views)
        if step == steps:
            break
        sgd.param_groups[0]["lr"] = s.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        if heads and arm.predictor_lr == "scheduled":
            sgd.param_groups[1]["lr"] = sgd.param_groups[0]["lr"]
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    y, z = net.encode(factors(world, 1024, world.seed + 2) @ mix)
    return loss.detach(), y.detach(), z.detach()


@pytest.fixture(scope="module")
def together():
    return train_arms(ARMS | HARMLESS, seeds=[4, 0], steps=25, world=SMALL, setting=TINY, dtype=torch.float64)


@pytest.mark.parametrize("make, name", [(Plain, name) for name in ARMS] + [(Full, name) for name in ARMS | HARMLESS])
def test_a_run_in_the_batch_equals_plain_pytorch(make, name, together):
    loss, y, z = plainly(make, (ARMS | HARMLESS)[name], 0, 25, SMALL, TINY)
    i = together.arms.index(name)
    assert torch.allclose(together.features[i, 1], y, atol=1e-9)
    assert torch.allclose(together.z[i, 1], z, atol=1e-9)
    assert abs(together.loss[-1, i, 1] - loss) < 1e-9


@pytest.mark.parametrize("name", ["linear", "no sg", "none", "BN all", "cross-entropy", "asymmetric 2x"])
def test_a_run_in_the_batch_equals_the_same_run_alone(name, together, device):
    alone = train_arms({name: (ARMS | HARMLESS)[name]}, seeds=[0], steps=25, world=SMALL, setting=TINY, device=device, dtype=torch.float64)
    i = together.arms.index(name)
    assert torch.allclose(alone.z[0, 0], together.z[i, 1], atol=1e-9)
    for measure in ("loss", "std_ratio", "rank", "auc", "feature_rank", "content", "style"):
        assert torch.allclose(getattr(alone, measure)[:, 0, 0], getattr(together, measure)[:, i, 1], atol=1e-6), measure


def test_float32_follows_float64(device):
    runs = [train_arms({"SimSiam": Arm()}, 2, 25, SMALL, TINY, device, dtype) for dtype in (torch.float32, torch.float64)]
    assert torch.allclose(runs[0].z.double(), runs[1].z, atol=2e-3)


def test_the_stop_gradient_lets_through_what_it_is_told(device):
    z = torch.randn(3, 4, 6, device=device, requires_grad=True)
    through = torch.tensor([0.0, 1.0, 0.5], device=device).view(3, 1, 1)
    out = stop_gradient(z, through)
    assert torch.equal(out, z)
    (gradient,) = torch.autograd.grad(out.square().sum(), z)
    assert torch.allclose(gradient, 2 * z * through)


def test_the_arms_tell_apart_complete_collapse_line_and_health():
    arms = {"SimSiam": Arm(), "affine": Arm(stop_gradient=False), "no affine": Arm(stop_gradient=False, affine=False)}
    run = train_arms(arms, seeds=[100, 101, 102], steps=500)
    std, rank = run.std_ratio[-1], run.rank[-1]
    assert (std[0] > 0.9).all() and (rank[0] > 8).all()
    assert (std[1] < 0.15).all()                                            # one constant
    assert (std[2] > 3 * std[1]).all() and (rank[2] < 0.4 * rank[0]).all()  # a batch mean of 0: few directions instead
    assert run.loss[-1, 1:].max() < run.loss[-1, 0].min()
    assert (run.content[-1, 0] > run.content[0, 0]).all() and (run.style[-1, 0] < run.style[0, 0]).all()


def test_the_table_has_a_row_for_each_run(together):
    table = together.table(at=1)
    assert list(table.columns[:2]) == ["arm", "seed"] and len(table) == 2 * len(ARMS | HARMLESS)
    row = table[(table.arm == "none") & (table.seed == 0)].iloc[0]
    assert row["std_ratio"] == float(together.std_ratio[1, together.arms.index("none"), 1])
    assert together.steps == (0, 6, 25)


def test_r2_is_one_for_what_is_there_and_nothing_for_what_is_not():
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randn(2, 2, 400, 6, generator=generator)
    y = (x[0] @ torch.randn(6, 3, generator=generator)).double()
    found = r2(torch.stack([x[0], other[0]]), y)
    assert found[0] > 0.999 and found[1] < 0.1


def test_the_arms_of_the_micro_world_are_those_of_the_method():
    assert set(PREDICTORS) <= set(KINDS) and set(CHOICES["bn"]) == set(BN_PLACEMENTS)
    assert set(CHOICES["similarity"]) == set(SIMILARITY) and set(CHOICES["symmetry"]) == set(PAIRS)


def test_a_second_pair_of_views_shows_the_same_images_and_leaves_the_first_as_it_was():
    world = VectorWorld(content=3, style=5, images=50, jitter=0.0)
    images, mix = factors(world, 50, seed=1), mixing(world)
    fresh = lambda seed: [torch.Generator().manual_seed(seed)]  # noqa: E731
    pair = draw_views(world, images, mix, fresh(0), batch=7)
    both = draw_views(world, images, mix, fresh(0), 7, [fresh(1)])
    assert torch.equal(both[..., :14], pair)
    one, two, three, four = (both[0].mT @ mix.T).split(7)
    assert torch.allclose(one[:, :3], three[:, :3]) and torch.allclose(two[:, :3], four[:, :3])
    assert not torch.allclose(one[:, 3:], three[:, 3:])


def test_switches_refuse_runs_whose_predictors_are_mixed():
    with pytest.raises(ValueError, match="side by side"):
        Switches.of([Arm(), Arm(predictor="none"), Arm()], torch.zeros(1))


@pytest.mark.parametrize("call, error, message", [
    (lambda: Arm(predictor="linera"), ValueError, "Did you mean 'linear'"),
    (lambda: Arm(predictor_lr="fast"), ValueError, "expected one of 'constant', 'scheduled'"),
    (lambda: Arm(bn="hiden"), ValueError, "Did you mean 'hidden'"),
    (lambda: Arm(similarity="crossentropy"), ValueError, "Did you mean 'cross_entropy'"),
    (lambda: Arm(symmetry="asym"), ValueError, "Did you mean 'asymmetric'"),
    (lambda: train_arms({}), TypeError, "at least one"),
    (lambda: train_arms([Arm()]), TypeError, "expected a dict"),
    (lambda: train_arms({"a": Arm()}, seeds=0), ValueError, "seeds: got 0"),
    (lambda: train_arms({"a": Arm()}, steps=1.5), TypeError, "steps: got 1.5"),
    (lambda: train_arms({"a": Arm()}, 1, 4, setting=Setting(lr=float("inf"), points=5)), FloatingPointError, "arm 'a', seed 0 at step"),
])
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
