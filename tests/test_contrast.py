"""Repulsion's exact claims: the losses by naive loops and by another library, MoCo against its pseudocode, the toys."""
import copy
import math

import pytest
import torch
from nets import Pixels, gradients, rows, two_views
from torch import nn
from torch.nn import functional as F

from simsiam_explained.byol import BYOL, byol_loss, ema
from simsiam_explained.contrast import MoCo, SimCLR, info_nce, nt_xent, unit
from simsiam_explained.dynamics import integrate
from simsiam_explained.encoders import resnet, summary
from simsiam_explained.evidence import claims
from simsiam_explained.images import textures
from simsiam_explained.micro import Arm, Setting, VectorWorld, draw_views, encode, factors, first_weights, mixing
from simsiam_explained.named import arguments
from simsiam_explained.norms import SplitBN, split_bn
from simsiam_explained.recipe import Recipe, base
from simsiam_explained.repulsion import (Repelled, alive_limit, follow_toy, product, sample_toy, toy_gradient, toy_weights,
                                         train_repelled)
from simsiam_explained.switches import Switches
from simsiam_explained.training import fit
from simsiam_explained.views import make_views


SHAPE = dict(shape=(3, 4, 4))


def simclr(device="cpu", **switches):
    return SimCLR(Pixels(), **dict(dim=8, hidden=10) | SHAPE | switches).double().to(device)


def moco(device="cpu", **switches):
    return MoCo(Pixels(), **dict(dim=8, hidden=10, queue=64) | SHAPE | switches).double().to(device)


# ---- NT-Xent ----

def naive(z1, z2, temperature):
    """SimCLR's loss by two loops over all views: −ln of the partner's share among all but oneself."""
    z, n, total = [v / v.norm() for v in (*z1, *z2)], len(z1), 0.0
    for i in range(2 * n):
        share = sum(math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[(i + n) % (2 * n)]) / temperature) / share)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 3.0])
def test_nt_xent_is_the_naive_double_loop(device, temperature):
    z1, z2 = rows()
    assert nt_xent(torch.cat([z1, z2]).to(device), temperature=temperature).item() == pytest.approx(naive(z1, z2, temperature))


def test_nt_xent_is_the_loss_of_another_library():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    z = torch.cat(rows()).float().requires_grad_()
    theirs = losses.NTXentLoss(temperature=0.3)(z, torch.arange(6).repeat(2))
    ours = nt_xent(z, temperature=0.3)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert torch.allclose(*(torch.autograd.grad(loss, z)[0] for loss in (ours, theirs)), atol=1e-5)


def test_nt_xent_is_the_corner_of_byols_loss():
    """β = 1 there is 4 + 4τ times NT-Xent here (BYOL App. F.4), for predictions against other targets too."""
    p, t = rows()
    for temperature in (0.1, 0.5):
        assert torch.allclose(byol_loss(p, t, beta=1.0, temperature=temperature), 4 + 4 * temperature * nt_xent(p, t, temperature))
    heads = dict(dim=8, hidden=10, layers=2, bn="hidden") | SHAPE
    ours = SimCLR(Pixels(), temperature=0.2, **heads).double()
    theirs = BYOL(Pixels(), target="online", predictor="none", beta=1.0, temperature=0.2, bias_out=True, **heads).double()
    xs = two_views()
    assert torch.allclose(theirs(*xs).loss, 4 + 0.8 * ours(*xs).loss)
    a, b = gradients(ours, xs), gradients(theirs, xs)
    assert a.keys() == b.keys() and all(torch.allclose(0.8 * a[k], b[k], atol=1e-12) for k in a)


@pytest.mark.parametrize("n", [2, 256, 512])
def test_chance_is_ln_of_all_other_views(n):
    """A constant encoder cannot tell the partner from 2N − 1 views; SimCLR's chance level (6.24 at N = 256)."""
    z = torch.ones(2 * n, 8, dtype=torch.float64)
    for temperature in (0.05, 1.0):
        assert nt_xent(z, temperature=temperature).item() == pytest.approx(math.log(2 * n - 1))
    assert nt_xent(-3 * z[:, :1].expand(-1, 5)).item() == pytest.approx(math.log(2 * n - 1))


