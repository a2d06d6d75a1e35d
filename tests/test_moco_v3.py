"""MoCo v3's exact claims: loss, keys, heads, momentum encoder; and the tools that look for instability."""
import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simsiam_explained.byol import BYOL, byol_loss, tau_at
from simsiam_explained.encoders import resnet, summary
from simsiam_explained.evidence import Between, Claim
from simsiam_explained.images import from_tensor
from simsiam_explained.micro import Setting
from simsiam_explained.probes import knn
from simsiam_explained.moco_v3 import CLAIMS, MoCoV3, clip_gradients, ctr, dips, gathered, lead, spikes, stability
from simsiam_explained.temperatures import contrast, rates_by_temperature
from simsiam_explained.training import fit
from simsiam_explained.views import make_views
from simsiam_explained.vit import vit
from simsiam_explained.watch import first_layer, watch


class Flat(nn.Module):
    """A backbone of one linear layer: (B, 1, 4, 4) → (B, 6)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 6)

    def forward(self, x):
        return self.layer(x.flatten(1))


def small(device="cpu", backbone=None, **switches):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = Flat() if backbone is None else backbone
    given = {"dim": 5, "hidden": 8, "shape": (1, 4, 4)} | switches
    return MoCoV3(net, **given).to(device).double()


def two_views(device="cpu", batch=16, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 1, 4, 4, generator=g, dtype=torch.float64).to(device) for _ in range(2)]


def rows(n=12, d=5, seed=0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=g, dtype=torch.float64).to(device) for _ in range(2)]


# ---- the loss ----

def naive(q, k, tau):
    """InfoNCE of lists of lists, in plain Python numbers."""
    def unit(v):
        size = math.sqrt(sum(x * x for x in v))
        return [x / size for x in v]

    q, k, total = [unit(v) for v in q], [unit(v) for v in k], 0.0
    for i, a in enumerate(q):
        e = [math.exp(sum(x * y for x, y in zip(a, b)) / tau) for b in k]
        total -= math.log(e[i] / sum(e))
    return total / len(q)


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_the_loss_equals_a_naive_loop(device, tau):
    q, k = rows(device=device)
    expected = naive(q.tolist(), k.tolist(), tau)
    assert float(ctr(q, k, tau, scaled=False)) == pytest.approx(expected, abs=1e-12)
    assert float(ctr(q, k, tau)) == pytest.approx(2 * tau * expected, abs=1e-12)


def test_the_loss_is_that_of_another_library():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    (q, k), own = rows(), torch.arange(12)
    q.requires_grad_()
    theirs = losses.NTXentLoss(temperature=0.3)(q, own, ref_emb=k, ref_labels=own.clone())     # one positive, 11 negatives
    ours = ctr(q, k, 0.3, scaled=False)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-10)
    assert torch.allclose(*(torch.autograd.grad(loss, q)[0] for loss in (ours, theirs)), atol=1e-10)


@pytest.mark.parametrize("heads", ["vit", "resnet"])
def test_a_step_is_both_views_asking_the_others_keys(device, heads):
    method, (x1, x2) = small(device, made_for=heads), two_views(device)
    with torch.no_grad():
        out, k1, k2 = method(x1, x2), method.target(x1), method.target(x2)
        q1, q2 = (method.predictor(method.projector(method.backbone(x))) for x in (x1, x2))
    assert torch.allclose(out.p1, q1) and torch.allclose(out.p2, q2)
    assert torch.allclose(out.z1, method.projector(method.backbone(x1)))
    both = 2 * 0.2 * (naive(q1.tolist(), k2.tolist(), 0.2) + naive(q2.tolist(), k1.tolist(), 0.2))
    assert float(out.loss) == pytest.approx(both, abs=1e-12)


def test_one_direction_is_the_first_view_asking():
    method, (x1, x2) = small(symmetric=False), two_views()
    with torch.no_grad():
        out, k2 = method(x1, x2), method.target(x2)
    assert float(out.loss) == pytest.approx(float(ctr(out.p1, k2)), abs=1e-12)
    assert torch.allclose(out.z2, k2) and out.p2 is None


def test_one_direction_takes_each_view_through_one_net():
    method, views, taken = small(symmetric=False), two_views(), []
    for net in (method.backbone, method.target):
        net.register_forward_hook(lambda net, given, _: taken.append((net, given[0])))
    method(*views)
    assert [net for net, _ in taken] == [method.backbone, method.target]
    assert taken[0][1] is views[0] and taken[1][1] is views[1]


@pytest.mark.parametrize("n, tau", [(8, 0.2), (64, 0.2), (64, 1.0)])
def test_the_loss_at_chance_is_4_tau_ln_n(n, tau):
    """All outputs equal: what a network shows that has collapsed."""
    one = torch.ones(n, 5, dtype=torch.float64)
    assert float(ctr(one, one, tau) + ctr(one, one, tau)) == pytest.approx(4 * tau * math.log(n), abs=1e-12)


def test_the_papers_values_at_chance_and_at_best():
    for n, expected in ((4096, 6.65), (512, 4.99), (256, 4.44)):  # all outputs equal
        assert 2 * float(ctr(torch.ones(n, 1), torch.ones(n, 1))) == pytest.approx(expected, abs=5e-3)
    for n, expected in ((512, 1.19), (256, 0.80)):                # positives equal, all others at right angles
        eye = torch.eye(n, dtype=torch.float64)
        assert 2 * float(ctr(eye, eye)) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0, 5.0])
def test_2_tau_infonce_plus_2_cos_is_2_tau_logsumexp(tau):
    q, k = rows()
    cos = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T
    left = ctr(q, k, tau) + 2 * cos.diagonal().mean()
    assert float(left) == pytest.approx(float(2 * tau * (cos / tau).logsumexp(1).mean()), abs=1e-12)


@pytest.mark.parametrize("tau", [0.1, 0.2, 0.5, 1.0])
def test_with_2_tau_the_pull_to_the_positive_is_byols_at_every_temperature(tau):
    """The gradient less that of the negatives is that of BYOL's 2 − 2·cos; without 2τ all of it is 1/2τ as large."""
    q, k = rows()
    q.requires_grad_()
    byol = torch.autograd.grad((2 - 2 * F.cosine_similarity(q, k)).mean(), q)[0]
    among = 2 * tau * ((F.normalize(q, dim=1) @ F.normalize(k, dim=1).T) / tau).logsumexp(1).mean()
    push = torch.autograd.grad(among, q)[0]
    ours, plain = (torch.autograd.grad(ctr(q, k, tau, scaled=s), q)[0] for s in (True, False))
    assert torch.allclose(ours - push, byol, atol=1e-12)
    assert torch.allclose(2 * tau * plain, ours, atol=1e-12)
    pair = byol_loss(torch.cat([q, k]), torch.cat([q.detach(), k]))     # BYOL's own function, one direction of it
    assert torch.allclose(torch.autograd.grad(pair, q)[0], byol, atol=1e-12)


