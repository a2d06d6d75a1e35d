"""Encoders: equality with torchvision, shapes, the papers' heads layer by layer, refusals."""
import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from simsiam_explained.encoders import (BN_PLACEMENTS, STEMS, Layer, feature_dim, mlp, predictor, projector, resnet,
                                        summary)
from simsiam_explained.norms import split_bn, swap_norm
from simsiam_explained.vit import vit


def count(module):
    return sum(p.numel() for p in module.parameters())


def shape_only(make, *args, **kwargs):
    with torch.device("meta"):
        return make(*args, **kwargs)


def rows(head):
    """(in, out, bias, BN, affine, ReLU) of each layer."""
    return [layer[1:7] for layer in summary(head)]


# --- the backbone ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, ours", [
    ("resnet18", dict(blocks=(2, 2, 2, 2), block="basic")),
    ("resnet34", dict(blocks=(3, 4, 6, 3), block="basic")),
    ("resnet50", dict(blocks=(3, 4, 6, 3), block="bottleneck")),
])
def test_equals_torchvision_on_copied_weights(name, ours, device):
    theirs = getattr(torchvision.models, name)()
    theirs.fc = nn.Identity()
    net = resnet(64, stem="imagenet", **ours)
    generator = torch.Generator().manual_seed(0)
    for p in theirs.parameters():   # also the BN scales and offsets, so that a swapped pair would show
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    values = list(theirs.state_dict().values())
    assert [v.shape for v in net.state_dict().values()] == [v.shape for v in values]
    net.load_state_dict(dict(zip(net.state_dict(), values)))
    x = torch.randn(2, 3, 40, 40, generator=generator, dtype=torch.float64).to(device)
    net, theirs = net.to(device).double(), theirs.to(device).double()      # BN of two images makes much of rounding
    for train in (True, False):   # first with batch statistics, then with those that the first pass stored
        with torch.no_grad():
            torch.testing.assert_close(net.train(train)(x), theirs.train(train)(x), rtol=1e-9, atol=1e-9)


def test_initial_weights_follow_torchvision():
    ours, theirs = resnet(64, stem="imagenet", seed=0), torchvision.models.resnet18()
    theirs.fc = nn.Identity()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        if a.ndim == 4:
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.05)
        else:
            assert torch.equal(a, b)


@pytest.mark.parametrize("kwargs, millions", [   # without the 1000-way fc
    (dict(stem="cifar"), 11.17),                                                       # CIFAR ResNet-18
    (dict(stem="imagenet", blocks=(3, 4, 6, 3), block="bottleneck"), 25.56 - 2.049),   # ResNet-50
    (dict(stem="imagenet", blocks=(2, 2, 2, 2), block="bottleneck"), 16.00 - 2.049),   # Li et al. 2022, table 1
    (dict(stem="imagenet", blocks=(2, 2, 2, 2), block="bottleneck", inner=2), 39.67 - 2.049),
    (dict(stem="imagenet", blocks=(5, 6, 9, 4)), 30.80 - 0.513),
])
def test_parameter_counts_of_the_papers(kwargs, millions):
    assert count(shape_only(resnet, **kwargs)) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("stem, sizes", [
    ("cifar", (32, 32, 16, 8, 4)), ("stride2", (16, 16, 8, 4, 2)), ("imagenet", (8, 8, 4, 2, 1))])
@pytest.mark.parametrize("block, wide", [("basic", 1), ("bottleneck", 4)])
def test_shape_of_every_stage(stem, sizes, block, wide, device):
    net, seen = resnet(4, (1, 2, 1, 1), block, stem).to(device), {}
    for name, child in net.named_children():
        child.register_forward_hook(lambda m, i, out, name=name: seen.update({name: tuple(out.shape[1:])}))
    y = net(torch.zeros(2, 3, 32, 32, device=device))
    widths = (4, 4 * wide, 8 * wide, 16 * wide, 32 * wide)
    assert seen == {name: (w, s, s) for name, w, s in zip(("stem", *net.stages), widths, sizes)}   # never 34 × 34
    assert y.shape == (2, net.dim) and net.dim == widths[-1]