def test_a_constant_encoder_gives_chance(device):
    method = simclr(device, bn="none")
    with torch.no_grad():
        for w in method.backbone.parameters():
            w.zero_()
    assert method(*two_views(device)).loss.item() == pytest.approx(math.log(2 * 16 - 1))


def test_perfect_features_beat_chance_by_what_the_temperature_allows():
    z = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    assert nt_xent(z, temperature=0.5).item() == pytest.approx(math.log(1 + 6 * math.exp(-2)))


def test_without_unit_length_nt_xent_is_a_cross_entropy_of_products():
    """SimCLR Tab. 5's other half: each view's row of products, its own place out of the running."""
    z = torch.cat(rows())
    logits = (z @ z.T / 3.0).fill_diagonal_(-math.inf)
    by_hand = F.cross_entropy(logits, torch.arange(12).roll(6))
    assert nt_xent(z, temperature=3.0, normalise=False).item() == pytest.approx(by_hand.item())
    method, xs = simclr(normalise=False, temperature=3.0), two_views()
    out = method(*xs)
    assert out.loss.item() == pytest.approx(nt_xent(torch.cat([out.p1, out.p2]), temperature=3.0, normalise=False).item())


def test_nt_xent_takes_runs_side_by_side_each_with_its_temperature():
    many = torch.stack([torch.cat(rows(seed=s)) for s in (0, 1)])
    at = torch.tensor([0.1, 0.7], dtype=torch.float64).view(-1, 1, 1)
    one_by_one = [nt_xent(z, temperature=t) for z, t in zip(many, (0.1, 0.7))]
    assert torch.allclose(nt_xent(many, temperature=at), torch.stack(one_by_one))


def test_products_of_bfloat16_are_taken_in_float32():
    z = torch.cat(rows()).bfloat16()
    for normalise in (True, False):
        assert torch.equal(nt_xent(z, normalise=normalise), nt_xent(z.float(), normalise=normalise))


@pytest.mark.parametrize("loss, shapes, told", [
    (nt_xent, [(7, 4)], "rows: got 7, expected an even number"),
    (nt_xent, [(2, 4)], "rows: got 2, expected at least 4"),
    (nt_xent, [(8, 4), (6, 4)], r"rows: got shapes \(8, 4\) and \(6, 4\)"),
    (nt_xent, [(8,)], r"rows: got shapes \(8,\)"),
    (info_nce, [(6, 4), (5, 4)], r"rows: got shapes \(6, 4\) and \(5, 4\)"),
    (info_nce, [(5, 4), (6, 4)], r"rows: got shapes \(5, 4\) and \(6, 4\)"),
    (info_nce, [(1, 4), (1, 4)], "rows: got 1, expected at least 2")])
def test_losses_refuse_rows_without_a_partner_or_without_anybody_else(loss, shapes, told):
    with pytest.raises(ValueError, match=told):
        loss(*(torch.ones(shape) for shape in shapes))


def test_with_a_queue_one_query_is_enough():
    assert info_nce(torch.ones(1, 4), torch.ones(1, 4), 0.2, torch.ones(9, 4)).item() == pytest.approx(math.log(10))


def test_stop_gradient_holds_the_targets():
    xs = two_views()
    free, held = gradients(simclr(), xs), gradients(simclr(stop_gradient=True), xs)
    assert free.keys() == held.keys() and not torch.allclose(free["backbone.layer.weight"], held["backbone.layer.weight"])


