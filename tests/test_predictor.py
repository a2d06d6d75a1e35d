"""The predictor's variants, each by hand; what a predictor computes, on cases with a known answer; the claims of Table 1."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simsiam_explained.encoders import predictor as predictor_head
from simsiam_explained.evidence import claims, decide
from simsiam_explained.images import from_tensor, textures
from simsiam_explained.micro import Arm, Setting, train_arms
from simsiam_explained.origin import digest
from simsiam_explained.predictor import (CLAIMS, PREDICTORS, gains, make_predictor, regress, rescale, shrink, view_outputs,
                                         what_h_computes)
from simsiam_explained.recipe import base
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import fit
from simsiam_explained.views import make_views


def randn(*shape, seed=0, device="cpu", dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(device)


def weights(h):
    return sum(w.numel() for w in h.parameters()), sum(w.numel() for w in h.parameters() if w.requires_grad)


# --- the variants ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, count, learnable", [
    ("mlp", 8 * 4 + 2 * 4 + 4 * 8 + 8, 80), ("fixed", 80, 0), ("none", 0, 0), ("linear", 64, 64), ("symmetric", 64, 64),
    ("bias", 8, 8)])
def test_each_kind_has_its_weights_and_keeps_the_shape(device, kind, count, learnable):
    h = make_predictor(kind, 8, 4, seed=0).to(device)
    assert weights(h) == (count, learnable) and kind in PREDICTORS
    assert h(randn(5, 8, device=device, dtype=torch.float32)).shape == (5, 8)


def test_each_kind_by_hand(device):
    z = randn(6, 3, device=device, dtype=torch.float32)
    assert make_predictor("none", 3)(z) is z
    bias = make_predictor("bias", 3).to(device)
    assert torch.equal(bias(z), z)
    with torch.no_grad():
        bias.bias += torch.tensor([1.0, 2.0, 3.0], device=device)
    assert torch.allclose(bias(z) - z, torch.tensor([1.0, 2.0, 3.0], device=device).expand(6, 3), atol=1e-6)
    linear, symmetric = (make_predictor(kind, 3, seed=1).to(device) for kind in ("linear", "symmetric"))
    w = linear.fc1.weight
    assert torch.equal(w, symmetric.weight)                            # one seed, one W
    assert torch.allclose(linear(z), z @ w.mT, atol=1e-6)
    assert torch.allclose(symmetric(z), z @ (w + w.mT) / 2, atol=1e-6)
    kinds = [type(m).__name__ for m in make_predictor("mlp", 8, 4)]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


@pytest.mark.parametrize("kind", PREDICTORS)
def test_the_seed_fixes_the_weights_and_leaves_the_global_generator_alone(kind):
    before = torch.random.get_rng_state()
    a, b, c = (make_predictor(kind, 8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert digest(a) == digest(b)
    assert (digest(a) == digest(c)) == (kind in ("none", "bias"))      # nothing of these is drawn


def test_fixed_is_the_mlp_and_both_are_the_papers_head():
    """Records depend on these bits."""
    assert digest(make_predictor("fixed", 16, seed=3)) == digest(make_predictor("mlp", 16, seed=3))
    assert digest(make_predictor("mlp", 16, seed=3)) == digest(predictor_head(16, seed=3))


@pytest.mark.parametrize("kind", [k for k in PREDICTORS if k not in ("none", "fixed")])
def test_gradients_are_right_by_finite_differences(device, kind):
    h, z = make_predictor(kind, 4, 2, seed=0).double().to(device).eval(), randn(5, 4, device=device)
    state = {name: w.detach().clone().requires_grad_() for name, w in h.named_parameters()}
    run = lambda z, *ws: torch.func.functional_call(h, dict(zip(state, ws)), (z,))  # noqa: E731
    assert torch.autograd.gradcheck(run, (z.requires_grad_(), *state.values()))


def test_a_symmetric_predictor_stays_symmetric_and_moves_like_a_projected_one(device):
    """Symmetrising W after each step of SGD, or reading only its symmetric part: the same map."""
    z, y = randn(20, 4, device=device), randn(20, 4, seed=1, device=device)
    h = make_predictor("symmetric", 4, seed=0).double().to(device)
    w = ((h.weight + h.weight.mT) / 2).detach().requires_grad_()
    for _ in range(5):
        for parameter, out in ((h.weight, h(z)), (w, F.linear(z, w))):
            (gradient,) = torch.autograd.grad((out - y).square().mean(), parameter)
            with torch.no_grad():
                parameter -= 0.3 * gradient
        with torch.no_grad():
            w.copy_((w + w.mT) / 2)
    assert torch.allclose((h.weight + h.weight.mT) / 2, w, atol=1e-12)


def test_a_fixed_predictor_is_untouched_by_training_but_passes_the_gradient():
    recipe = base("live").but(predictor="fixed", steps=3, batch=16)
    method = recipe.build(0)
    h, f = digest(nn.ParameterList(method.predictor.parameters())), digest(nn.ParameterList(method.backbone.parameters()))
    fit(method, textures(64, 24), make_views("textures"), steps=3, batch=16, device="cpu", progress=False)
    assert digest(nn.ParameterList(method.predictor.parameters())) == h
    assert digest(nn.ParameterList(method.backbone.parameters())) != f


@pytest.mark.parametrize("kind", PREDICTORS)
def test_every_kind_trains_inside_simsiam(kind):
    method = base("live").but(predictor=kind).build(0)
    start = digest(method.predictor)
    run = fit(method, textures(64, 24), make_views("textures"), steps=2, batch=16, device="cpu", progress=False)
    assert run.status == "done"
    assert (digest(method.predictor) == start) == (kind == "none")     # 'fixed' moves its BN's running statistics


@pytest.mark.parametrize("given, near", [("mpl", "mlp"), ("symetric", "symmetric"), ("baias", "bias")])
def test_an_unknown_kind_is_answered_with_the_nearest(given, near):
    with pytest.raises(ValueError, match=f"Did you mean '{near}'"):
        make_predictor(given, 8)
    with pytest.raises(ValueError, match="dim"):
        make_predictor("mlp", 0)


# --- no predictor: a factor of the learning rate --------------------------------------------------------------------

def test_without_a_predictor_the_stop_gradient_is_half_the_rate_and_twice_the_decay():
    s = Setting(lr=0.1, weight_decay=1e-2)
    none = Arm(predictor="none"), Arm(predictor="none", stop_gradient=False)
    run = lambda arm, **change: train_arms({"": arm}, seeds=2, steps=30, setting=Setting(**change)).z  # noqa: E731
    with_it = run(none[0], lr=s.lr, weight_decay=s.weight_decay)
    assert torch.equal(with_it, run(none[1], lr=s.lr / 2, weight_decay=2 * s.weight_decay))
    assert not torch.equal(with_it, run(none[1], lr=s.lr / 2, weight_decay=s.weight_decay))
    assert not torch.equal(with_it, run(none[1], lr=s.lr, weight_decay=s.weight_decay))


def test_the_same_holds_for_images_and_torchs_own_optimiser():
    views, images, ends = make_views("textures"), textures(64, 24), []
    for stop, lr, decay in ((True, 0.8, 1e-2), (False, 0.4, 2e-2)):
        method = base("live").but(predictor="none", stop_gradient=stop).build(0).double()
        in_double = lambda pixels, g: [x.double() for x in views(pixels, g)]  # noqa: E731
        fit(method, images, in_double, steps=5, batch=16, base_lr=lr, weight_decay=decay, device="cpu", progress=False)
        ends.append(torch.cat([w.flatten() for w in method.parameters()]))
    assert torch.allclose(*ends, atol=1e-9, rtol=0)


# --- what h computes ------------------------------------------------------------------------------------------------

def noisy_pair(device, spread=(3.0, 1.0, 0.3), n=40_000):
    """Return two noisy looks at the same points: along axis i, variance spread[i]² and noise of variance 1."""
    points = randn(n, len(spread), device=device) * torch.tensor(spread, device=device, dtype=torch.float64)
    return [points + randn(n, len(spread), seed=seed, device=device) for seed in (1, 2)]


def test_the_fits_find_the_known_factors(device):
    x, y = noisy_pair(device)
    eye = torch.eye(3, dtype=torch.float64, device=device)
    power = torch.tensor([9.0, 1.0, 0.09], dtype=torch.float64, device=device)
    assert torch.allclose(regress(x, y)(eye), torch.diag(power / (power + 1)), atol=0.03)      # each axis its own
    one = float(power.sum() / (power + 1).sum())                                               # one number for all
    assert torch.allclose(rescale(x, y)(eye), one * eye, atol=0.03)
    assert torch.allclose(shrink(x, y)(eye), one * eye, atol=0.03)


def test_shrink_and_regress_keep_the_mean_and_rescale_does_not(device):
    x, y = noisy_pair(device)
    x, y = x + 5, y + 5
    for fitted in (shrink, regress):
        assert torch.allclose(fitted(x, y)(x.mean(0, keepdim=True)), y.mean(0, keepdim=True), atol=1e-6)
    assert torch.allclose(rescale(x, 2 * x)(x), 2 * x)


def test_regress_survives_directions_that_x_does_not_have(device):
    x, y = noisy_pair(device, n=200)
    dead = torch.cat([x, torch.zeros_like(x)], 1)
    assert torch.allclose(regress(dead, y)(dead), regress(x, y)(x), atol=1e-2)


def test_gains_of_known_maps(device):
    z1, z2 = noisy_pair(device)
    found = gains(z1, z2, z1)
    power = torch.tensor([9.0, 1.0, 0.09], dtype=torch.float64, device=device)
    assert torch.allclose(found.share, (power + 1) / (power + 1).sum(), atol=0.02)
    assert torch.allclose(found.reliability, power / (power + 1), atol=0.03)
    assert torch.allclose(found.gain, found.gain[0].expand(3), atol=1e-9)      # z1 itself: one gain for all
    best = gains(z1, z2, regress(z1, z2)(z1))
    assert torch.allclose(best.gain, best.reliability, atol=0.02)              # the linear expectation
    assert len(gains(z1, z2, z1, floor=0.2).share) == 1                        # two directions hold less


class Noise(nn.Module):
    """A method whose output is the image's mean level along one axis and the view's corner pixel along another."""

    def __init__(self, device, h):
        super().__init__()
        self.backbone, self.projector, self.predictor = nn.Flatten(), nn.Linear(64, 2, bias=False), h
        weight = torch.zeros(2, 64)
        weight[0], weight[1, 0] = 1 / 64, 1.0
        self.projector.weight = nn.Parameter(weight)
        self.to(device)


def looks(pixels, generator):
    """Two views: the same image, but for a corner pixel that is drawn anew, ±1."""
    xs = [pixels.float() / 128 - 1 for _ in range(2)]
    for x in xs:
        x[:, 0, 0, 0] = 2.0 * torch.randint(2, (len(x),), generator=generator, device=x.device) - 1
    return xs


def level_images(n):
    level = torch.where(torch.arange(n) % 2 == 0, 20, 230).to(torch.uint8)
    return from_tensor(level[:, None, None, None].expand(n, 1, 8, 8).contiguous())


class Keep(nn.Module):
    def forward(self, z):
        return torch.stack([z[:, 0], torch.zeros_like(z[:, 1])], 1)


def test_a_predictor_that_drops_the_noise_is_the_expectation(device):
    """z = (content ±0.8, noise ±1): the mean over views has no noise. h that keeps the first axis is the best guess."""
    train, test = level_images(200), level_images(100)
    found = what_h_computes(Noise(device, Keep()), train, test, looks, n=40)
    assert found.R2["p = h(z1)"] == pytest.approx(found.R2["regression of z2"], abs=0.03) and found.R2["p = h(z1)"] > 0.9
    assert found.R2["z1"] < found.R2["z1, shrunk"] < 0.6
    same = what_h_computes(Noise(device, nn.Identity()), train, test, looks, n=40)
    assert same.cosine["p = h(z1)"] == pytest.approx(same.cosine["z1"], abs=1e-5)      # no predictor: z1 rescaled


def test_z1_is_not_in_the_mean(device):
    """Views that share nothing: R² and cosine must not be the flattering ones."""
    grey = from_tensor(torch.full((400, 1, 8, 8), 128, dtype=torch.uint8))
    found = what_h_computes(Noise(device, nn.Identity()), grey, grey, looks, n=3)
    assert abs(found.R2["regression of z2"]) < 0.05
    assert abs(found.cosine["z1"]) < 0.1


def test_view_outputs_are_unit_and_the_model_is_left_as_it_was(device):
    method, images, views = base("live").build(0).to(device), textures(30, 24).to(device), make_views("textures")
    method.train()
    before = digest(method)
    z, p = view_outputs(method, images, views, 3)
    again, _ = view_outputs(method, images, views, 3)
    assert z.shape == (3, 30, 64) and p.shape == (30, 64) and not z.requires_grad
    assert torch.allclose(z.norm(dim=-1), torch.ones(3, 30, device=device), atol=1e-5)
    assert torch.equal(z, again) and not torch.equal(z[0], z[1])
    assert not torch.equal(z, view_outputs(method, images, views, 3, seed=1)[0])
    assert digest(method) == before and method.training and method.predictor.training


def test_refusals():
    images, views, method = textures(4, 24), make_views("textures"), base("live").build(0)
    with pytest.raises(TypeError, match="got Sequential, expected one with a backbone, a projector and a predictor"):
        view_outputs(nn.Sequential(), images, views, 2)
    with pytest.raises(ValueError, match="n: got 0"):
        what_h_computes(method, images, images, views, n=0)
    with pytest.raises(ValueError, match="batch: got 0"):
        view_outputs(method, images, views, 2, batch=0)


# --- the claims -----------------------------------------------------------------------------------------------------

def test_the_chapters_claims_are_in_the_ledger_and_their_recipes_differ_in_one_argument():
    known = claims()
    for claim in CLAIMS:
        assert known[claim.id] is claim
        recipes = claim.recipes("small")
        assert len(set(recipe.key for recipe in recipes.values())) == len(recipes)
        assert bool(claim.test) != bool(recipes)
    assert isinstance(known["simsiam-11"].recipes("small")["no predictor"].build(0), SimSiam)


ROWS = {   # rows for which the rule holds: healthy, and the other arm
    "simsiam-11": ({"loss": -0.7, "std": 0.9, "rank": 30, "kNN": 0.4}, {"loss": -0.99, "std": 0.1, "rank": 5, "kNN": 0.2}),
    "simsiam-11-fixed": ({"loss": -0.7, "std": 0.9, "rank": 30, "kNN": 0.4}, {"loss": -0.2, "std": 0.8, "rank": 20, "kNN": 0.3}),
    "simsiam-12": ({"linear": 0.5}, {"linear": 0.4}),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_rule_holds_and_swapped_arms_fail_it(name):
    claim = claims([name])[name]
    healthy, other = claim.arms
    seeds = lambda row: [{k: v + 0.001 * i for k, v in row.items()} for i in range(3)]  # noqa: E731
    on, off = (seeds(row) for row in ROWS[name])
    assert decide(claim.rule, {healthy: on, other: off})[0] == "direction reproduced"
    assert decide(claim.rule, {healthy: off, other: on})[0] == "contradicted"
    assert decide(claim.rule, {healthy: on, other: on})[0] != "direction reproduced"