@pytest.mark.parametrize("blocks", [(1,), (2, 1), (1, 1, 1), (1, 1, 1, 1, 1)])
def test_any_number_of_stages_and_channels(blocks):
    net = resnet(3, blocks, channels=1, seed=0)
    assert net.stages == tuple(f"layer{k + 1}" for k in range(len(blocks)))
    assert net(torch.rand(2, 1, 20, 28)).shape == (2, net.dim) == (2, 3 * 2 ** (len(blocks) - 1))


def test_output_is_the_mean_of_the_last_map():
    net, seen = resnet(4, (1, 1)).eval(), []
    net.layer2.register_forward_hook(lambda m, i, out: seen.append(out))
    y = net(torch.rand(3, 3, 8, 8))
    torch.testing.assert_close(y, seen[0].flatten(2).mean(2))


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_zero_init_makes_each_residual_body_silent(block):
    for zero_init in (True, False):
        net = resnet(4, (2, 2), block, zero_init=zero_init, seed=0)
        x = torch.rand(2, 4 * (4 if block == "bottleneck" else 1), 8, 8)
        second = net.layer1[1]   # its shortcut is the identity
        assert torch.equal(second(x), x) is zero_init


def test_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    makers = [lambda seed: resnet(4, (1, 1), seed=seed), lambda seed: projector(8, 8, seed=seed),
              lambda seed: predictor(8, seed=seed), lambda seed: mlp((3, 4), seed=seed)]
    for make in makers:
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        a, b, other = make(0), make(0), make(7)
        assert torch.equal(torch.rand(3), expected)
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
        assert not torch.equal(next(a.parameters()), next(other.parameters()))
        torch.manual_seed(1)
        c, d = make(None), make(None)   # without a seed the global generator decides, and moves on
        assert not torch.equal(next(c.parameters()), next(d.parameters()))


def test_channels_last_and_bfloat16_change_nothing_but_rounding(device):
    net, x = resnet(8, (1, 1), seed=0).to(device), torch.rand(4, 3, 16, 16, device=device)
    y = net.eval()(x)
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)), y,
                               rtol=1e-2, atol=1e-2)   # wide enough for TF32 on a GPU
    with torch.autocast(device.type, torch.bfloat16):
        torch.testing.assert_close(net(x).float(), y, rtol=0.1, atol=0.05)


# --- the heads ------------------------------------------------------------------------------------------------------

def test_simsiam_heads_on_imagenet_layer_by_layer():
    # SimSiam §3; the output BN has scale and offset in the default entry of §4.4, none in the code
    assert rows(shape_only(projector, 2048)) == [
        (2048, 2048, False, True, True, True), (2048, 2048, False, True, True, True),
        (2048, 2048, False, True, True, False)]
    assert rows(shape_only(projector, 2048, affine=False))[-1] == (2048, 2048, False, True, False, False)
    assert rows(shape_only(predictor)) == [
        (2048, 512, False, True, True, True), (512, 2048, True, False, False, False)]
    assert count(shape_only(projector, 2048)) / 1e6 == pytest.approx(12.6, abs=0.01)
    assert count(shape_only(predictor)) / 1e6 == pytest.approx(2.1, abs=0.01)


def test_simsiam_heads_on_cifar_layer_by_layer():
    head = shape_only(projector, 512, layers=2, hidden=2048)
    assert rows(head) == [(512, 2048, False, True, True, True), (2048, 2048, False, True, True, False)]
    assert count(head) == 5_251_072   # ≈ 5.2 M (with the output BN's 4,096)
    assert [r[:2] for r in rows(shape_only(projector, 512))] == [(512, 512), (512, 512), (512, 2048)]   # as the code