@pytest.mark.parametrize("held", [False, True])
def test_a_predictor_asks_and_is_not_asked(device, held):
    """SimSiam §6.2: predictions against outputs, which the gradient reaches or not."""
    method = simclr(device, predictor="mlp", stop_gradient=held)
    out = method(*two_views(device))
    z = torch.cat([out.z1, out.z2])
    by_hand = nt_xent(torch.cat([out.p1, out.p2]), z.detach() if held else z, 0.1)
    assert out.loss.item() == pytest.approx(by_hand.item())
    w = method.backbone.layer.weight
    assert torch.allclose(*(torch.autograd.grad(loss, w, retain_graph=True)[0] for loss in (out.loss, by_hand)))


# ---- heads ----

def test_heads_are_the_papers():
    """SimCLR §2.1 and App. B: 2 layers, 128 outputs, BN in the head. MoCo v2: no BN, biases, 128."""
    ours = SimCLR(resnet(width=4, blocks=(1, 1), seed=0))
    assert [(r.n_in, r.n_out, r.bn, r.relu) for r in summary(ours.projector)] == [(8, 8, True, True), (8, 128, True, False)]
    theirs = MoCo(resnet(width=4, blocks=(1, 1), seed=0), queue=128)
    assert [(r.n_in, r.n_out, r.bias, r.bn, r.relu) for r in summary(theirs.projector)] == [
        (8, 8, True, False, True), (8, 128, True, False, False)]
    for method in (ours, theirs):
        assert isinstance(method.predictor, nn.Identity) and method.predictor_lr == "scheduled"
    assert (ours.temperature, theirs.temperature, theirs.tau, theirs.tau_schedule) == (0.1, 0.2, 0.999, "constant")
    whole = MoCo(Pixels(), **SHAPE)
    assert len(whole.queue) == 65_536 and not whole.symmetric and whole.bn_groups == 1


def test_directclr_sees_the_first_features_alone():
    method, xs = simclr(head="direct", d0=5), two_views()
    out = method(*xs)
    assert torch.equal(out.z1, method.backbone(xs[0])[:, :5])
    slope = gradients(method, xs)["backbone.layer.weight"]
    assert slope[:5].abs().min() > 0 and not slope[5:].any()
    assert torch.equal(simclr(head="none")(*xs).z1, method.backbone(xs[0]))
    assert [r.n_out for r in summary(simclr(head="linear").projector)] == [8]
    assert [SimCLR(Pixels(d), head="direct", **SHAPE).projector.d for d in (2048, 12)] == [360, 2]


# ---- MoCo ----

def test_info_nce_is_the_naive_loop(device):
    q, k = (unit(x) for x in rows())
    queue = unit(rows(n=9, seed=3)[0])
    total = 0.0
    for i in range(6):
        share = [math.exp(float(q[i] @ v) / 0.2) for v in (k[i], *queue)]
        total -= math.log(share[0] / sum(share))
    assert info_nce(*(x.to(device) for x in (q, k)), 0.2, queue.to(device)).item() == pytest.approx(total / 6)
    assert info_nce(q, k, 0.2).item() == pytest.approx(F.cross_entropy(q @ k.T / 0.2, torch.arange(6)).item())
    one = torch.ones(6, 1, dtype=torch.float64)
    assert info_nce(one, one, 0.07, one.new_ones(99, 1)).item() == pytest.approx(math.log(100))
    assert info_nce(one, one, 0.07).item() == pytest.approx(math.log(6))


def by_the_book(method, batches, m, temperature, lr):
    """MoCo as its pseudocode has it: queries, then the key network moves, keys, logits, step, queue in and out."""
    f_q, f_k = copy.deepcopy(method.online), copy.deepcopy(method.online)
    queue, losses = method.queue.clone(), []
    for x_q, x_k in batches:
        q = F.normalize(f_q(x_q), dim=1)
        ema(f_k, f_q, m)
        with torch.no_grad():
            k = F.normalize(f_k(x_k), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / temperature
        loss = F.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.long))
        losses.append(loss.item())
        with torch.no_grad():
            for w, g in zip(f_q.parameters(), torch.autograd.grad(loss, list(f_q.parameters()))):
                w -= lr * g
        queue = torch.cat([queue, k])[len(k):]
    return losses, queue, f_q, f_k