def test_the_loss_refuses_nothing_it_cannot_tell_and_does_not_depend_on_lengths():
    q, k = rows()
    assert float(ctr(3 * q, 0.1 * k)) == pytest.approx(float(ctr(q, k)), abs=1e-12)
    assert float(ctr(q, k)) != pytest.approx(float(ctr(k, q)), abs=1e-6)       # who asks matters


@pytest.mark.parametrize("queries, keys, told", [
    (6, 5, r"got shapes \(6, 4\) and \(5, 4\)"), (5, 6, r"got shapes \(5, 4\) and \(6, 4\)"), (1, 1, "got 1, expected at least 2")])
def test_the_loss_refuses_queries_without_a_key_and_one_image_alone(queries, keys, told):
    with pytest.raises(ValueError, match=f"rows: {told}"):
        ctr(torch.ones(queries, 4), torch.ones(keys, 4))


# ---- keys ----

def test_no_gradient_reaches_the_keys(device):
    q, k = rows(device=device)
    q.requires_grad_(), k.requires_grad_()
    ctr(q, k).backward()
    assert k.grad is None and q.grad.abs().sum() > 0
    method = small(device)
    method(*two_views(device)).loss.backward()
    assert all(w.grad is None and not w.requires_grad for w in method.target.parameters())
    assert all(w.grad is not None for part in (method.backbone, method.projector, method.predictor)
               for w in part.parameters())
    held = {id(w) for group in method.param_groups() for w in group["params"]}
    assert held == {id(w) for w in method.parameters() if w.requires_grad}


def test_alone_the_keys_are_those_of_the_batch():
    k = torch.randn(3, 2)
    assert gathered(k)[0] is k and gathered(k)[1] == 0