def test_byol_and_moco_v3_heads_by_the_same_builder():
    byol = shape_only(mlp, (2048, 4096, 256), bias_hidden=True, bias_out=False)   # BYOL §3.3 and its code
    assert rows(byol) == [(2048, 4096, True, True, True, True), (4096, 256, False, False, False, False)]
    moco = dict(bias_hidden=False, bias_out=False, affine_out=False)              # MoCo v3's code
    vit = shape_only(mlp, (384, 4096, 4096, 256), bn_out=True, **moco)
    assert rows(vit) == [(384, 4096, False, True, True, True), (4096, 4096, False, True, True, True),
                         (4096, 256, False, True, False, False)]
    assert rows(shape_only(mlp, (256, 4096, 256), **moco)) == [
        (256, 4096, False, True, True, True), (4096, 256, False, False, False, False)]


@pytest.mark.parametrize("bn, marks", [   # projector hidden, projector out, predictor hidden, predictor out
    ("none", (0, 0, 0, 0)), ("hidden", (1, 0, 1, 0)), ("default", (1, 1, 1, 0)), ("all", (1, 1, 1, 1))])
def test_bn_placement_is_simsiam_table_3(bn, marks):
    f, h = summary(projector(8, 8, bn=bn)), summary(predictor(8, bn=bn))
    assert (f[0].bn, f[-1].bn, h[0].bn, h[-1].bn) == marks and f[1].bn == f[0].bn
    for layer in f + h:
        assert layer.bias is not layer.bn   # a bias exactly where no BN follows
    assert [layer.relu for layer in f + h] == [True, True, False, True, False]


def test_head_forward_is_the_composition_of_its_layers(device):
    head = mlp((5, 7, 3), bn_out=True, seed=0).to(device)
    x = torch.randn(6, 5, device=device)
    a = x @ head.fc1.weight.T
    a = ((a - a.mean(0)) / (a.var(0, unbiased=False) + 1e-5).sqrt()).relu()
    z = a @ head.fc2.weight.T
    torch.testing.assert_close(head(x), (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt(),
                               rtol=1e-4, atol=1e-4)


def test_fc_init_is_pytorchs_default():
    for layer in projector(400, 400, bn="none", seed=0).children():   # SimSiam App. A: uniform(-1/√in, 1/√in)
        if isinstance(layer, nn.Linear):
            assert 0.049 < layer.weight.abs().max().item() <= 0.05
            assert layer.weight.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.02)


def test_bias_before_bn_gets_no_gradient(device):
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)).to(device)
    with_bias = mlp((16, 32, 8), bias_hidden=True, bn_out=True, bias_out=True, seed=0).to(device)
    with_bias(x).pow(4).mean().backward()
    for fc in (with_bias.fc1, with_bias.fc2):
        assert fc.bias.grad.norm() < 1e-5 * fc.weight.grad.norm()
    without_bn = mlp((16, 32, 8), bn_hidden=False, seed=0).to(device)
    without_bn(x).pow(4).mean().backward()
    assert without_bn.fc1.bias.grad.norm() > 1e-2 * without_bn.fc1.weight.grad.norm()


def test_affine_moves_the_output_mean_and_no_affine_fixes_it():
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    free, fixed = projector(8, 8, seed=0), projector(8, 8, affine=False, seed=0)
    with torch.no_grad():
        free.bn3.bias += 3
    assert free(x).mean(0).min() > 2.9
    assert fixed(x).mean(0).abs().max() < 1e-5 and fixed.bn3.weight is None


def test_small_dimensions_keep_one_hidden_unit():
    assert summary(predictor(3))[0].n_out == 1 and summary(predictor(8))[0].n_out == 2


def test_summary_counts_every_parameter():
    head = projector(12, 20, layers=4, hidden=9, bn="hidden")
    assert sum(layer.parameters for layer in summary(head)) == count(head)
    assert summary(nn.Sequential(nn.Flatten(), nn.Linear(4, 2))) == [Layer("1", 4, 2, True, False, False, False, 10)]


# --- asking a backbone for its d ------------------------------------------------------------------------------------