@pytest.mark.parametrize("m", [0.0, 0.7])
def test_moco_is_its_pseudocode(device, m):
    """Order of a step: queries → EMA → keys → logits → enqueue; six steps through a queue of four batches."""
    method, batches = moco(device, m=m, temperature=0.3), [two_views(device, seed=s) for s in range(6)]
    losses, queue, f_q, f_k = by_the_book(method, batches, m, 0.3, 0.5)
    for step, xs in enumerate(batches):
        out = method(*xs)
        assert out.loss.item() == pytest.approx(losses[step], abs=1e-12)
        grads = torch.autograd.grad(out.loss, list(method.online.parameters()))
        with torch.no_grad():
            for w, g in zip(method.online.parameters(), grads):
                w -= 0.5 * g
        method.after_step(step, 6)
    assert all(torch.allclose(a, b) for a, b in zip(method.online.parameters(), f_q.parameters()))
    oldest_first = method.queue.roll(-(6 * 16 % 64), 0)
    assert torch.allclose(oldest_first, queue)


def test_the_queue_goes_round(device):
    method, kept = moco(device, queue=48), []
    start = method.queue.clone()
    assert torch.allclose(start.norm(dim=1), start.new_ones(48))
    for step in range(5):
        method(*two_views(device, seed=step))
        kept.append(method._fresh)
        method.after_step(step, 9)
        new = method.queue.split(16)
        expected = [next((kept[s] for s in range(step, -1, -1) if s % 3 == part), start[16 * part:16 * part + 16]) for part in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(new, expected)), step


def test_no_gradient_reaches_keys_or_queue(device):
    method, xs = moco(device), two_views(device)
    xs = [x.requires_grad_() for x in xs]
    method(*xs).loss.backward()
    assert all(w.grad is None for w in method.target.parameters()) and not method.queue.requires_grad
    assert xs[0].grad.abs().sum() > 0 and xs[1].grad is None
    ids = {id(w) for group in method.param_groups() for w in group["params"]}
    assert ids == {id(w) for w in method.online.parameters()}


def test_a_constant_encoder_gives_mocos_chance():
    for queue, chance in ((64, math.log(65)), (0, math.log(16))):
        method = moco(queue=queue)
        with torch.no_grad():
            for w in [*method.online.parameters(), *method.target.parameters()]:
                w.zero_()
            method.projector[-1].bias.fill_(1.0), method.target[1][-1].bias.fill_(1.0)
            method.queue.fill_(8**-0.5)
        assert method(*two_views()).loss.item() == pytest.approx(chance)


def test_the_symmetric_loss_adds_both_directions(device):
    xs = two_views(device)
    both, one, other = moco(device, symmetric=True)(*xs), moco(device)(*xs), moco(device)(*xs[::-1])
    assert both.loss.item() == pytest.approx(one.loss.item() + other.loss.item())
    assert one.p2 is None and both.p2 is both.z2
    method = moco(device, symmetric=True)
    method(*xs), method.after_step(0, 4)
    assert torch.equal(method.queue[:32], torch.cat([method.keys(xs[1]), method.keys(xs[0])]))


def test_without_a_queue_the_negatives_are_the_other_keys():
    method, xs = moco(queue=0), two_views()
    with torch.no_grad():
        q, k = unit(method.online(xs[0])), unit(method.target(xs[1]))
    assert method(*xs).loss.item() == pytest.approx(info_nce(q, k, 0.2).item())
    method.after_step(0, 4)
    assert len(method.queue) == 0


