"""The chain of linear layers: its form, its twin road through torch.nn, and the collapse that depth brings."""
import pytest
import torch
from torch import nn

from simsiam_explained.chains import Chain, ChainRun, chain_layers, first_chain, train_chain
from simsiam_explained.chains import _loss, _outputs, _read
from simsiam_explained.collapse import auc, spectrum
from simsiam_explained.simsiam import D


def test_the_representation_has_one_size_and_the_chain_its_width():
    weights = first_chain(Chain(width=5, depth=3, dim=12), 20, [0, 1])
    passed = chain_layers(weights, torch.randn(20, 50))
    assert [tuple(h.shape) for h in passed] == [(2, 5, 50)] * 3 + [(2, 12, 50)]
    assert torch.linalg.matrix_rank(passed[-1]).tolist() == [5, 5]


def test_a_seed_has_the_same_first_weights_alone_and_among_others():
    alone, among = first_chain(Chain(), 32, [3]), first_chain(Chain(), 32, [1, 3])
    assert all(torch.equal(alone[name][0], among[name][1]) for name in alone)
    assert not torch.equal(among["c0"][0], among["c0"][1])


def test_first_weights_keep_the_size_of_what_passes():
    weights = first_chain(Chain(width=64, depth=6, dim=64), 64, range(20))
    x = torch.randn(64, 200, generator=torch.Generator().manual_seed(0))
    assert all(0.8 < h.var() < 1.25 for h in chain_layers(weights, x))


def test_the_loss_is_simsiams_on_modules_of_torch():
    weights = first_chain(Chain(width=6, depth=2, dim=8), 10, [0, 1])
    x = torch.randn(2, 10, 2 * 16, generator=torch.Generator().manual_seed(1))
    loss = _loss(weights, None, x)
    for run in range(2):
        w = {name: value[run] for name, value in weights.items()}

        def linear(name):
            layer = nn.Linear(*w[name].T.shape, bias=False)
            layer.weight.data = w[name].clone()
            return layer

        def bn(d):
            return nn.BatchNorm1d(d, affine=False)

        f = nn.Sequential(linear("c0"), linear("c1"), linear("r"), linear("g1"), bn(8), nn.ReLU(), linear("g2"), bn(8))
        h = nn.Sequential(linear("h1"), bn(2), nn.ReLU(), linear("h2"))
        z1, z2 = (f(part.T) for part in x[run].chunk(2, -1))
        expected = (D(h(z1), z2.detach()) + D(h(z2), z1.detach())) / 2
        assert abs(loss[run] - expected) < 1e-5


def test_the_target_of_simsiam_takes_no_gradient_and_a_slow_one_is_another_net():
    weights = first_chain(Chain(depth=1), 32, [0])
    slow = {name: w.clone() for name, w in weights.items()}
    for w in weights.values():
        w.requires_grad_()
    x = torch.randn(1, 32, 2 * 32, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad(_loss(weights, target, x).sum(), list(weights.values())) for target in (None, slow)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients))     # an equal target gives an equal gradient
    assert _outputs(slow, x).shape == (1, 32, 64)


def test_content_is_read_from_what_holds_it_and_from_nothing_else():
    truth = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.stack([truth[:, :2] @ torch.tensor([[1.0, 0, 2], [0, 3, 1]], dtype=torch.float64), truth])
    found = _read(y, truth)
    assert (found[0, :2] > 0.99).all() and abs(found[0, 2]) < 0.02 and (found[1] > 0.99).all()


def test_depth_steepens_the_spectrum_and_lets_neither_loss_nor_std_know():
    shallow, deep = (train_chain(Chain(depth=depth), 3, 300) for depth in (1, 8))
    for seed in range(3):
        a, b = shallow.row(seed), deep.row(seed)
        assert b["loss"] < a["loss"] + 0.02 and min(a["std"], b["std"]) > 0.9
        assert b["AUC"] > a["AUC"] + 0.05 and b["gain"] < a["gain"] - 0.02
    assert deep.layers.shape == (2, 8, 3) and (deep.layers[1].diff(dim=0) > 0).all()
    assert deep.row()["gain"] < 0 < shallow.row()["gain"]


def test_a_slow_target_loses_less():
    plain, slow = (train_chain(Chain(depth=8, ema=ema), 3, 200) for ema in (0.0, 0.99))
    assert slow.row()["AUC"] < plain.row()["AUC"] and slow.row()["gain"] > plain.row()["gain"] + 0.02


def test_seeds_do_not_know_of_each_other():
    alone, among = train_chain(Chain(depth=2), [4], 30), train_chain(Chain(depth=2), [0, 4], 30)
    assert torch.allclose(alone.content[:, 0], among.content[:, 1], atol=1e-3)
    assert isinstance(alone, ChainRun) and abs(among.row(1)["AUC"] - alone.row()["AUC"]) < 1e-3


def test_an_untrained_product_of_matrices_is_steeper_the_longer_it_is():
    areas = [float(auc(spectrum(chain_layers(first_chain(Chain(depth=depth), 16, range(5)),
                                             torch.randn(16, 2000))[-2].mT)).mean()) for depth in (1, 2, 4, 8)]
    assert areas == sorted(areas) and areas[-1] > areas[0] + 0.15


@pytest.mark.parametrize(("wrong", "error", "told"), [
    ({"width": 0}, ValueError, "width"), ({"depth": 1.5}, TypeError, "depth"), ({"dim": -1}, ValueError, "dim"),
    ({"ema": 1.0}, ValueError, "never move"), ({"ema": -0.1}, ValueError, "ema")])
def test_chains_that_cannot_be_are_refused(wrong, error, told):
    with pytest.raises(error, match=told):
        Chain(**wrong)


def test_runs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="seeds"):
        train_chain(Chain(), 0, 5)
    with pytest.raises(ValueError, match="steps"):
        train_chain(Chain(), 1, 0)