class Stubborn(nn.Module):
    """Counts its forward passes in a buffer, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, x):
        self.passes += 1
        return x.flatten(1)


def test_feature_dim_asks_any_module_and_leaves_it_as_it_was(device):
    net = nn.Sequential(resnet(4, (1, 1), channels=5, seed=0), nn.BatchNorm1d(8), Stubborn()).to(device)
    net[1].eval()   # a frozen part must stay frozen
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert feature_dim(net) == 8
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert net.training and net[0].layer1.training and not net[1].training
    assert torch.is_grad_enabled() and all(p.grad is None for p in net.parameters())


def test_feature_dim_of_other_peoples_modules():
    theirs = torchvision.models.resnet18()
    assert feature_dim(theirs) == 1000   # its classes: replace fc
    theirs.fc = nn.Identity()
    assert feature_dim(theirs) == 512
    assert feature_dim(nn.Flatten(), shape=(3, 8, 8)) == 192
    assert feature_dim(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), shape=(1, 8, 8)) == 7
    assert feature_dim(resnet(4, (1,)).double()) == 4


def test_feature_dim_restores_the_mode_when_the_backbone_raises():
    net = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"failed on black images of shape \(2, 3, 32, 32\).*shape=\(C, H, W\)"):
        feature_dim(net)
    assert net.training and net[1].training


@pytest.mark.parametrize("backbone, message", [
    (nn.Conv2d(3, 8, 3), r"Conv2d: got output \(2, 8, 30, 30\).*expected a tensor \(2, d\).*nn.Flatten"),
    (nn.Flatten(0), r"got output \(6144,\)"),
    (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(0, 2)), r"got output \(512, 32\) for input"),   # 2-D, wrong batch
])
def test_feature_dim_refuses_what_is_not_one_vector_per_image(backbone, message):
    with pytest.raises(ValueError, match=message):
        feature_dim(backbone)


def test_feature_dim_refuses_tuples_and_non_modules():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    with pytest.raises(ValueError, match="got output tuple.*picks one tensor"):
        feature_dim(Pair())
    with pytest.raises(TypeError, match="backbone: got str, expected a torch.nn.Module"):
        feature_dim("resnet18")
    with pytest.raises(ValueError, match=r"shape: got \(32, 32\), expected \(C, H, W\)"):
        feature_dim(resnet(4, (1,)), shape=(32, 32))
    with pytest.raises(ValueError, match=r"shape: got 32, expected \(C, H, W\)"):
        feature_dim(resnet(4, (1,)), shape=32)


class Helped(nn.Module):
    """Puts out two tensors in train mode, as GoogLeNet does."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072))

    def forward(self, x):
        return (self.body(x), self.body(x)) if self.training else self.body(x)


def test_feature_dim_asks_in_train_mode_too_and_leaves_the_net_as_it_was():
    for net in (Helped(), nn.Sequential(Helped())):
        before = {k: v.clone() for k, v in net.state_dict().items()}
        with pytest.raises(ValueError, match="got output tuple for input .* in train mode.*picks one tensor"):
            feature_dim(net.eval())
        assert not any(m.training for m in net.modules())
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_feature_dim_takes_norms_that_need_a_larger_batch_or_learn_from_the_first_one():
    split = split_bn(resnet(4, (1, 1), seed=0), 8)
    matched = swap_norm(resnet(4, (1, 1), seed=0), "matched")
    before = copy.deepcopy(matched.state_dict())
    assert feature_dim(split) == feature_dim(matched) == 8
    assert all(torch.equal(v, before[k]) for k, v in matched.state_dict().items())


def test_feature_dim_asks_a_net_that_knows_its_shape_with_that():
    assert feature_dim(vit(shape=(3, 16, 16), patch=8, width=12, depth=1, heads=3)) == 12
    assert feature_dim(resnet(4, (1,), channels=1)) == 4