def test_what_moco_sets_itself_is_no_argument_of_it():
    """Its parents take tau and the others; a recipe neither lists nor takes them, but for a record's unchanged ones."""
    settled = {"tau": 0.996, "tau_schedule": "cosine", "target": "ema", "bias_out": False}      # as older records have it
    assert not settled.keys() & arguments("parts", "contrast.MoCo").keys()
    for name, value in {"tau": 0.5, "tau_schedule": "constant", "target": "copy", "bias_out": True}.items():
        with pytest.raises(TypeError, match=f"MoCo: {name!r} is set by the class itself.*(m|bias)"):
            moco(**{name: value})
        with pytest.raises(TypeError, match=f"MoCo: {name!r} is set by the class itself"):
            Recipe(method="contrast.MoCo", parts={name: value})
    plain = Recipe(method="contrast.MoCo", parts={"m": 0.5})
    assert Recipe(method="contrast.MoCo", parts={"m": 0.5} | settled).key == plain.key == plain.but(parts={"m": 0.5}).key
    with pytest.raises(TypeError, match="'tau' is set by the class itself: use m"):
        plain.but(tau=0.5)
    assert arguments("parts", "byol.BYOL").keys() > settled.keys() < arguments("parts", "codes.DINO").keys()


# ---- split BN ----

def test_split_bn_is_bn_for_each_part(device):
    x = torch.randn(24, 5, 3, 3, generator=torch.Generator().manual_seed(0)).to(device)
    whole, alone = nn.BatchNorm2d(5).to(device), [nn.BatchNorm2d(5).to(device) for _ in range(4)]
    split = SplitBN(copy.deepcopy(whole), 4)
    assert torch.allclose(split(x), torch.cat([bn(part) for bn, part in zip(alone, x.split(6))]), atol=1e-6)
    assert not torch.allclose(split(x), whole(x), atol=1e-2)
    assert torch.equal(split.eval()(x), split.bn(x))
    net = split_bn(resnet(width=4, blocks=(1,), channels=1), 2)
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert layers and len(layers) == sum(isinstance(m, SplitBN) for m in net.modules())
    with pytest.raises(ValueError, match="bn_groups: got 4, which does not divide a batch of 10"):
        split.train()(x[:10])


def test_a_key_is_computed_among_other_images_than_its_query(device):
    """Shuffled: key i has the statistics of part i mod g; not shuffled: those of its query's part."""
    def net(**how):
        method = MoCo(nn.Sequential(Pixels(), nn.BatchNorm1d(12)), dim=8, queue=0, bn_groups=2, **SHAPE, **how)
        return method.double().to(device)
    x = two_views(device)[1]
    for method, members in ((net(shuffle=False), [0, 1, 2, 3, 4, 5, 6, 7]), (net(), [4, 12, 5, 13, 6, 14, 7, 15])):
        plain = copy.deepcopy(method.target)
        for module in plain.modules():
            if isinstance(module, SplitBN):
                module.groups = 1
        with torch.no_grad():
            assert torch.allclose(method.keys(x)[members], unit(plain(x[members])))
    assert not torch.allclose(net().keys(x), net(shuffle=False).keys(x))


# ---- in the loop ----

def tiny(**switches):
    return MoCo(resnet(width=4, blocks=(1, 1), stem="stride2", channels=1, seed=0), dim=8, queue=96, m=0.9, shape=(1, 12, 12), **switches)


def train(method, device="cpu", **kwargs):
    return fit(method, textures(128, 12, seed=0), make_views("textures"), steps=6, batch=32, base_lr=0.2, every=2,
               progress=False, device=device, autocast="float32", **kwargs)


@pytest.mark.parametrize("switches", [{}, {"bn_groups": 4}])
def test_a_run_that_stops_and_goes_on_has_the_same_bits(switches, tmp_path, device):
    path, run = str(tmp_path / "run.pt"), train(tiny(**switches), device)
    whole = run.method.state_dict()
    assert "queue" in whole and any(name.startswith("target.") for name in whole)
    assert train(tiny(**switches), device, checkpoint=path, save_every=2, limit=1e-6).status == "stopped"
    again = train(tiny(**switches), device, resume=path)
    assert again.curve("loss")[1] == pytest.approx(run.curve("loss")[1], abs=1e-3)
    resumed = again.method.state_dict()          # a GPU adds in any order
    assert device.type == "cuda" or all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("changes", [
    {"method": "contrast.SimCLR", "head": "direct", "d0": 16}, {"method": "contrast.SimCLR", "predictor": "mlp"},
    {"method": "contrast.MoCo", "queue": 512, "symmetric": True, "bn_groups": 2}])
