"""SimSiam's exact claims (numbers of the paper's sections in the test names' docstrings) and its refusals."""
import pytest
import torch
from nets import Pixels, gradients
from torch import nn
from torch.nn import functional as F

from simsiam_explained.byol import BYOL
from simsiam_explained.em import MemoryBank
from simsiam_explained.encoders import resnet
from simsiam_explained.simsiam import PAIRS, D, SimSiam, cross_entropy


def small(device, **switches):
    parts = dict(dim=8, predictor_hidden=4, shape=(3, 4, 4)) | switches
    return SimSiam(Pixels(), **parts).double().to(device)


def views(device, n=2, batch=16, seed=1):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, 4, 4, generator=g, dtype=torch.float64).to(device) for _ in range(n)]


def test_squared_distance_of_unit_vectors_is_two_plus_two_D(device):
    """Claim 1 (§3)."""
    g = torch.Generator().manual_seed(0)
    p, z = (torch.randn(1, 32, generator=g, dtype=torch.float64).to(device) for _ in range(2))
    distance = (F.normalize(p) - F.normalize(z)).square().sum()
    assert torch.allclose(distance, 2 + 2 * D(p, z), atol=1e-12)


def test_D_by_hand(device):
    e = torch.eye(2, device=device)
    assert D(e, 3 * e).item() == pytest.approx(-1)
    assert D(e, -e).item() == pytest.approx(1)
    assert D(e, e.flip(0)).item() == pytest.approx(0, abs=1e-7)


def test_cross_entropy_equals_torchs(device):
    g = torch.Generator().manual_seed(0)
    p, z = (torch.randn(9, 5, generator=g).to(device) for _ in range(2))
    assert torch.allclose(cross_entropy(p, z), F.cross_entropy(p, z.softmax(-1)), atol=1e-6)


@pytest.mark.parametrize("affine", [True, False])
def test_without_a_predictor_the_stop_gradient_only_halves_the_gradient(device, affine):
    """Claim 2 (§4.2): h = identity and the symmetric loss."""
    xs = views(device)
    on, off = (gradients(small(device, predictor="none", stop_gradient=s, affine=affine), xs) for s in (True, False))
    assert on.keys() == off.keys() and any(g.abs().max() > 1e-6 for g in on.values())
    for name in on:
        assert torch.allclose(on[name], off[name] / 2, atol=1e-12), name


def test_with_a_predictor_the_stop_gradient_does_more_than_scale(device):
    xs = views(device)
    on, off = (gradients(small(device, stop_gradient=s), xs) for s in (True, False))
    name = "backbone.layer.weight"
    cosine = F.cosine_similarity(on[name].flatten(), off[name].flatten(), dim=0)
    assert cosine < 0.999


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_a_detached_target_lets_no_gradient_through(device, stop_gradient):
    """Claim 3 (§3): in the asymmetric loss, x2 is reached only through z2."""
    x1, x2 = views(device)
    x2.requires_grad_()
    small(device, symmetry="asymmetric", stop_gradient=stop_gradient)(x1, x2).loss.backward()
    reached = x2.grad is not None and x2.grad.abs().max() > 1e-8
    assert bool(reached) == (not stop_gradient)


def test_gradients_are_right_by_finite_differences(device):
    method = small(device, stop_gradient=False, predictor="linear")
    method.eval()  # fixed BN statistics: the loss is smooth in the weights
    xs = views(device, batch=4)
    w = method.backbone.layer.bias
    loss = lambda b: torch.func.functional_call(method, {"backbone.layer.bias": b}, tuple(xs)).loss  # noqa: E731
    assert torch.autograd.gradcheck(loss, (w.detach().clone().requires_grad_(),))


def test_swapping_the_views_leaves_the_symmetric_loss(device):
    x1, x2 = views(device)
    method = small(device)
    assert torch.allclose(method(x1, x2).loss, method(x2, x1).loss, atol=1e-12)
    method = small(device, symmetry="asymmetric")
    assert not torch.allclose(method(x1, x2).loss, method(x2, x1).loss, atol=1e-6)


def test_the_two_views_have_their_own_batch_statistics(device):
    """Trap T9: one pass over both views would be another model."""
    method, (x1, x2) = small(device), views(device)
    alone = method.projector(method.backbone(x1))
    together = method.projector(method.backbone(torch.cat([x1, x2 + 3])))[: len(x1)]
    assert torch.allclose(method(x1, x2).z1, alone, atol=1e-12)
    assert not torch.allclose(alone, together, atol=1e-3)


