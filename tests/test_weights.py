"""Kept backbones: what 8 bits cost, what is refused, and that each file of data/weights still scores what it says."""
from pathlib import Path

import numpy as np
import pytest
import torch
from evidence_kit import TINY
from torch import nn

from simsiam_explained.images import cache_dir
from simsiam_explained.recipe import Recipe
from simsiam_explained.records import records_dir, write_record
from simsiam_explained.runs import run_recipe, score
from simsiam_explained.weights import load_backbone, pack, save_backbone, unpack, weights_dir

OURS = sorted((Path(__file__).resolve().parent.parent / "data" / "weights").glob("*.npz"))
CIFAR = (cache_dir() / "cifar10.npz").is_file() or (cache_dir() / "cifar10-test.npz").is_file()


@pytest.fixture(scope="module")
def made():
    return run_recipe(TINY, 0, device="cpu")


@pytest.fixture
def kept(made, folders):
    """A record and its backbone in empty folders."""
    record, method = made
    write_record(record)
    after = save_backbone(method.backbone, record, lambda net: score(net, TINY, "cpu"))
    return record, method.backbone, after


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (5, 7)])
def test_rounding_is_at_most_half_a_step_of_each_channel(shape, device):
    sizes = torch.logspace(-6, 6, shape[0]).view(-1, *[1] * (len(shape) - 1))
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * sizes
    back = unpack(pack({"w": weight.to(device)}))["w"]
    step = weight.flatten(1).abs().amax(1) / 127
    error = (back - weight).flatten(1).abs().amax(1)
    assert back.dtype == torch.float32 and (error <= step / 2 * 1.001).all() and (error > step / 10).any()
    torch.testing.assert_close(back.flatten(1).abs().amax(1), weight.flatten(1).abs().amax(1))     # exact


def test_a_channel_of_zeros_stays_one_and_vectors_stay_exact():
    state = {"w": torch.zeros(2, 3), "bias": torch.randn(5), "count": torch.tensor(7), "v": torch.rand(4).double()}
    back = unpack(pack(state))
    assert set(back) == set(state)
    assert all(torch.equal(back[k], state[k]) and back[k].dtype == state[k].dtype for k in state)


def test_a_packed_net_has_the_names_and_shapes_of_the_net():
    net = TINY.build().backbone
    assert net.load_state_dict(unpack(pack(net.state_dict()))) == nn.modules.module._IncompatibleKeys([], [])


def test_a_kept_backbone_is_loaded_by_one_call(kept):
    record, backbone, after = kept
    loaded, of, knn = load_backbone(record.name)
    assert of.digest == record.digest and knn == after and not loaded.training
    assert score(loaded, TINY, "cpu") == knn and abs(knn - record.final["kNN"]) < 0.2
    path = weights_dir() / f"{record.name}.npz"
    assert path.stat().st_size < 1.5 * sum(w.numel() for w in backbone.parameters()) + 20_000
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_kept_is_not_changed_by_keeping_it(made, folders):
    record, method = made
    before = [w.clone() for w in method.backbone.parameters()]
    save_backbone(method.backbone, record, lambda net: 0.5)
    assert all(torch.equal(a, b) for a, b in zip(before, method.backbone.parameters()))


def test_a_name_that_is_not_there_is_answered_with_those_that_are(kept):
    with pytest.raises(FileNotFoundError, match=f"there is no 'x-s0' in .*; there are: {kept[0].name}"):
        load_backbone("x-s0")


def test_without_anything_kept_that_is_said(folders):
    with pytest.raises(FileNotFoundError, match="there are: none"):
        load_backbone("x-s0")


def test_a_backbone_without_its_record_is_refused(kept):
    (records_dir() / f"{kept[0].name}.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no record"):
        load_backbone(kept[0].name)


def test_a_damaged_record_is_named(kept):
    (records_dir() / f"{kept[0].name}.json").write_text("{")
    with pytest.raises(ValueError, match=f"{kept[0].name}.json: cannot be read"):
        load_backbone(kept[0].name)


def another_net(path):
    save_backbone(TINY.but(width=6).build().backbone, type("R", (), {"name": path.stem})(), lambda net: 0.5)


def flipped(path):
    """One byte in the middle of the arrays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [
    lambda p: p.write_bytes(p.read_bytes()[:500]), lambda p: p.write_bytes(b""), lambda p: p.write_bytes(b"no zip"),
    flipped, another_net, lambda p: np.savez(p, a=np.zeros(3)), lambda p: np.savez(p, a=np.array([None])),
], ids=["truncated", "empty", "foreign", "a bit flipped", "another net", "other arrays", "objects"])
def test_a_damaged_file_is_named(kept, damage):
    damage(weights_dir() / f"{kept[0].name}.npz")
    with pytest.raises(ValueError, match=f"{kept[0].name}.npz is damaged or not of its record's net"):
        load_backbone(kept[0].name)


@pytest.mark.skipif(not OURS, reason="no backbones are kept in data/weights")
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_each_kept_file_loads_and_is_small(path):
    _, record, knn = load_backbone(path.stem)
    assert path.stat().st_size <= 16 * 2**20 and record.status != "diverged"
    assert abs(knn - record.final["kNN"]) < 0.01                                   # what 8 bits cost: less than a point


@pytest.mark.skipif(not OURS, reason="no backbones are kept in data/weights")
@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_each_kept_file_scores_what_it_says(path, device):
    """On all training and test images, by the protocol of all records."""
    backbone, record, knn = load_backbone(path.stem)
    recipe = Recipe(**record.recipe)
    if recipe.images == "cifar10" and not CIFAR:
        pytest.skip(f"CIFAR-10 is not in {cache_dir()}: put cifar10.npz there, or run images.cifar10() once")
    if device.type == "cpu" and recipe.whole()["net"]["width"] > 16:
        pytest.skip("too large a net to score on a CPU in a test")
    assert score(backbone.to(device), recipe, str(device)) == pytest.approx(knn, abs=0.001)