def test_every_arm_is_a_recipe(changes):
    recipe = base("small").but(parts={}, **changes)
    method = recipe.build(seed=1)
    x = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(method(*x).loss) and changes["method"] in str(recipe)


@pytest.mark.parametrize("make, switches, message", [
    (moco, {"queue": 60, "batch": 16}, "queue: got 60, expected a multiple of the 16 keys of a step"),
    (moco, {"queue": 48, "batch": 16, "symmetric": True}, "queue: got 48, expected a multiple of the 32 keys"),
    (moco, {"queue": -1}, "queue: got -1"),
    (moco, {"m": 1.5}, "m: got 1.5, expected a number from 0 to 1"),
    (moco, {"temperature": 0}, "temperature: got 0, expected"),
    (moco, {"bn_groups": 0}, "bn_groups: got 0"),
    (simclr, {"temperature": math.inf}, "temperature: got inf"),
    (simclr, {"head": "line"}, "head: got 'line'.*Did you mean 'linear'"),
    (simclr, {"head": "direct", "d0": 13}, "d0: got 13, expected at most the backbone's 12"),
    (simclr, {"predictor": "mpl"}, "predictor: got 'mpl'"),
])
def test_refusals(make, switches, message):
    with pytest.raises(ValueError, match=message):
        make(**switches)


def test_more_refusals():
    with pytest.raises(TypeError, match="symmetric: got 1, expected True or False"):
        moco(symmetric=1)
    with pytest.raises(TypeError, match="stop_gradient: got 'yes'"):
        simclr(stop_gradient="yes")
    method = moco(queue=40)
    method(*two_views())
    with pytest.raises(ValueError, match="queue: got 40, expected a multiple of the 16"):
        method.after_step(0, 4)
    with pytest.raises(ValueError, match="views: got 1"):
        simclr()(two_views()[0])


# ---- the claims ----

@pytest.mark.parametrize("scale", ["small", "full"])
def test_the_low_temperature_of_the_claim_is_trained_as_if_the_loss_were_multiplied_by_it(scale):
    """Twice the loss is twice the rate and half the decay (byol-17); the high one differs in τ alone."""
    our, low, high = claims([f"relatives-1-tau-{scale}"])[f"relatives-1-tau-{scale}"].recipes(scale).values()
    tau = dict(our.parts)["temperature"]
    assert dict(low.parts)["temperature"] == 0.05 < tau < 1 and high == our.but(temperature=1.0)
    k = 0.05 / tau
    assert (low.base_lr, low.weight_decay) == pytest.approx((k * our.base_lr, our.weight_decay / k))
    assert low.but(temperature=tau, base_lr=our.base_lr, weight_decay=our.weight_decay) == our


@pytest.mark.parametrize("name", ["relatives-3", "relatives-3-queue", "relatives-3-ladder"])
def test_the_key_networks_of_the_claim_differ_in_m_and_queue_alone(name):
    recipes = claims([name])[name].recipes("full")
    assert len({r.but(m=0.5, queue=512) for r in recipes.values()}) == 1 < len(recipes)


# ---- the toys of Jing et al. ----

HALF = torch.arange(16) >= 8


def noisy(k):
    return k * HALF.double()