@pytest.mark.parametrize("symmetry", PAIRS)
def test_each_symmetry_counts_its_pairs(device, symmetry):
    """§4.6: against the loss written out term by term."""
    method = small(device, symmetry=symmetry).eval()
    xs = views(device, n=method.views_per_image)
    z = [method.projector(method.backbone(x)) for x in xs]
    term = lambda i, j: D(method.predictor(z[i]), z[j])  # noqa: E731
    by_hand = {"symmetric": lambda: (term(0, 1) + term(1, 0)) / 2, "asymmetric": lambda: term(0, 1),
               "asymmetric 2x": lambda: (term(0, 1) + term(2, 3)) / 2}[symmetry]()
    assert torch.allclose(method(*xs).loss, by_hand, atol=1e-12)


def test_a_fixed_predictor_passes_gradient_but_takes_none(device):
    found = gradients(small(device, predictor="fixed"), views(device))
    assert not any(name.startswith("predictor") for name in found)
    assert found["backbone.layer.weight"].abs().max() > 0


def test_param_groups_hold_every_trainable_weight_once(device):
    for switches in ({}, {"predictor": "fixed"}, {"predictor": "none"}, {"predictor_lr": "scheduled"}):
        method = small(device, **switches)
        groups = method.param_groups()
        weights = [w for group in groups for w in group["params"]]
        assert len(set(map(id, weights))) == len(weights)
        assert {id(w) for w in weights} == {id(w) for w in method.parameters() if w.requires_grad}
    assert [g["constant_lr"] for g in small(device).param_groups()] == [False, True]
    assert not any(g["constant_lr"] for g in small(device, predictor_lr="scheduled").param_groups())


def test_defaults_are_the_papers():
    method = SimSiam(Pixels(d=16), shape=(3, 4, 4))
    assert method.stop_gradient and method.similarity is D and method.pairs == ((0, 1), (1, 0))
    linears = [m for m in method.projector.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(16, 16), (16, 16), (16, 2048)]
    assert [(m.in_features, m.out_features) for m in method.predictor.modules() if isinstance(m, nn.Linear)] == [
        (2048, 512), (512, 2048)]
    norms = [m for m in method.projector.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 3 and all(m.affine for m in norms)


def test_the_seed_fixes_the_heads_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (SimSiam(Pixels(), dim=8, predictor_hidden=4, shape=(3, 4, 4), seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    same = [torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters())]
    assert all(same) and not torch.equal(a.predictor[0].weight, c.predictor[0].weight)


@pytest.mark.parametrize("switches, word", [
    ({"predictor": "mpl"}, "mlp"), ({"similarity": "cosin"}, "cosine"), ({"symmetry": "symetric"}, "symmetric"),
    ({"bn": "hiden"}, "hidden"), ({"predictor_lr": "const"}, "constant"),
])
def test_an_unknown_name_is_answered_with_the_nearest(switches, word):
    with pytest.raises(ValueError, match=f"Did you mean '{word}'"):
        SimSiam(Pixels(), shape=(3, 4, 4), **switches)


def test_an_argument_that_a_class_between_does_not_take_is_not_passed_over():
    class Mine(SimSiam):
        def __init__(self, backbone, *, alpha=1.0, **parts):
            super().__init__(backbone, alpha=alpha, **parts)
    with pytest.raises(TypeError, match="Mine: argument 'alpha' came as far as Siamese"):
        Mine(resnet(width=4, blocks=(1,)), dim=8)


@pytest.mark.parametrize("kind", [SimSiam, BYOL, MemoryBank])
def test_an_unknown_argument_is_answered_by_the_class_called_with_the_nearest(kind):
    with pytest.raises(TypeError, match=rf"^{kind.__name__}: argument: got 'hiden'.*Did you mean 'hidden'\?$"):
        kind(Pixels(), shape=(3, 4, 4), hiden=8, **({"n": 4} if kind is MemoryBank else {}))


def test_bad_views_are_refused(device):
    method, (x1, x2) = small(device), views(device)
    with pytest.raises(ValueError, match="got 1, this method expects 2"):
        method(x1)
    with pytest.raises(ValueError, match="expected one shape"):
        method(x1, x2[:3])
    with pytest.raises(ValueError, match="expected one shape"):
        method(x1.flatten(1), x2.flatten(1))
    with pytest.raises(TypeError, match="floating point"):
        method(x1.to(torch.uint8), x2.to(torch.uint8))
    with pytest.raises(TypeError, match="got ndarray"):
        method(x1.cpu().numpy(), x2.cpu().numpy())


def test_a_word_for_the_stop_gradient_is_refused():
    with pytest.raises(TypeError, match="stop_gradient: got 'none', expected True or False"):
        SimSiam(Pixels(), shape=(3, 4, 4), stop_gradient="none")      # it would count as True