TWO = '''
import os, sys, torch, torch.distributed as dist
from simsiam_explained.moco_v3 import ctr, gathered
rank, store = int(os.fork() == 0), sys.argv[1]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
g = torch.Generator().manual_seed(0)
q, k = torch.randn(2, 8, 5, generator=g, dtype=torch.float64)
mine = slice(4 * rank, 4 * rank + 4)
part = q[mine].clone().requires_grad_()
keys, first = gathered(k[mine])
assert torch.equal(keys, k) and first == 4 * rank, first
loss = ctr(part, k[mine])
(grad,) = torch.autograd.grad(loss, part)
mean = loss.detach().clone()
dist.all_reduce(mean)
dist.destroy_process_group()                 # from here on each process is alone again
whole = q.clone().requires_grad_()
alone = ctr(whole, k)
assert abs(mean / 2 - alone.detach()) < 1e-12, (mean / 2, alone)
assert torch.allclose(grad / 2, torch.autograd.grad(alone, whole)[0][mine], atol=1e-12)
if rank: os._exit(0)
assert os.wait()[1] == 0
print("both agree")
'''


def test_two_processes_see_each_others_keys_and_share_one_loss(tmp_path):
    command = [sys.executable, "-c", TWO, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "both agree\n", done.stderr[-2000:]


# ---- the momentum encoder ----

def moved(method, step=3, steps=10):
    """Add 1 to every online weight, as an optimiser would, and let the target follow."""
    before = [w.clone() for w in method.target.parameters()]
    with torch.no_grad():
        for part in (method.backbone, method.projector, method.predictor):
            for w in part.parameters():
                w.add_(1.0)
    method.after_step(step, steps)
    return before, list(method.target.parameters()), list(method.online.parameters())


def test_the_momentum_encoder_starts_as_a_copy_and_has_no_predictor():
    method = small()
    theirs, ours = list(method.target.parameters()), list(method.online.parameters())
    assert len(theirs) == len(ours) and all(torch.equal(a, b) and a is not b for a, b in zip(theirs, ours))
    shapes = {tuple(w.shape) for w in method.target.parameters()}
    assert (8, 5) in {tuple(w.shape) for w in method.predictor.parameters()} - shapes


def test_m_0_is_the_online_encoder_and_m_1_stays():
    _, now, online = moved(small(m=0.0, m_schedule="constant"))
    assert all(torch.equal(a, b) for a, b in zip(now, online))
    before, now, _ = moved(small(m=1.0))
    assert all(torch.equal(a, b) for a, b in zip(before, now))


def test_with_m_0_the_keys_are_simsiams_detached_outputs(device):
    method, (x1, x2) = small(device, m=0.0, m_schedule="constant"), two_views(device)
    optimiser = torch.optim.SGD(method.param_groups(), 0.1)
    for step in range(3):
        optimiser.zero_grad()
        method(x1, x2).loss.backward()
        optimiser.step()
        method.after_step(step, 3)
    out = method(x1, x2)
    expected = ctr(out.p1, out.z2.detach()) + ctr(out.p2, out.z1.detach())
    assert float(out.loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_target_moves_by_1_minus_m_of_its_step(schedule):
    before, now, online = moved(small(m=0.9, m_schedule=schedule), step=3)
    m = 1 - 0.5 * (1 + math.cos(math.pi * 0.3)) * 0.1 if schedule == "cosine" else 0.9
    assert all(torch.allclose(b, m * a + (1 - m) * o, atol=1e-12) for a, b, o in zip(before, now, online))


def test_the_momentum_rises_from_m_to_1_in_half_a_cosine():
    path = [tau_at(step, 100, 0.99) for step in (0, 50, 100)]
    assert path == [pytest.approx(0.99), pytest.approx(0.995), 1.0]


def test_the_order_of_a_step_is_forward_optimiser_average():
    """Alg. 1: the keys of step 2 come from an encoder that has seen step 1's update once."""
    method, (x1, x2) = small(m=0.5, m_schedule="constant"), two_views()
    first = method.backbone.layer.weight.detach().clone()
    optimiser = torch.optim.SGD(method.param_groups(), lr=0.1)
    method(x1, x2).loss.backward()
    assert torch.equal(method.target[0].layer.weight, first)
    optimiser.step()
    method.after_step(0, 10)
    assert torch.allclose(method.target[0].layer.weight, 0.5 * (first + method.backbone.layer.weight), atol=1e-12)


# ---- heads ----

def table(head):
    return [(r.n_out, r.bias, r.bn, r.affine, r.relu) for r in summary(head)]


def test_heads_for_a_vit_are_the_official_ones():
    method = MoCoV3(Flat(), shape=(1, 4, 4))
    hidden, out = (4096, False, True, True, True), (256, False, True, False, False)
    assert table(method.projector) == [hidden, hidden, out] and table(method.predictor) == [hidden, out]
    assert (method.temperature, method.m, method.m_schedule) == (0.2, 0.99, "cosine")
    assert method.scaled and method.symmetric and method.clip is None


def test_heads_for_a_resnet_are_the_official_ones():
    method = MoCoV3(resnet(4, (1,), seed=0), made_for="resnet", temperature=1.0)
    hidden, out = (4096, False, True, True, True), (256, False, True, False, False)
    assert table(method.projector) == [hidden, out]
    assert table(method.predictor) == [hidden, (256, False, False, False, False)]


def test_switches_of_the_heads():
    method = small(bn=False, predictor="none")
    assert table(method.projector) == [(8, True, False, False, True)] * 2 + [(5, False, False, False, False)]
    assert isinstance(method.predictor, nn.Identity)
    out = method(*two_views())
    assert torch.equal(out.p1, out.z1) and torch.isfinite(out.loss)
    names = [len(group["params"]) for group in method.param_groups()]
    assert sum(names) == 7 and all(not group["constant_lr"] for group in method.param_groups())


def test_the_seed_is_of_the_heads_first_weights():
    a, b, c = small(seed=1), small(seed=1), small(seed=2)
    assert torch.equal(a.projector.fc1.weight, b.projector.fc1.weight)
    assert not torch.equal(a.projector.fc1.weight, c.projector.fc1.weight)


@pytest.mark.parametrize("given, error, said", [
    ({"made_for": "vits"}, ValueError, "vit"), ({"predictor": "linear"}, ValueError, "mlp"),
    ({"m": 1.5}, ValueError, "m: got 1.5"), ({"m": True}, ValueError, "m: got True"), ({"m": math.nan}, ValueError, "nan"),
    ({"temperature": 0}, ValueError, "temperature"), ({"bn": "all"}, TypeError, "bn: got"),
    ({"scaled": 1}, TypeError, "scaled"), ({"symmetric": None}, TypeError, "symmetric"),
    ({"clip": 0}, ValueError, "limit"), ({"m_schedule": "linear"}, ValueError, "cosine"),
])
def test_what_cannot_be_is_refused(given, error, said):
    with pytest.raises(error, match=said):
        small(**given)


def test_views_are_checked():
    with pytest.raises(ValueError, match="expects 2"):
        small()(two_views()[0])


# ---- the cures ----

def test_the_first_layer_is_the_patch_projection_or_the_stem():
    net = vit(shape=(1, 8, 8), width=8, depth=1, heads=2, seed=0)
    assert first_layer(net) is net.stem.projection[0]
    assert first_layer(resnet(4, (1,), channels=1, seed=0)).in_channels == 1
    with pytest.raises(ValueError, match="no convolution"):
        first_layer(nn.ReLU())


def test_a_clipped_gradient_keeps_its_direction_and_gets_the_length(device):
    plain, method, xs = small(device), small(device), two_views(device)
    handles = clip_gradients(first_layer(method.backbone), 1e-3)
    for one in (plain, method):
        one(*xs).loss.backward()
    free, cut = plain.backbone.layer.weight.grad, method.backbone.layer.weight.grad
    assert float(free.norm()) > 1e-3 and float(cut.norm()) == pytest.approx(1e-3)
    assert torch.allclose(cut / cut.norm(), free / free.norm(), atol=1e-12)
    assert torch.equal(method.projector.fc1.weight.grad, plain.projector.fc1.weight.grad)
    for handle in handles:
        handle.remove()
    method.zero_grad()
    method(*xs).loss.backward()
    assert torch.allclose(method.backbone.layer.weight.grad, free, atol=1e-12)


def test_a_gradient_below_the_limit_is_left_alone():
    plain, method = small(), small(clip=1e6)
    for one in (plain, method):
        one(*two_views()).loss.backward()
    assert torch.equal(method.backbone.layer.weight.grad, plain.backbone.layer.weight.grad)


def test_clipping_goes_with_the_recipe_and_with_other_methods():
    plain, cut = small(), small(clip=1e-3)
    for one in (plain, cut):
        one(*two_views()).loss.backward()
    assert float(cut.backbone.layer.weight.grad.norm()) == pytest.approx(1e-3)
    other = BYOL(Flat(), dim=5, hidden=8, predictor_hidden=8, shape=(1, 4, 4)).double()
    clip_gradients(first_layer(other.backbone), 1e-3)
    other(*two_views()).loss.backward()
    assert float(other.backbone.layer.weight.grad.norm()) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="limit: got -1"):
        clip_gradients(first_layer(plain.backbone), -1)


# ---- detectors, on made series ----

def test_spikes_are_found_where_they_were_put():
    g = torch.Generator().manual_seed(0)
    level = torch.linspace(1, 3, 300) * (1 + 0.1 * torch.randn(300, generator=g))
    assert spikes(level) == []
    level[[60, 150, 151, 152, 220]] *= 8
    assert spikes(level) == [60, 150, 220]                # three steps above are one spike, which begins once
    assert spikes(10 * level) == [60, 150, 220]           # of its own level
    assert spikes(level, factor=20) == []
    assert spikes(level.tolist()) == [60, 150, 220]


def test_a_step_to_a_new_level_is_one_spike_and_a_slow_rise_is_none():
    assert spikes([1.0] * 100 + [10.0] * 100) == [100]
    assert spikes([1.02 ** i for i in range(300)]) == []
    assert spikes([1.0] * 9 + [10.0] + [1.0] * 20) == []  # no level is known yet
    assert spikes([1.0] * 10 + [10.0]) == [10] and spikes([]) == []


def test_the_level_is_the_median_of_fifty_steps():
    """25 ones and 25 twos: one step more or less would make it 2."""
    assert spikes([2.0] * 100 + [1.0] * 25 + [2.0] * 25 + [5.0]) == [150]


def test_lead_counts_the_steps_from_the_first_layer_to_the_last():
    assert lead([10, 100, 200], [12, 130, 199]) == [2, 30, -1]
    assert lead([10, 12, 14], [11]) == [1] and lead([11], [10, 12, 14]) == [-1]       # one event is in one pair
    assert lead([10, 100], [50]) == []
    assert lead([10], []) == [] and lead([], [3]) == []


def test_dips_are_found_with_their_bottom_and_their_end():
    curve = [0.1, 0.3, 0.5, 0.4, 0.2, 0.45, 0.55, 0.54, 0.56, 0.6]
    assert dips(curve) == dips(curve, depth=0.03) == [(2, 4, 6)]
    assert dips([0.5, 0.44]) == [] and dips([0.5, 0.42]) == [(0, 1, 1)]       # seven points may be chance
    assert dips(curve, depth=0.005) == [(2, 4, 6), (6, 7, 8)]
    assert dips([0.1, 0.5, 0.2]) == [(1, 2, 2)]           # it never comes back
    assert dips([0.1, 0.2, 0.3]) == [] and dips([]) == [] and dips([0.5, 0.48]) == []


# ---- the watch ----

def textures_of_noise(n=64):
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=g, dtype=torch.uint8)
    return from_tensor(pixels, torch.randint(0, 3, (n,), generator=g))