def test_toy_gradients_are_those_of_infonce_in_a_large_batch():
    """Sampled, for a small map, where 1,000 negatives are nearly infinitely many."""
    g, P = torch.Generator().manual_seed(0), 0.12 * rows(4, 4)[0]
    noise = torch.tensor([0.0, 0.0, 0.8, 1.5], dtype=torch.float64)
    slopes = {"distances": 0.0, "products": 0.0}
    for _ in range(30):
        x, e1, e2 = torch.randn(3, 1000, 4, generator=g, dtype=torch.float64)
        for kind in slopes:
            W = P.clone().requires_grad_()
            z, z1, z2 = x @ W.T, (x + noise * e1) @ W.T, (x + noise * e2) @ W.T
            if kind == "products":
                loss = info_nce(z1, z2, 1.0)
            else:
                far = z @ z.T - z.square().sum(1) / 2 - z.square().sum(1, keepdim=True) / 2
                loss = far.logsumexp(1).mean() + (z - z2).square().sum(1).mean() / 2
            slopes[kind] = slopes[kind] + torch.autograd.grad(loss, W)[0] / 30
    for kind, sampled in slopes.items():
        exact = toy_gradient(P, noise, kind, temperature=1.0)
        assert (sampled - exact).norm() < 0.04 * exact.norm(), kind


def test_above_root_two_the_augmented_directions_vanish_and_only_they():
    """Theorem 1's model: the mode's growth is 2 − σ², so σ = √2 parts the amplitudes that leave it alive."""
    seeds = range(10)
    for k in (1.0, 1.35, 1.45, 2.0):
        P = follow_toy(toy_weights(seeds), noisy(k), "distances", 2500, 0.1, points=2)[1][-1]
        clean, augmented = P[..., ~HALF], P[..., HALF]
        assert torch.linalg.svdvals(clean).min() > 5
        found = torch.linalg.svdvals(augmented)
        if k > 2**0.5:
            assert found.max() < 1e-3 and alive_limit(k, "distances") == 0
        else:
            assert (found / alive_limit(k, "distances") - 1).abs().max() < 0.02
    slope = toy_gradient(1e-6 * torch.eye(16, dtype=torch.float64), noisy(1.7), "distances").diagonal()
    assert torch.allclose(slope, 1e-6 * (noisy(1.7)**2 - 2), rtol=1e-6)


def test_with_products_nothing_vanishes():
    """The authors' code: every mode rests at √τ/(1 + σ²), which is small for strong noise and never 0."""
    start = [0.3 * toy_weights(range(10))[0]]        # larger ones overshoot at this rate
    for k in (0.5, 1.5, 2.0):
        P = follow_toy(start, noisy(k), "products", 6000, 0.001, points=2)[1][-1]
        for part, noise in ((~HALF, 0.0), (HALF, k)):
            assert (torch.linalg.svdvals(P[..., part]) / alive_limit(noise, "products") - 1).abs().max() < 0.02


def test_the_rank_falls_with_depth_and_one_layer_keeps_all():
    """The authors' second toy: singular values exp(−0.35 k), noise 0.001, rate 0.01, 10,000 steps."""
    alive = {}
    for layers in (1, 2, 3):
        P = follow_toy(toy_weights(range(10), layers, decay=0.35), torch.full((16,), 1e-3), "products", 10_000, 0.01, points=2)[1][-1]
        alive[layers] = (torch.linalg.svdvals(P) > 0.5 * alive_limit(0.001, "products")).sum(-1)
    assert (alive[1] == 16).all() and (alive[2] < 16).all() and (alive[3] < alive[2]).all(), alive


def test_a_step_of_the_toy_is_gradient_descent_on_every_layer():
    weights = [w.requires_grad_() for w in toy_weights([0], 3, decay=0.35)]
    P = product(weights)
    loss = (-(P * P).sum() + ((P @ P.mT)**2).sum() / 0.2) / 0.1
    slopes = torch.autograd.grad(loss, weights)
    after = product([w.detach() - 0.01 * g for w, g in zip(weights, slopes)])
    moved = follow_toy([w.detach() for w in weights], torch.zeros(16), "products", 1, 0.01, points=2)[1][-1]
    assert torch.allclose(after, moved, atol=1e-12)
    flow = integrate(lambda x: -toy_gradient(x, torch.zeros(16), "products"), toy_weights([1])[0], 10.0, 1000)[-1]
    assert torch.allclose(torch.linalg.svdvals(flow), torch.full((16,), 0.1**0.5, dtype=torch.float64), atol=1e-6)


