"""Mosaics: the picture computed by hand, what is drawn by chance, the doors through which they come."""
import math

import numpy as np
import pytest
import torch

from simsiam_explained.images import TEXTURES, load_images, textures
from simsiam_explained.mosaics import mosaics
from simsiam_explained.probes import factor_probe
from simsiam_explained.recipe import Recipe


def by_hand(factors, k, part, size):
    """Stripes (class 0) or checks (1) of image k in numpy, without noise: a sine, or a product of two, cut off at ±1."""
    kind, frequency, angle, contrast = (factors[f"{part} {name}"][k].item() for name in ("class", "frequency", "angle", "contrast"))
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    turned = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    a, b = (np.sin(2 * np.pi * (frequency * t + p)) for t, p in zip(turned, factors[f"{part} phase"][k].tolist()))
    return 255 * (0.5 + contrast / 2 * np.clip(4 * a * b if kind else 3 * a, -1, 1))


@pytest.mark.parametrize("size", [16, 25])
def test_a_mosaic_is_the_picture_that_its_factors_tell(size):
    images = mosaics(60, size, ("stripes", "checks"), seed=3)
    for k, picture in enumerate(images.pixels[:, 0].numpy()):
        row, column = images.factors["centre"][k].tolist()
        rows, columns = (np.mgrid[:size, :size] + 0.5) / size
        disc = np.hypot(rows - row, columns - column) < images.factors["radius"][k].item()
        expected = np.where(disc, by_hand(images.factors, k, "disc", size), by_hand(images.factors, k, "ground", size))
        off = np.abs(picture - expected)
        assert off.max() < 60 and off.mean() < 10, k                       # noise with a standard deviation of 10 levels


def test_a_class_is_a_pair_of_patterns_and_every_pair_occurs():
    images = mosaics(4000, 8, seed=1)
    disc, ground = (images.factors[f"{part} class"] for part in ("disc", "ground"))
    assert images.shape == (1, 8, 8) and len(images.classes) == 64 and images.name == "mosaics"
    for label, d, g in zip(images.labels[:50].tolist(), disc, ground):
        assert images.classes[label] == f"{TEXTURES[d]} on {TEXTURES[g]}"
    counts = images.labels.bincount(minlength=64)
    assert counts.min() > 30 and counts.max() < 100                        # 62.5 each, by chance: eight of one disc
    assert disc.bincount().tolist() == ground.bincount().tolist() == [500] * 8
    assert len(mosaics(10, 8, patterns=TEXTURES).classes) == 144


def test_the_causes_are_drawn_apart_and_fill_their_ranges():
    f = mosaics(4000, 8, seed=5).factors
    table = torch.stack([value.float() for value in f.values() if value.ndim == 1] + [
        c for name in ("disc phase", "ground phase") for c in f[name].T])
    assert len(table) == 13 and (torch.corrcoef(table) - torch.eye(13)).abs().max() < 0.06
    assert 0.3 <= f["radius"].min() < 0.305 and 0.445 < f["radius"].max() <= 0.45
    reach = torch.minimum(f["centre"], 1 - f["centre"]).min(1).values - f["radius"]
    assert -1e-6 < reach.min() < 0.01                                     # the disc lies inside, and may touch an edge


def test_same_seed_same_bytes_whatever_else_was_drawn(device):
    before = torch.get_rng_state()
    a, b, c = (mosaics(100, 8, seed=seed, device=device) for seed in (7, 7, 8))
    assert torch.equal(torch.get_rng_state(), before) and a.pixels.device.type == device.type
    assert torch.equal(a.pixels, b.pixels) and all(torch.equal(a.factors[name], b.factors[name]) for name in a.factors)
    assert not torch.equal(a.pixels, c.pixels)
    assert torch.equal(a.pixels.cpu(), mosaics(100, 8, seed=7).pixels)


@pytest.mark.parametrize("given, error, says", [
    ({"n": 0}, ValueError, "mosaics: n"), ({"n": 2.5}, TypeError, "mosaics: n"), ({"size": 7}, ValueError, "size 7"),
    ({"patterns": 13}, ValueError, "13, expected at most 12"), ({"patterns": "stripe"}, ValueError, "'stripes'")])
def test_what_cannot_be_drawn_is_refused(given, error, says):
    with pytest.raises(error, match=says):
        mosaics(**given)


def test_the_factor_probe_reads_both_textures_of_a_mosaic():
    def told(images):                                # features that hold the disc's pattern and angle, and nothing else
        f = images.factors
        turn = 2 * f["disc angle"]
        return torch.cat([torch.nn.functional.one_hot(f["disc class"], 3).float(), torch.stack([turn.sin(), turn.cos()], 1)], 1)

    train, test = mosaics(1500, 8, 3, seed=0), mosaics(600, 8, 3, seed=1)
    scores = factor_probe(told(train), train, told(test), test)
    assert set(scores) == set(train.factors) | {"class"}
    assert scores["disc class"] > 0.99 and scores["disc angle"] > 0.99
    assert abs(scores["ground class"] - 1 / 3) < 0.06 and abs(scores["ground angle"]) < 0.05


def test_they_come_through_the_doors_of_all_sets():
    train, test = load_images("mosaics", n=400, size=16, seed=1)
    whole = mosaics(500, 16, seed=1)
    assert (len(train), len(test)) == (400, 100) and torch.equal(torch.cat([train.pixels, test.pixels]), whole.pixels)
    assert torch.equal(test.labels, whole.labels[400:]) and test.classes == whole.classes
    with pytest.raises(ValueError, match="(?i)did you mean 'mosaics'"):
        load_images("mosaic")
    assert Recipe("mosaics").shape == (1, 32, 32) and Recipe("mosaics", n=9000).count == 9000     # there is no end to them
    assert Recipe("mosaics", n=8000).key == Recipe("mosaics").key != Recipe("textures").key


def test_a_disc_of_a_pattern_on_itself_is_a_class_too():
    images = mosaics(50, 16, ("dots",), seed=2)
    assert images.classes == ("dots on dots",) and images.labels.unique().tolist() == [0]
    assert not torch.equal(images.pixels, textures(50, 16, ("dots",), seed=2).pixels)