# --- refusals -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make, error, message", [
    (lambda: resnet(0), ValueError, "width: got 0, expected a whole number ≥ 1"),
    (lambda: resnet(16.0), TypeError, "width: got 16.0"),
    (lambda: resnet(4, channels=0), ValueError, "channels: got 0"),
    (lambda: resnet(4, ()), ValueError, r"blocks: got \(\), expected one whole number per stage"),
    (lambda: resnet(4, 2), ValueError, "blocks: got 2, expected one whole number per stage"),
    (lambda: resnet(4, (1, 0)), ValueError, "blocks: got 0"),
    (lambda: resnet(4, block="botleneck"), ValueError, "block: got 'botleneck'.*Did you mean 'bottleneck'"),
    (lambda: resnet(4, stem="Cifar"), ValueError, "stem: got 'Cifar'.*Did you mean 'cifar'"),
    (lambda: resnet(4, inner=2), ValueError, "inner: got 2 with basic blocks.*block='bottleneck'"),
    (lambda: resnet(4, block="bottleneck", inner=0), ValueError, "inner: got 0"),
    (lambda: projector(8, 8, bn="hiden"), ValueError, "bn: got 'hiden'.*Did you mean 'hidden'"),
    (lambda: predictor(8, bn="defualt"), ValueError, "bn: got 'defualt'.*Did you mean 'default'"),
    (lambda: projector(8, 8, layers=0), ValueError, "layers: got 0"),
    (lambda: projector(8, 0), ValueError, "dims: got 0"),
    (lambda: projector(8, 8, affine="no"), TypeError, "affine: got 'no', expected True or False"),
    (lambda: predictor(0), ValueError, "dim: got 0"),
    (lambda: predictor(8, hidden=0), ValueError, "dims: got 0"),
    (lambda: mlp((512,)), ValueError, r"dims: got \(512,\), expected at least two widths"),
    (lambda: mlp(512), ValueError, "dims: got 512, expected at least two widths"),
    (lambda: mlp((4, 2.5)), TypeError, "dims: got 2.5"),
])
def test_bad_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("x, error, message", [
    (torch.zeros(2, 1, 8, 8), ValueError, r"got shape \(2, 1, 8, 8\), expected \(B, 3, H, W\).*channels=…"),
    (torch.zeros(3, 8, 8), ValueError, r"got shape \(3, 8, 8\), expected \(B, 3, H, W\)"),
    (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), TypeError, "got dtype torch.uint8.*views.clean"),
])
def test_wrong_images_are_named(x, error, message):
    with pytest.raises(error, match=message):
        resnet(4, (1,))(x)


def test_every_name_that_is_offered_works():
    x = torch.rand(4, 3, 16, 16)
    for stem in STEMS:
        for bn in BN_PLACEMENTS:
            z = projector(8, 12, bn=bn)(resnet(4, (1, 1), stem=stem)(x))
            assert predictor(12, bn=bn)(z).shape == (4, 12)


class Counts(nn.Module):
    """A net with a buffer that each training pass puts anew, and whose train mode needs eight images."""
    shape = (32, 32)

    def __init__(self, least):
        super().__init__()
        self.inner, self.least = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), least
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            assert len(x) >= self.least
            self.seen = self.seen + 1
        return self.inner(x)


@pytest.mark.parametrize("least", [1, 8])
def test_asking_in_train_mode_leaves_the_net_as_it_was_and_forgives_a_batch_that_is_too_small(least):
    net = Counts(least)
    assert feature_dim(net, (3, 4, 4)) == feature_dim(net, np.array([3, 4, 4])) == 5 and net.seen == 0


NARROW = """
import torch
from simsiam_explained.encoders import resnet
torch.set_num_threads(3)
net = resnet(8, (1, 1), stem="stride2", channels=1, seed=0).to(memory_format=torch.channels_last)
for _ in range(60):
    net(torch.randn(64, 1, 24, 24).contiguous(memory_format=torch.channels_last)).square().mean().backward()
"""


def test_a_narrow_net_trains_on_three_threads():
    """A 1 × 1 convolution of stride 2 with 8 channels crashes there, by torch 2.15: in a process of its own."""
    assert subprocess.run([sys.executable, "-c", NARROW]).returncode == 0