def tiny_vit(**net):
    return MoCoV3(vit((1, 8, 8), width=8, depth=2, heads=2, seed=0, **net), dim=4, hidden=8, shape=(1, 8, 8))


def go(watched=True, method=None, optimiser="adamw", renew=False, device="cpu", **kwargs):
    images, method = textures_of_noise(), method or tiny_vit()
    seen = watch(method, images.labels, every=4, bank=32, k=5, renew=renew) if watched else None
    run = fit(method, images, make_views("textures"), steps=12, batch=16, base_lr=0.01, optimiser=optimiser,
              device=device, autocast="float32", progress=False, **kwargs)
    return run, seen


def tiny_resnet():
    return MoCoV3(resnet(4, (1,), channels=1, seed=0), made_for="resnet", dim=4, hidden=8)


@pytest.mark.parametrize("made", [tiny_vit, tiny_resnet])
@pytest.mark.parametrize("renew", [False, True])
def test_watching_changes_no_bit_of_a_run(made, renew):
    plain, (watched, seen) = go(False, made())[0], go(method=made(), renew=renew)
    a, b = plain.method.state_dict(), watched.method.state_dict()          # BN's running statistics among them
    assert all(torch.equal(a[name], b[name]) for name in a) and plain.history["loss"] == watched.history["loss"]
    assert len(seen.renewed) == renew * len(seen.knn) and watched.method.backbone.training == plain.method.backbone.training