def test_sampled_batches_show_the_same_order():
    """A batch of 128 in place of infinitely many negatives: larger values, the same order, and none at 0."""
    found = torch.linalg.svdvals(sample_toy([0, 1], torch.stack([noisy(k) for k in (0.0, 1.5)]), steps=300, lr=0.01)[..., HALF])
    assert found[0].min() > 0.35 and 0.05 < found[1].min() and found[1].max() < 0.2


# ---- the vector world ----

def test_repelled_arms_share_their_start_and_are_trained_alike_alone_and_together():
    arms = {f"{t}": Repelled(temperature=t) for t in (0.1, 0.5)}
    both = train_repelled(arms, [3, 4], steps=8)
    alone = train_repelled({"0.5": arms["0.5"]}, [4], steps=8)["0.5"]
    assert torch.allclose(both["0.5"].loss[:, 1], alone.loss[:, 0], atol=1e-4)
    assert torch.allclose(both["0.1"].content[0], both["0.5"].content[0])
    assert both["0.1"].features.shape == (2, 32) and both["0.1"].loss.shape[1] == 2


@pytest.mark.parametrize("arm", [Repelled(head="linear", m=0.9, queue=64), Repelled(normalise=False, temperature=10.0),
                                 Repelled(predictor="mlp", stop_gradient=True), Repelled(m=0.0)])
def test_every_way_to_repel_trains(arm):
    run = train_repelled({"it": arm}, [0], steps=4)["it"]
    assert all(torch.isfinite(getattr(run, name)).all() for name in ("loss", "found", "uniform", "content", "z_content"))
    assert run.z.shape[-1] == 32


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_a_vector_arm_begins_at_simclrs_loss_of_that_head(head):
    world, setting = VectorWorld(), Setting(batch=32)
    weights = {k: w[None].float() for k, w in first_weights(world.size, setting.width, setting.dim, 3).items()}
    images, mix = factors(world, world.images, world.seed + 1).float(), mixing(world).float()
    x = draw_views(world, images, mix, [torch.Generator().manual_seed(10_003)], 32)
    y, z = encode(weights, x, Switches.of([Arm()], x))
    by_hand = nt_xent((z if head == "mlp" else weights["g2"] @ y).mT, temperature=0.3)
    run = train_repelled({"it": Repelled(temperature=0.3, head=head)}, [3], steps=1, world=world, setting=setting)["it"]
    assert torch.allclose(run.loss[0], by_hand, atol=1e-5)


def test_the_key_network_of_the_vector_world_follows():
    still, copied = (train_repelled({"it": Repelled(m=m)}, [0], steps=6)["it"].loss for m in (1.0, 0.0))
    assert torch.allclose(still[0], copied[0]) and not torch.allclose(still[-1], copied[-1], atol=1e-3)


def test_the_queue_of_the_vector_world_fills_with_keys():
    """At a rate of 0 yesterday's keys are like today's, while the random start of the queue is not."""
    still = Setting(batch=32, lr=0.0, points=3)
    clock = train_repelled({"it": Repelled(m=0.5, queue=64, head="linear")}, [0, 1], steps=8, setting=still)["it"].clock
    assert (clock[0] > 0.15).all() and (clock[-1].abs() < 0.05).all()
    assert train_repelled({"it": Repelled(m=0.5)}, [0], steps=2, setting=still)["it"].clock.isnan().all()


@pytest.mark.parametrize("arm, message", [({"head": "lin"}, "head: got 'lin'"), ({"predictor": "linear"}, "predictor: got 'linear'")])
def test_vector_refusals(arm, message):
    with pytest.raises(ValueError, match=message):
        Repelled(**arm)


def test_split_bn_is_put_into_a_copy_of_the_backbone():
    net = resnet(width=4, blocks=(1,), channels=1, seed=0)
    before = str(net)
    method = MoCo(net, bn_groups=2, queue=0, dim=8)
    assert str(net) == before != str(method.backbone) and MoCo(net, queue=0, dim=8).backbone is net
