"""The alternation: each η-step against its definition, SimSiam as its special cases, and a memory that resumes to the bit."""
import copy
import json
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

from simsiam_explained import em
from simsiam_explained.em import AtLeast, Alternation, MeanOfViews, MemoryBank, MultiStep, closed_form
from simsiam_explained.encoders import resnet
from simsiam_explained.evidence import Verdict
from simsiam_explained.images import Images
from simsiam_explained.ledger import conditions
from simsiam_explained.recipe import Recipe, base
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import fit, load_checkpoint, shuffled

N = 40


class Noisy:
    """The smallest views: noisy copies."""

    def __call__(self, pixels, generator):
        x = self.clean(pixels)
        return tuple(x + 0.3 * torch.randn(x.shape, generator=generator, device=x.device) for _ in range(2))

    def clean(self, pixels):
        return pixels.float() / 128 - 1


def made():
    pixels = torch.randint(256, (N, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Images(pixels, None, name="noise")


def net(kind=SimSiam, **switches):
    return kind(resnet(2, (1,), channels=1, seed=0), dim=8, layers=2, hidden=8, **switches)


def go(method, steps=7, device="cpu", **change):
    settings = dict(steps=steps, batch=8, base_lr=2.0, every=3, device=device, autocast="float32", progress=False)
    return fit(method, made(), Noisy(), **settings | change)


def weights(method):
    """The trained weights and the buffers of backbone, projector and predictor."""
    return {k: v for part in ("backbone", "projector", "predictor") for k, v in getattr(method, part).state_dict(prefix=part).items()}


def same(one, two):
    a, b = weights(one.method), weights(two.method)
    return one.history["loss"] == two.history["loss"] and all(torch.equal(a[k], b[k]) for k in a)


# the closed form

def test_the_mean_over_views_minimises_the_squared_distance():
    z = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eta = closed_form(z).requires_grad_()
    loss = (z - eta).square().sum(-1).mean()
    assert torch.autograd.grad(loss, eta)[0].abs().max() < 1e-12
    for seed in range(20):
        other = eta + torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (z - other).square().sum(-1).mean() > loss


# SimSiam as the special case

@pytest.mark.parametrize("switches", [{}, {"predictor": "none"}, {"symmetry": "asymmetric"}, {"symmetry": "asymmetric 2x"},
                                      {"similarity": "cross_entropy"}, {"affine": False, "predictor_lr": "scheduled"}])
def test_one_step_of_the_alternation_is_simsiam_to_the_bit(switches):
    simsiam = go(net(**switches))
    assert same(go(net(Alternation, **switches)), simsiam)
    assert same(go(net(MultiStep, k=1, **switches)), simsiam)


def test_more_steps_are_another_method_from_the_second_step_on():
    one, three = go(net()).curve("loss")[1], go(net(MultiStep, k=3)).curve("loss")[1]
    assert one[0] == three[0] and one[1] != three[1]


def test_two_views_and_a_bank_without_memory_are_simsiam(device):
    for switches in ({"predictor": "none"}, {"predictor": "mlp"}):
        expected = torch.tensor(go(net(**switches), device=device.type).curve("loss")[1])
        for kind, own in ((MeanOfViews, {"samples": 2}), (MemoryBank, {"n": N, "m": 0.0})):
            got = torch.tensor(go(net(kind, **own, **switches), device=device.type).curve("loss")[1])
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


# k steps: against targets that are truly computed beforehand and kept

def test_k_steps_are_those_of_an_explicit_cache():
    k, steps, images, views = 3, 9, made(), Noisy()
    run = go(net(MultiStep, k=k), steps=steps, schedule="constant")
    method, generator = net().train(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD(method.parameters(), lr=2.0 * 8 / 256, momentum=0.9, weight_decay=1e-4)
    batches, losses = list(islice(shuffled(N, 8, 0), steps)), []
    for t in range(0, steps, k):
        drawn = [views(images.pixels[batch], generator) for batch in batches[t:t + k]]
        with torch.no_grad():                                                   # the η of all k steps, before the first of them
            still = copy.deepcopy(method)
            cache = [[still.projector(still.backbone(x)) for x in pair] for pair in drawn]
        for (x1, x2), (eta1, eta2) in zip(drawn, cache):
            p1, p2 = (method.predictor(method.projector(method.backbone(x))) for x in (x1, x2))
            loss = (-F.cosine_similarity(p1, eta2).mean() - F.cosine_similarity(p2, eta1).mean()) / 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert run.curve("loss")[1] == pytest.approx(losses, abs=1e-5)
    assert len({round(loss, 4) for loss in losses}) == steps


def test_an_epoch_is_as_many_steps_as_it_has_whole_batches():
    assert net(MultiStep, k="epoch", n=43, batch=8).k == 5
    with pytest.raises(ValueError, match="n // batch"):
        net(MultiStep, k="epoch")
    with pytest.raises(ValueError, match="got n=4 and batch=8; give both, with n ≥ batch"):
        net(MultiStep, k="epoch", n=4, batch=8)                # no step at all: it would fail after the first one


# the mean over views

def test_the_target_is_the_mean_over_the_other_views_and_gets_no_gradient(device):
    method = net(MeanOfViews, samples=4).to(device)
    xs = torch.randn(4, 8, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)
    out = method(*xs)
    with torch.no_grad():
        z = torch.stack([method.projector(method.backbone(x)) for x in xs])
    unit = F.normalize(z, dim=-1)
    term = lambda i: -F.cosine_similarity(z[i], unit[[j for j in range(4) if j != i]].mean(0)).mean()  # noqa: E731
    assert out.loss.item() == pytest.approx(((term(0) + term(1)) / 2).item(), abs=1e-4)
    leaf = xs[3].clone().requires_grad_()
    method(*xs[:3], leaf).loss.backward()
    assert leaf.grad is None
    assert method.views_per_image == 4 and go(net(MeanOfViews, samples=4)).status == "done"


# the bank

def by_hand(m, start):
    """Return (targets of each step for view 1, final bank) of two passes over 16 images, from the definition."""
    method, images, views, generator = net(predictor="none").train(), made(), Noisy(), torch.Generator().manual_seed(0)
    first, bank, targets = copy.deepcopy(method), {}, []
    optimiser = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    for batch in [torch.arange(8), torch.arange(8, 16)] * 2:
        xs = views(images.pixels[batch], generator)
        z = [method.projector(method.backbone(x)) for x in xs]
        unit = [F.normalize(v.detach(), dim=1) for v in z]
        with torch.no_grad():
            fresh = [F.normalize(first.projector(first.backbone(x)), dim=1) for x in xs] if start == "network" else unit
        known = int(batch[0]) in bank
        eta = [m * (torch.stack([bank[i] for i in batch.tolist()]) if known else fresh[j]) + (1 - m) * unit[j] for j in (1, 0)]
        bank |= dict(zip(batch.tolist(), (eta[0] + eta[1]) / 2))
        loss = sum(-F.cosine_similarity(z[i], eta[i]).mean() for i in (0, 1)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        targets.append(loss.item())
    return targets, torch.stack([bank[i] for i in range(16)])


@pytest.mark.parametrize("start", ["network", "view"])
def test_the_bank_is_a_moving_average_over_the_visits_of_an_image(start):
    method = net(MemoryBank, n=N, start=start)
    order = [torch.arange(8), torch.arange(8, 16)] * 2
    run = go(method, steps=4, order=order, base_lr=0.05 * 256 / 8, schedule="constant")
    losses, bank = by_hand(0.8, start)
    assert run.curve("loss")[1] == pytest.approx(losses, abs=1e-3)               # the bank keeps half precision
    torch.testing.assert_close(method.eta[:16].float(), bank, atol=2e-3, rtol=0)
    assert not method.eta[16:].any()                                             # never seen


def test_a_bank_that_was_stopped_goes_on_to_the_bit(tmp_path):
    def stopping(after):
        import signal
        for step, batch in enumerate(shuffled(N, 8), 1):
            if step == after:
                signal.raise_signal(signal.SIGINT)
            yield batch

    for kind, own in ((MemoryBank, {"n": N}), (MultiStep, {"k": 5})):
        path = tmp_path / f"{kind.__name__}.pt"
        whole = go(net(kind, **own), steps=14)
        stopped = go(net(kind, **own), steps=14, order=stopping(7), checkpoint=path)
        assert stopped.status == "stopped"
        resumed = go(net(kind, **own), steps=14, resume=path)
        assert same(resumed, whole)
        a, b = resumed.method.state_dict(), whole.method.state_dict()
        assert all(torch.equal(a[k], b[k]) for k in a)
        lost = load_checkpoint(path)
        for name in lost["method"]:
            if name == "eta" or name.startswith("frozen"):
                lost["method"][name] = torch.zeros_like(lost["method"][name])
        stopped.checkpoint = lost
        assert not same(go(net(kind, **own), steps=14, resume=stopped), whole)    # what it remembers is needed


@pytest.mark.parametrize("kind, one, two, name", [(MemoryBank, {"n": N}, {"n": N, "m": 0.5}, "method.m="),
                                                  (MultiStep, {"k": 2}, {"k": 3}, "method.k=")])
def test_a_checkpoint_of_another_alternation_is_refused(tmp_path, kind, one, two, name):
    go(net(kind, **one), checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=name):
        go(net(kind, **two), resume=tmp_path / "run.pt")


# what is refused

@pytest.mark.parametrize("kind, switches, error, text", [
    (Alternation, {"stop_gradient": False}, ValueError, "η is a constant"),
    (MultiStep, {"k": 0}, ValueError, "k: got 0"), (MultiStep, {"k": 1.5}, TypeError, "k: got 1.5"),
    (MeanOfViews, {"samples": 3}, ValueError, "even number"), (MeanOfViews, {"samples": 2, "symmetry": "asymmetric 2x"}, ValueError, "≥ 4"),
    (MemoryBank, {"n": 0}, ValueError, "n: got 0"), (MemoryBank, {"n": 4, "m": 1.0}, ValueError, "m: got 1.0"),
    (MemoryBank, {"n": 4, "start": "networks"}, ValueError, "Did you mean 'network'"),
])
def test_what_cannot_be_is_an_error(kind, switches, error, text):
    with pytest.raises(error, match=text):
        net(kind, **switches)


def test_a_bank_wants_to_know_its_images():
    with pytest.raises(IndexError, match="no place in a bank of n=20"):
        go(net(MemoryBank, n=20))
    method = net(MemoryBank, n=N)
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(method(x, x).loss)                      # as when BN is settled
    with pytest.raises(RuntimeError, match="before_step"):
        method.after_step(0, 1)


# recipes and claims

def test_recipes_give_the_methods_what_the_run_knows():
    small = base("small")
    assert small.but(method="em.MemoryBank", n=300).build().eta.shape == (300, 512)
    assert small.but(method="em.MultiStep", k="epoch").build().k == 50_000 // 256
    assert base("live").but(method="em.MultiStep", k="epoch").build().k == 4000 // 128
    recipe = small.but(method="em.MeanOfViews", samples=4)
    assert recipe.build().views_per_image == 4
    assert Recipe(**json.loads(json.dumps(recipe.whole()))) == recipe
    with pytest.raises(ValueError, match="n"):
        small.but(method="em.MemoryBank", parts={"n": 5})


def test_arms_that_are_simsiam_share_its_recipe():
    claims = {claim.id: claim for claim in em.CLAIMS}
    for scale in ("small", "full"):
        assert claims["simsiam-17"].recipes(scale)["k = 1"] == base(scale)
        assert claims["simsiam-18"].recipes(scale)["no predictor"] == base(scale).but(predictor="none")
        assert claims["simsiam-18"].recipes(scale)["bank, no predictor"].build().m == 0.8


@pytest.mark.parametrize("here, word", [
    ([0.60, 0.61, 0.62], "direction reproduced"), ([0.50, 0.51, 0.52], "direction reproduced"),
    ([0.497, 0.506, 0.512], "direction reproduced"), ([0.40, 0.41, 0.42], "contradicted"),
    ([0.40, 0.52, 0.45], "no difference seen"), ([0.5, 0.5], "not tested"), ([0.5, 0.5, float("nan")], "not tested"),
])
def test_at_least_is_one_sided(here, word):
    rows = {"a": [{"x": v} for v in here], "b": [{"x": v} for v in (0.50, 0.51, 0.52)[:len(here)]]}
    assert AtLeast("x", "a", "b", 0.01)(rows) == word


def test_the_ledger_says_what_at_least_asked_and_saw():
    rows = {"a": [{"x": v} for v in (0.40, 0.41, 0.42)], "b": [{"x": v} for v in (0.50, 0.51, 0.52)]}
    rule = AtLeast("x", "a", "b", 0.01)
    table = conditions(Verdict("contradicted", (0, 1, 2), {rule: rule(rows)}, rows))
    assert table.iloc[0].tolist() == ["x: a at most 0.01 below b", "x 0.410 against 0.510", "contradicted"]