def test_the_watch_reads_what_training_made(monkeypatch, device):
    method = tiny_vit()
    made, plain = [], method.backbone.forward
    method.backbone.forward = lambda x: made.append(plain(x)) or made[-1]
    asked = []
    monkeypatch.setattr("simsiam_explained.watch.knn", lambda *rows, k: asked.append(rows) or 0.5)
    batches = list(torch.arange(12 * 16).remainder(64).split(16))
    _, seen = go(method=method, order=batches, device=device)
    assert len(made) == 24                                # two views a step and no pass more
    first, labels = made[::2], textures_of_noise().labels
    assert seen.steps == [8] and seen.knn == [0.5]        # after 4 steps the bank is empty, after 12 nobody asks
    bank, bank_labels, new, new_labels = asked[0]
    assert torch.equal(new, torch.cat(first[4:8]).detach()) and torch.equal(bank, torch.cat(first[2:4]).detach())
    assert torch.equal(new_labels, labels[torch.cat(batches[4:8])])
    assert torch.equal(bank_labels, labels[torch.cat(batches[2:4])])


@pytest.mark.parametrize("made", [tiny_vit, tiny_resnet])
def test_a_renewed_bank_is_what_the_weights_of_now_say_of_the_same_views(made, monkeypatch):
    method, asked, views, now = made(), [], [], []
    monkeypatch.setattr("simsiam_explained.watch.knn", lambda *rows, k: asked.append(rows) or 0.5)
    method.backbone.register_forward_hook(lambda net, args, _: views.append(args[0]) if net.training else None)
    first = method.after_step
    method.after_step = lambda step, steps: step == 7 and now.append(copy.deepcopy(method.backbone).eval()) or first(step, steps)
    go(method=method, order=list(torch.arange(12 * 16).remainder(64).split(16)), renew=True)
    (old, labels, _, new_labels), (bank, same, new, same_new) = asked     # one look, after 8 of 12 steps; two questions
    with torch.no_grad():
        expected = [now[0](torch.cat(views[::2][a:b])) for a, b in ((2, 4), (4, 8))]
    assert torch.equal(labels, same) and torch.equal(new_labels, same_new) and not torch.allclose(old, bank, atol=1e-3)
    assert torch.allclose(bank, expected[0], atol=1e-5) and torch.allclose(new, expected[1], atol=1e-5)


def test_the_bank_is_first_in_first_out(monkeypatch):
    asked = []
    monkeypatch.setattr("simsiam_explained.watch.knn", lambda *rows, k: asked.append(rows[1]) or 0.5)
    images = textures_of_noise()
    images = from_tensor(images.pixels, torch.arange(64))
    method = tiny_vit()
    watch(method, images.labels, every=1, bank=32, k=5)
    order = list(torch.arange(8 * 8).split(8))
    fit(method, images, make_views("textures"), steps=8, batch=8, order=order, device="cpu", progress=False)
    assert [rows.tolist() for rows in asked] == [list(range(max(0, n - 32), n)) for n in (16, 24, 32, 40, 48)]


def test_the_norms_are_those_of_each_layers_gradient(device):
    run, seen = go(device=device)
    norms = seen.norms
    assert list(norms) == ["first layer", "stem", "layer1", "layer2", "norm", "projector", "predictor"]
    assert all(len(of) == 12 for of in norms.values())
    parts = {"first layer": first_layer(run.method.backbone), "predictor": run.method.predictor}
    for name, part in parts.items():         # the gradients of the last step are still there
        size = math.sqrt(sum(float(w.grad.square().sum()) for w in part.parameters()))
        assert float(norms[name][-1]) == pytest.approx(size, rel=1e-5)


def test_a_stopped_watch_hears_nothing_more():
    run, seen = go()
    seen.stop()
    fit(run.method, textures_of_noise(), make_views("textures"), steps=3, batch=16, device="cpu", progress=False)
    assert all(len(of) == 12 for of in seen.norms.values()) and not hasattr(run.method, "before_step")


def test_a_frozen_first_layer_has_no_norm():
    method = tiny_vit(stem="frozen")
    assert "first layer" not in go(method=method)[1].norms


def test_the_watch_refuses_what_it_cannot_use():
    method = small()
    with pytest.raises(ValueError, match="bank: got 5"):
        watch(method, torch.arange(8), bank=5, k=20)
    with pytest.raises(ValueError, match="labels"):
        watch(method, None)
    with pytest.raises((TypeError, ValueError), match="every"):
        watch(method, torch.arange(8), every=0.5)
    seen = watch(method, torch.arange(8))
    with pytest.raises(ValueError, match="watched already"):
        watch(method, torch.arange(8))
    with pytest.raises(IndexError, match="labels: there are 8, but the batch holds image 8"):
        method.before_step(torch.tensor([3, 8]))
    seen.stop()
    watch(method, torch.arange(8))


def test_a_bank_of_one_class_is_no_reason_to_stop():
    images, method = textures_of_noise(), tiny_vit()
    seen = watch(method, torch.ones_like(images.labels), every=4, bank=32, k=5, renew=True)
    fit(method, images, make_views("textures"), steps=12, batch=16, device="cpu", progress=False)
    assert len(seen.knn) == len(seen.renewed) == 1 and math.isnan(seen.knn[0]) and math.isnan(seen.renewed[0])


def test_a_run_may_be_watched_from_where_it_goes_on(tmp_path):
    path = str(tmp_path / "run.pt")
    go(False, checkpoint=path, save_every=2, limit=1e-6)
    run, seen = go(resume=path)
    assert run.status == "done" and 0 < len(seen.norms["predictor"]) < 12


def test_what_a_watched_run_tells():
    level = [1.0] * 40
    spiked = level[:20] + [9.0] + level[21:]
    told = stability([0.5, math.nan, 0.2, 0.6], [0.5, 0.45, 0.6], spiked, spiked[3:] + level[:3])
    assert told["bank fall"] == pytest.approx(0.3) and told["renewed fall"] == pytest.approx(0.05)
    assert told["bank too low"] == pytest.approx(1.55 / 3 - 1.3 / 3)
    assert (told["first spikes"], told["last spikes"], told["first ahead"]) == (1, 1, -3)
    assert math.isnan(stability([0.5], [0.5], [], level)["first ahead"])
    assert math.isnan(stability([], [math.nan], [], [])["bank fall"])


# ---- temperatures in the vector world ----

def test_the_vector_worlds_loss_is_the_same_in_one_batch_of_runs():
    taus, z = (0.05, 0.2, 1.0), torch.randn(3, 6, 2 * 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = contrast(z, torch.tensor(taus, dtype=torch.float64).view(-1, 1, 1))
    for x, tau, loss in zip(z.mT, taus, found):
        assert float(loss) == pytest.approx(float(ctr(x[:9], x[9:], tau) + ctr(x[9:], x[:9], tau)), abs=1e-12)


def test_without_2_tau_a_rate_is_2_tau_times_what_it_is_with_it():
    """SGD without decay: a factor of the loss is a factor of the rate, so one sweep tells of both."""
    setting = Setting(weight_decay=0.0, batch=16, width=8, dim=8)
    with_it = rates_by_temperature([0.25], [0.05, 0.1], seeds=2, steps=8, setting=setting)
    without = rates_by_temperature([0.25], [0.025, 0.05], seeds=2, steps=8, setting=setting, scaled=False)
    assert with_it.shape == (1, 2, 2) and torch.allclose(with_it, without, atol=1e-4)
    assert not torch.allclose(with_it[:, 0], with_it[:, 1], atol=1e-3)


def test_without_2_tau_the_rate_that_training_needs_moves_with_the_temperature():
    """Half-decades of rates; the first at which τ = 0.05 and τ = 1 hold most of the content: one step apart, or more."""
    rates = [10 ** (e / 2) for e in range(-7, 0)]
    first = {}
    for scaled in (True, False):
        enough = rates_by_temperature([0.05, 1.0], rates, seeds=3, steps=120, scaled=scaled) > 0.8
        assert enough.any(1).all() and not enough[:, 0].any()
        first[scaled] = enough.int().argmax(1)                                      # (temperature, seed)
    assert ((first[True][1] - first[True][0]).abs() <= 1).all()
    assert (first[False][1] - first[False][0] >= 2).all()


# ---- runs ----

@pytest.mark.parametrize("optimiser", ["adamw", "lamb", "lars"])
def test_a_run_that_stops_and_goes_on_has_the_same_bits(optimiser, tmp_path, device):
    path, plan = str(tmp_path / "run.pt"), {"watched": False, "optimiser": optimiser, "device": device}
    run, _ = go(**plan)
    go(**plan, checkpoint=path, save_every=2, limit=1e-6)
    again, _ = go(**plan, resume=path)
    assert again.curve("loss")[1] == pytest.approx(run.curve("loss")[1], abs=1e-3)
    whole, resumed = run.method.state_dict(), again.method.state_dict()          # a GPU adds in any order
    assert device.type == "cuda" or all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_frozen_patch_projection_is_neither_moved_nor_decayed():
    method = tiny_vit(stem="frozen")
    before = [w.clone() for w in first_layer(method.backbone).parameters()]
    go(False, method=method, weight_decay=0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, first_layer(method.backbone).parameters()))
    assert all(torch.equal(a, b) for a, b in zip(before, first_layer(method.target[0]).parameters()))


# ---- claims ----

def test_claims_are_registered_once_and_build():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert isinstance(claim, Claim) and claim.sentence.endswith(".")
        for arm, recipe in claim.recipes("small").items():
            assert recipe.build(0) is not None, (claim.id, arm)


TRIED = [(claim, scale) for claim in CLAIMS if claim.arms for scale in claim.scales]


@pytest.mark.parametrize("claim, scale", TRIED, ids=[f"{claim.id}, {scale}" for claim, scale in TRIED])
def test_arms_differ_and_a_rule_names_them_all(claim, scale):
    """A run that no condition asks for would be waited for in vain."""
    recipes = claim.recipes(scale)
    alone = all(isinstance(condition, Between) for condition in claim.rule)
    assert len({recipe.key for recipe in recipes.values()}) == len(recipes) >= 2 - alone
    assert all(any(repr(arm) in repr(condition) for condition in claim.rule) for arm in recipes)


def differing(a, b):
    """Return what two recipes differ in: fields, and arguments of their parts."""
    a, b = ({name: dict(v) if isinstance(v, dict) else v for name, v in r.whole().items()} for r in (a, b))
    flat = [{k: v for name, of in r.items() for k, v in (of.items() if isinstance(of, dict) else [(name, of)])} for r in (a, b)]
    return {k for k in set(flat[0]) | set(flat[1]) if flat[0].get(k) != flat[1].get(k)}


@pytest.mark.parametrize("n, one", [
    ("13", "predictor"), ("12", "bn"), ("6", "stem"), ("patch", "patch"), ("depth", "depth"), ("14", "m"), ("14-best", "m"),
    ("14-short", "m"), ("1", "base_lr"), ("3", "base_lr"), ("9", "base_lr")])
def test_the_arms_of_an_ablation_differ_in_one_thing(n, one):
    claim = next(claim for claim in CLAIMS if claim.id == f"moco_v3-{n}")
    for scale in claim.scales:
        first, *others = claim.recipes(scale).values()
        assert all(differing(first, other) == {one} for other in others), scale


def test_the_heads_are_made_for_the_net():
    recipes = {recipe for claim, scale in TRIED for recipe in claim.recipes(scale).values()}
    made_for = {(recipe.backbone, recipe.whole()["parts"].get("made_for", "vit"))
                for recipe in recipes if recipe.method == "moco_v3.MoCoV3"}
    assert made_for == {("vit.vit", "vit"), ("encoders.resnet", "resnet")}


def test_five_methods_have_one_net_one_schedule_and_both_views_in_their_losses():
    claim = next(claim for claim in CLAIMS if claim.id == "simsiam-table4-longer")
    recipes = claim.recipes("small")
    shared = ("images", "size", "views", "augment", "backbone", "net", "batch", "momentum", "weight_decay", "schedule", "optimiser")
    assert len({tuple(getattr(r, name) for name in shared) for r in recipes.values()}) == 1
    assert {r.steps for r in recipes.values()} == {250, 1000}
    assert all(recipe.whole()["parts"].get("symmetric", True) for recipe in recipes.values())


def test_the_other_methods_have_the_rates_and_the_heads_that_the_paper_gives_them_on_a_vit():
    """Fig. 6 and App. A; of SwAV's rate the paper says that it is the largest stable one."""
    recipes = next(claim for claim in CLAIMS if claim.id == "moco_v3-7").recipes("full")
    for arm, rate, decay, bn in (("BYOL", 1e-4, 0.03, "hidden"), ("SimCLR", 2e-4, 0.1, "default"), ("SwAV", 1.5e-4, 0.1, "none")):
        learned, frozen = recipes[arm], recipes[f"{arm}, frozen"]
        assert (learned.base_lr, learned.weight_decay, learned.whole()["parts"]["bn"]) == (rate, decay, bn)
        assert differing(learned, frozen) == {"stem"}


def test_clipping_hooks_a_copy_of_the_backbone_and_refuses_what_is_frozen():
    net = vit((1, 8, 8), 4, 8, 1, 2, seed=0)
    assert MoCoV3(net, clip=0.1, dim=8, hidden=16).backbone is not net is MoCoV3(net, dim=8, hidden=16).backbone
    with pytest.raises(ValueError, match="this Conv2d is frozen, it has no gradient to clip"):
        MoCoV3(vit((1, 8, 8), 4, 8, 1, 2, stem="frozen", seed=0), clip=0.1, dim=8, hidden=16)
