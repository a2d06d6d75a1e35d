"""Image sets: made, read from files and folders, fetched once; and what is refused."""
import math
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from simsiam_explained import files, images as images_module
from simsiam_explained.images import (TEXTURES, Images, cache_dir, cifar10, cifar100, digits, from_folder, from_npz,
                                      from_tensor, load_images, stl10, textures)


def random_bytes(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# --- the set itself

def test_an_index_carries_labels_and_factors(device):
    images = textures(40, size=16, device=device)
    numbers = torch.tensor([3, 1, 39])
    for index, expected in [(slice(2, 5), [2, 3, 4]), ([3, 1, 39], numbers), (numbers, numbers),
                            (numbers.byte(), numbers), (numbers.numpy().astype(np.uint8), numbers),     # no masks
                            (torch.tensor([0, -1], dtype=torch.int8), [0, 39]),
                            (numbers.to(device), numbers), ([], []),
                            (images.labels == 2, (images.labels == 2).nonzero().flatten().cpu())]:
        part, rows = images[index], torch.as_tensor(expected, dtype=torch.int64, device=device)
        assert len(part) == len(rows) and part.classes == images.classes and part.name == images.name
        assert torch.equal(part.pixels, images.pixels[rows]) and torch.equal(part.labels, images.labels[rows])
        assert all(torch.equal(part.factors[k], v[rows]) for k, v in images.factors.items())


@pytest.mark.parametrize("index, error, says", [
    (3, TypeError, r"images\[\[3\]\]"), ([0.5], TypeError, "float32"), ([[1]], TypeError, r"\(1, 1\)"),
    (np.array([10], np.uint8), IndexError, "10 were asked of a set of 10"),
    ([10], IndexError, "10 were asked of a set of 10"), ([-11], IndexError, "-11"),
    ([True, False], IndexError, "mask")])
def test_an_index_that_does_not_fit_is_refused(index, error, says):
    with pytest.raises(error, match=says):
        textures(10, size=8)[index]


def test_split_parts_the_set_once_and_alike():
    images = textures(50, size=8)
    first, rest = images.split(20, seed=3)
    assert (len(first), len(rest)) == (20, 30)
    key = lambda s: sorted(s.factors["angle"].tolist())
    assert sorted(key(first) + key(rest)) == key(images)                            # every image in one of the two
    assert torch.equal(first.pixels, images.split(20, seed=3)[0].pixels)
    assert not torch.equal(first.pixels, images.split(20, seed=4)[0].pixels)
    for n, error in [(50, ValueError), (0, ValueError), (2.5, TypeError)]:
        with pytest.raises(error, match="split"):
            images.split(n)


def test_an_image_set_is_immutable_and_moves_as_a_whole(device):
    images = textures(8, size=8, colour=True).to(device)
    assert {t.device.type for t in (images.pixels, images.labels, *images.factors.values())} == {device.type}
    with pytest.raises(AttributeError):
        images.name = "other"


# --- tensors

def test_from_tensor_keeps_bytes_and_scales_floats(device):
    pixels = random_bytes(5, 3, 6, 4).to(device)
    assert torch.equal(from_tensor(pixels).pixels, pixels)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(from_tensor(pixels.to(dtype) / 255).pixels, pixels)      # every byte comes back
    assert from_tensor(torch.full((1, 1, 2, 2), 0.999, device=device)).pixels.unique().tolist() == [255]  # nearest byte
    images = from_tensor(pixels, labels=[0, 2, 1, 0, 2], classes="abc", factors={"t": torch.arange(5.)}, name="mine")
    assert images.shape == (3, 6, 4) and images.classes == ("a", "b", "c") and images.name == "mine"
    assert images.labels.dtype == torch.int64 and images.labels.device.type == device.type
    assert from_tensor(pixels, labels=[0, 2, 1, 0, 2]).classes == ("0", "1", "2")


@pytest.mark.parametrize("pixels, error, says", [
    (np.zeros((2, 1, 4, 4)), TypeError, "ndarray.*torch.from_numpy"),
    (torch.zeros(2, 4, 4), ValueError, r"\(2, 4, 4\).*four axes"),
    (torch.zeros(0, 3, 4, 4), ValueError, "empty"),
    (torch.zeros(2, 4, 8, 8), ValueError, "4 channels.*expected 1 or 3"),
    (torch.zeros(2, 8, 8, 3), ValueError, r"8 channels.*permute\(0, 3, 1, 2\)"),
    (torch.zeros(2, 1, 4, 4, dtype=torch.int64), TypeError, "int64.*uint8"),
    (torch.tensor([-0.5, 2.0]).view(2, 1, 1, 1), ValueError, r"-0.5 to 2, expected \[0, 1\]"),
    (torch.full((1, 1, 2, 2), 255.0), ValueError, "divide bytes by 255"),
    (torch.tensor([math.nan, 0.5]).view(2, 1, 1, 1), ValueError, "nan"),
    (torch.full((1, 1, 2, 2), math.inf), ValueError, "inf")])
def test_from_tensor_refuses(pixels, error, says):
    with pytest.raises(error, match=says):
        from_tensor(pixels)


@pytest.mark.parametrize("given, error, says", [
    ({"labels": [0, 1]}, ValueError, "2 for 3 images"), ({"labels": [0.0, 1.0, 1.0]}, TypeError, "float32"),
    ({"labels": [0, 1, -1]}, ValueError, "-1 to 1"),
    ({"labels": ["cat", "dog", "cat"]}, TypeError, "got \\['cat', 'dog', 'cat'\\], expected a row of numbers.*np.unique"),
    ({"labels": np.array(["cat", "dog", "cat"])}, TypeError, "'cat'.*np.unique"),
    ({"labels": [None] * 3}, TypeError, "got \\[None, None, None\\].*leave it out"),
    ({"factors": {"angle": None}}, TypeError, "'angle': got None.*leave it out"),
    ({"labels": {0, 1}}, TypeError, r"got \{0, 1\}.*row of numbers"), ({"labels": {0: 1}}, TypeError, r"got \{0: 1\}.*row of"),
    ({"factors": {"kind": ["a", "b", "c"]}}, TypeError, r"factors: 'kind': got \['a', 'b', 'c'\].*np.unique"),
    ({"labels": [0, 1, 2], "classes": ["a", "b"]}, ValueError, "0 to 2"),
    ({"factors": {"angle": torch.zeros(2)}}, ValueError, "'angle' has 2 rows for 3 images")])
def test_labels_and_factors_must_fit(given, error, says):
    with pytest.raises(error, match=says):
        from_tensor(random_bytes(3, 1, 4, 4), **given)


def test_what_the_methods_return_is_said():
    for name, says in [("shape", "(C, H, W)"), ("to", "`device`"), ("__getitem__", "mask (N,)"), ("split", "N − n")]:
        assert says in getattr(Images, name).__doc__


# --- textures

def test_textures_have_the_stated_form(device):
    for colour, channels in [(False, 1), (True, 3)]:
        images = textures(83, size=24, colour=colour, device=device)
        assert images.pixels.shape == (83, channels, 24, 24) and images.pixels.dtype == torch.uint8
        assert images.pixels.device.type == device.type and images.classes == TEXTURES[:8]
        assert images.labels.bincount().tolist() in ([11] * 3 + [10] * 5,)         # shared evenly
        known = {"class", "frequency", "angle", "phase", "contrast"}
        assert set(images.factors) == known | ({"colours"} if colour else set())
        assert torch.equal(images.factors["class"], images.labels)


def test_factors_fill_their_stated_ranges():
    f = textures(4000, size=8, colour=True, seed=5).factors
    big = textures(4000, size=32).factors
    for values, low, high in [(big["frequency"], 2, 5), (f["frequency"], 2 / 3, 4 / 3), (f["angle"], 0, math.pi),
                              (f["phase"], -0.5, 0.5), (f["contrast"], 0.4, 1), (f["colours"], 0, 1)]:
        margin = 0.01 * (high - low)
        assert low <= values.min() < low + margin and high - margin < values.max() <= high
    away = (f["colours"][:, 0] - f["colours"][:, 1]).abs()
    assert torch.minimum(away, 1 - away).min() > 0.29              # the two colours differ in every channel


def test_same_seed_same_bytes_whatever_else_was_drawn():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a = textures(200, seed=7)
    torch.rand(5)
    b, c = textures(200, seed=7), textures(200, seed=8)
    torch.set_rng_state(before)
    assert torch.equal(a.pixels, b.pixels) and all(torch.equal(a.factors[k], b.factors[k]) for k in a.factors)
    assert not torch.equal(a.pixels, c.pixels)
    torch.manual_seed(0)
    textures(10)
    assert torch.equal(torch.get_rng_state(), before)                               # the global generator is left alone


def test_the_bytes_do_not_depend_on_the_device(device):
    assert torch.equal(textures(100, seed=1, device=device).pixels.cpu(), textures(100, seed=1).pixels)


def test_every_class_is_a_pattern_and_no_two_are_alike():
    images = textures(1200, classes=TEXTURES, seed=2)
    spread = images.pixels.float().flatten(1).std(1)
    assert spread.min() > 12                                                        # none is blank (noise alone: 10)
    x = images.pixels.float().flatten(1)
    spectra = torch.fft.fft2(x.view(-1, 32, 32) - x.mean(1)[:, None, None]).abs().flatten(1)
    means = torch.stack([spectra[images.labels == k].mean(0) for k in range(12)])
    means = means / means.norm(dim=1, keepdim=True)
    gaps = torch.cdist(means, means) + 9 * torch.eye(12)
    assert gaps.min() > 0.03


@pytest.mark.parametrize("along, turned", [("u", 0), ("v", math.pi / 2)])
def test_stripes_are_drawn_at_their_frequency_and_angle(monkeypatch, along, turned):
    if along == "v":
        monkeypatch.setitem(images_module._PATTERNS, "stripes", lambda u, v: torch.sin(2 * math.pi * v))
    images = textures(64, classes=("stripes",), seed=1)
    f, x = images.factors, images.pixels[:, 0].float()
    power = torch.fft.fft2(x - x.mean((1, 2), keepdim=True), s=(256, 256)).abs()[:, :, :128]
    peak = power.flatten(1).argmax(1)
    rows, columns = peak // 128, peak % 128
    fy, fx = torch.where(rows > 128, rows - 256, rows) / 8, columns / 8             # cycles a side: 32 · k / 256
    assert torch.hypot(fx, fy) == pytest.approx(f["frequency"].numpy(), abs=0.3)
    turn = torch.atan2(fy, fx) - f["angle"] - turned
    assert (turn - math.pi * torch.round(turn / math.pi)).abs().max() < 0.1


@pytest.mark.parametrize("size", [16, 32, 96])
def test_no_pattern_repeats_in_fewer_than_six_pixels(size):
    assert textures(2000, size=size).factors["frequency"].max() <= size / 6 + 1e-5


def test_classes_are_chosen_by_number_or_by_name():
    assert textures(24, size=8, classes=12).classes == TEXTURES and len(TEXTURES) == 12
    named = textures(9, size=8, classes=("spiral", "dots", "scales"))
    assert named.classes == ("spiral", "dots", "scales") and named.labels.bincount().tolist() == [3, 3, 3]
    assert textures(2, size=8, classes="rings").classes == ("rings",)


@pytest.mark.parametrize("given, error, says", [
    ({"n": 0}, ValueError, "n: got 0"), ({"n": 2.0}, TypeError, "2.0"), ({"size": 4}, ValueError, "size 4.*at least 8"),
    ({"classes": 13}, ValueError, "13.*at most 12"), ({"classes": 0}, ValueError, "classes: got 0"),
    ({"classes": ("stripe",)}, ValueError, "'stripe'.*Did you mean 'stripes'"),
    ({"classes": ()}, ValueError, "no class")])
def test_textures_refuse(given, error, says):
    with pytest.raises(error, match=says):
        textures(**{"n": 8, "size": 8, **given})


def test_ten_thousand_textures_in_three_seconds_of_one_core():
    textures(100)
    began = time.process_time()                                                     # CPU time of all threads
    textures(10_000)
    assert time.process_time() - began < 3


def test_digits_need_no_download(device):
    images = digits(device=device)
    assert len(images) == 1797 and images.shape == (1, 32, 32) and images.classes == tuple("0123456789")
    assert images.pixels.device.type == device.type and digits(size=8).pixels.max() == 255


# --- .npz

def write(path, **arrays):
    np.savez(path, **arrays)
    return path


PIXELS = random_bytes(6, 3, 5, 4).numpy()
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("keys", ["train_images train_labels", "x_train y_train", "images labels", "x y"])
def test_npz_keys(tmp_path, keys):
    arrays = dict(zip([*keys.split(), "classes"], [PIXELS, LABELS, np.array(["a", "b", "c"])]))
    images = from_npz(write(tmp_path / "a.npz", **arrays))
    assert torch.equal(images.pixels, torch.from_numpy(PIXELS)) and images.labels.tolist() == LABELS.tolist()
    assert images.classes == ("a", "b", "c") and images.name == "a"


def test_npz_layouts_dtypes_and_missing_labels(tmp_path, device):
    channels_last, grey = PIXELS.transpose(0, 2, 3, 1), PIXELS[:, 0]
    path = write(tmp_path / "a.npz", train_images=channels_last,
                 test_images=grey, test_labels=LABELS[:, None].astype(np.uint8))
    train = from_npz(path, device=device)
    assert torch.equal(train.pixels.cpu(), torch.from_numpy(PIXELS)) and train.labels is None
    test = from_npz(path, "test")
    assert torch.equal(test.pixels[:, 0], torch.from_numpy(grey)) and test.labels.tolist() == LABELS.tolist()
    path = write(tmp_path / "b.npz", images=channels_last.astype(np.float32) / 255)
    assert torch.equal(from_npz(path).pixels, torch.from_numpy(PIXELS))


def test_npz_names_as_bytes_and_arrays_in_foreign_byte_order(tmp_path):
    path = write(tmp_path / "a.npz", images=(PIXELS / 255).astype(">f4"), labels=LABELS.astype(">i8"),
                 classes=np.array([b"cat", "hör".encode(), b"dog"]))
    images = from_npz(path)
    assert images.classes == ("cat", "hör", "dog") and images.labels.tolist() == LABELS.tolist()
    assert torch.equal(images.pixels, torch.from_numpy(PIXELS))


@pytest.mark.parametrize("key", ["label", "y", "y_train"])
def test_npz_names_keys_that_it_does_not_use(tmp_path, key):
    with pytest.warns(UserWarning, match=f"a.npz: not used: {key}; .* labels are looked for in 'labels'"):
        assert from_npz(write(tmp_path / "a.npz", images=PIXELS, **{key: LABELS})).labels is None


def test_npz_refuses(tmp_path):
    good = write(tmp_path / "good.npz", images=PIXELS, labels=LABELS)
    with pytest.raises(FileNotFoundError, match="none.npz: no such file; np.savez"):
        from_npz(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ValueError, match="text.npz: no .npz file") as foreign:
        from_npz(tmp_path / "text.npz")
    assert "unsafely" not in str(foreign.value)          # numpy's advice to unpickle is no remedy
    with pytest.raises(ValueError, match="'trian'.*Did you mean 'train'"):
        from_npz(good, "trian")
    with pytest.raises(KeyError, match="no test images among the keys images, labels"):
        from_npz(good, "test")
    np.save(tmp_path / "one.npy", PIXELS)
    with pytest.raises(ValueError, match="single array"):
        from_npz(tmp_path / "one.npy")


@pytest.mark.parametrize("faulty, error, says", [
    ({"images": np.array([1, "a"], dtype=object)}, ValueError, "'images' holds Python objects.*never unpickled"),
    ({"images": PIXELS, "labels": LABELS.astype(object)}, ValueError, "'labels' holds Python objects"),
    ({"images": PIXELS.astype(np.int64)}, TypeError, "int64"),
    ({"images": PIXELS * 1.5}, ValueError, r"expected \[0, 1\]"),
    ({"images": PIXELS[0, 0]}, ValueError, r"\(5, 4\)"),
    ({"images": PIXELS[:0]}, ValueError, "empty"),
    ({"images": np.zeros((12, 12, 3), np.uint8)}, ValueError, r"one colour picture.*pixels\[None\]"),
    ({"images": PIXELS, "labels": LABELS, "classes": np.array([["a", "b", "c"]])}, ValueError, r"shape \(1, 3\).*one row"),
    ({"images": PIXELS, "labels": LABELS, "classes": np.array("abc")}, ValueError, r"shape \(\).*one row"),
    ({"images": PIXELS, "labels": np.array(list("abcabc"))}, TypeError, "'labels' has dtype <U1"),
    ({"images": PIXELS, "labels": LABELS[:2]}, ValueError, "2 for 6 images")])
def test_npz_refuses_such_arrays(tmp_path, faulty, error, says):
    with pytest.raises(error, match=says):
        from_npz(write(tmp_path / "faulty.npz", **faulty))


@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, 0.95])
def test_a_truncated_npz_is_named(tmp_path, keep):
    whole = write(tmp_path / "whole.npz", images=random_bytes(50, 3, 16, 16).numpy()).read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(whole[:int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match="cut.npz.*cut off"):
        from_npz(path)


def test_a_damaged_npz_member_is_named(tmp_path):
    path = write(tmp_path / "bad.npz", images=random_bytes(50, 3, 16, 16).numpy())
    data = bytearray(path.read_bytes())
    data[3000] ^= 255                                                       # one byte: the checksum no longer fits
    path.write_bytes(data)
    with pytest.raises(ValueError, match="bad.npz: 'images' cannot be read"):
        from_npz(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")     # numpy 1.26 leaves its zip file open
def test_save_npz_writes_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    files.save_npz(path, images=PIXELS)

    class Broken:
        def __array__(self, *_, **__):
            raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        files.save_npz(path, images=Broken())
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]

    def power_cut(*_):
        raise OSError("power cut")
    monkeypatch.setattr("os.replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        files.save_npz(path, images=PIXELS[:1])
    with np.load(path) as old:
        assert np.array_equal(old["images"], PIXELS) and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


# --- folders

def save(path, array, mode=None, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **kwargs)


def test_a_folder_of_pngs_gives_the_same_pixels_back(tmp_path, device):
    images = textures(30, size=16, colour=True)
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels)):
        save(tmp_path / images.classes[label] / f"{i:03}.png", pixels.permute(1, 2, 0).numpy())
    back = from_folder(tmp_path, size=16, device=device)
    order = sorted(range(30), key=lambda i: (images.classes[images.labels[i]], i))
    assert torch.equal(back.pixels.cpu(), images.pixels[order]) and back.pixels.device.type == device.type
    assert [back.classes[i] for i in back.labels] == [images.classes[i] for i in images.labels[order]]


def test_folder_without_or_with_one_sub_folder_has_no_labels(tmp_path):
    for i in range(3):
        save(tmp_path / "a" / f"{i}.png", np.full((8, 8), 80 * i, np.uint8))
    assert from_folder(tmp_path / "a", size=8).labels is None and from_folder(tmp_path, size=8).labels is None
    save(tmp_path / "b" / "0.png", np.zeros((8, 8), np.uint8))
    assert from_folder(tmp_path, size=8).labels.tolist() == [0, 0, 0, 1]
    save(tmp_path / "loose.png", np.zeros((8, 8), np.uint8))
    with pytest.warns(UserWarning, match=r"no labels: the sub-folders \(a, b\).*lies loose.png; move"):
        images = from_folder(tmp_path, size=8)
    assert images.labels is None and len(images) == 5


def test_a_sub_folder_without_images_is_named(tmp_path):
    for name in "ab":
        save(tmp_path / name / "0.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    with pytest.warns(UserWarning, match="empty ignored: no image was read there.$"):
        assert from_folder(tmp_path, size=8).classes == ("a", "b")
    (tmp_path / "b" / "0.png").unlink()
    with pytest.warns(UserWarning, match="b, empty ignored.*no labels, for one sub-folder"):
        assert from_folder(tmp_path, size=8).labels is None


@pytest.mark.parametrize("names", ["train", "train val", "Test Train"])
def test_parts_of_a_set_are_no_classes(tmp_path, names):
    for name in names.split():
        save(tmp_path / name / "x" / "0.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="parts of a set, no classes; give '.*[tT]rain'"):
        from_folder(tmp_path)
    assert from_folder(tmp_path, size=8, classes=names.split()).classes == tuple(names.split())      # if one insists


def test_mixed_sizes_are_cut_to_their_central_square(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 18:42] = (200, 100, 50)                          # the central square and a little more
    save(tmp_path / "a.png", wide)
    save(tmp_path / "b.png", wide.transpose(1, 0, 2))
    save(tmp_path / "c.bmp", wide[:10, 20:30])
    images = from_folder(tmp_path, size=10)
    assert images.shape == (3, 10, 10)
    assert (images.pixels.flatten(2) == torch.tensor([200, 100, 50])[:, None]).all()


def test_every_mode_of_an_image_file(tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    clear = np.concatenate([red, np.zeros((8, 8, 1), np.uint8)], 2)                 # red, wholly transparent
    half = np.concatenate([red, np.full((8, 8, 1), 128, np.uint8)], 2)
    save(tmp_path / "00_rgb.png", red)
    save(tmp_path / "01_palette.png", red, "P")
    save(tmp_path / "02_clear.png", clear)
    save(tmp_path / "03_half.png", half)
    save(tmp_path / "04_grey.png", np.full((8, 8), 77, np.uint8))
    save(tmp_path / "05_16bit.png", np.full((8, 8), 77 * 257, np.uint16))
    save(tmp_path / "06_bit.png", np.full((8, 8), 255, np.uint8), "1")
    save(tmp_path / "07_float.tiff", np.full((8, 8), 0.2, np.float32))
    save(tmp_path / "08_cmyk.jpg", red, "CMYK")
    save(tmp_path / "09_key.gif", np.zeros((8, 8), np.uint8), transparency=0)       # palette with a transparent colour
    save(tmp_path / "10_LA.png", np.dstack([np.full((8, 8), 9, np.uint8), np.zeros((8, 8), np.uint8)]))
    pixels = from_folder(tmp_path, size=8).pixels
    expected = [(255, 0, 0), (255, 0, 0), (255,) * 3, (255, 127, 127), (77,) * 3, (77,) * 3, (255,) * 3, (51,) * 3,
                (255, 0, 0), (255,) * 3, (255,) * 3]
    for got, want, i in zip(pixels, expected, range(11)):
        tolerance = 3 if i == 8 else 0                                              # JPEG is lossy
        assert (got.int() - torch.tensor(want)[:, None, None]).abs().max() <= tolerance, (i, got[:, 0, 0], want)
    grey = from_folder(tmp_path, size=8, colour=False)
    assert grey.shape == (1, 8, 8) and grey.pixels[4].unique().tolist() == [77]
    assert grey.pixels[0, 0, 0, 0].item() == 76                                     # 0.299 · 255: ITU-R 601 luma


def test_a_photograph_is_turned_upright(tmp_path):
    halves = np.zeros((8, 8, 3), np.uint8)
    halves[:4] = 255                                                                # white above
    exif = Image.Exif()
    exif[0x0112] = 3                                                                # "turned by 180°"
    save(tmp_path / "a.png", halves, exif=exif)
    assert from_folder(tmp_path, size=8).pixels[0, 0, :, 0].tolist() == [0] * 4 + [255] * 4


def test_unreadable_files_are_named_once_or_raised(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", random_bytes(8, 8, 3, seed=i).numpy())
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:60])        # cut off
    (tmp_path / "2.png").write_text("no image at all")
    (tmp_path / "3b.tif").write_bytes(b"")
    (tmp_path / ".hidden.png").write_text("a thumbnail's shadow")
    (tmp_path / "notes.txt").write_text("not looked at")
    with pytest.warns(UserWarning) as caught:
        images = from_folder(tmp_path, size=8)
    assert len(caught) == 1 and len(images) == 2
    message = str(caught[0].message)
    assert message.startswith("3 of 5") and all(name in message for name in ("1.png", "2.png", "3b.tif"))
    assert "hidden" not in message and "notes" not in message
    assert torch.equal(images.pixels[1].permute(1, 2, 0), random_bytes(8, 8, 3, seed=3))   # no gap where one is missing
    with pytest.raises(ValueError, match="1.png"):
        from_folder(tmp_path, size=8, on_error="raise")


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no images.*png"):
        from_folder(tmp_path)
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ValueError, match="a.png"):
        from_folder(tmp_path)                            # nothing readable is an error, not a warning
    with pytest.raises(ValueError, match="'ignore'.*'warn', 'raise'"):
        from_folder(tmp_path, on_error="ignore")


def test_a_folder_holds_one_image_open_at_a_time(tmp_path, monkeypatch):
    for i in range(5):
        save(tmp_path / f"{i}.png", np.zeros((8, 8), np.uint8))
    opened, original = [], Image.open

    def watched(path):
        assert all(image.fp is None for image in opened), "an earlier file is still open"
        opened.append(original(path))
        return opened[-1]
    monkeypatch.setattr(Image, "open", watched)
    assert len(from_folder(tmp_path, size=8)) == len(opened) == 5


# --- downloads: no test needs a network

class Fake:
    """What torchvision's CIFAR10 and STL10 look like from outside."""
    url, calls = "https://example.org/fake.tar.gz", []

    def __init__(self, root, download, train=None, split=None):
        self.calls.append((root, train, split))
        assert download
        channels_first = split is not None
        self.data = PIXELS if channels_first else PIXELS.transpose(0, 2, 3, 1)
        self.targets, self.labels = LABELS.tolist(), LABELS - (split == "unlabeled") * 99
        self.classes = ["a", "b", "c"]


@pytest.mark.parametrize("load, kind", [(cifar10, "CIFAR10"), (cifar100, "CIFAR100"), (stl10, "STL10")])
def test_a_download_happens_once(tmp_path, monkeypatch, load, kind):
    monkeypatch.setattr(torchvision.datasets, kind, Fake)
    monkeypatch.setattr(Fake, "calls", [])
    monkeypatch.setenv("SIMSIAM_EXPLAINED_DATA", str(tmp_path / "deep" / "cache"))
    for _ in range(2):
        images = load("test")
        assert torch.equal(images.pixels, torch.from_numpy(PIXELS)) and images.labels.tolist() == LABELS.tolist()
        assert images.classes == ("a", "b", "c") and images.name == kind.lower()
    stl = kind == "STL10"
    assert Fake.calls == [(str(cache_dir()), None if stl else False, "test" if stl else None)]
    assert [p.name for p in cache_dir().iterdir()] == [f"{kind.lower()}-test.npz"]


@pytest.mark.parametrize("load, name", [(cifar10, "cifar10"), (cifar100, "cifar100"), (stl10, "stl10")])
def test_a_set_may_lie_in_the_cache_as_one_file_with_both_splits(tmp_path, monkeypatch, load, name):
    """As it is carried to a machine without a network. Nothing is downloaded; a lone split beside it is not asked."""
    monkeypatch.setattr(torchvision.datasets, name.upper(), lambda *_, **__: pytest.fail("a download"))
    monkeypatch.setenv("SIMSIAM_EXPLAINED_DATA", str(tmp_path))
    write(tmp_path / f"{name}.npz", train_images=PIXELS, train_labels=LABELS, test_images=255 - PIXELS[:4],
          test_labels=LABELS[:4], classes=np.array(["a", "b", "c"]))
    write(tmp_path / f"{name}-train.npz", images=PIXELS[:1], labels=LABELS[:1])
    train, test = load(), load("test")
    assert torch.equal(train.pixels, torch.from_numpy(PIXELS))
    assert torch.equal(test.pixels, torch.from_numpy(255 - PIXELS[:4])) and train.labels.tolist() == LABELS.tolist()
    assert (train.name, test.name, train.classes) == (name, name, ("a", "b", "c"))
    assert [len(part) for part in load_images(name)] == [len(PIXELS), 4]
    assert torch.equal(load("test", root=tmp_path).pixels, test.pixels)


def test_a_file_in_the_cache_without_the_split_or_damaged_is_named(tmp_path):
    write(tmp_path / "cifar10.npz", train_images=PIXELS, train_labels=LABELS)
    with pytest.raises(KeyError, match="cifar10.npz: no test images"):
        cifar10("test", root=tmp_path)
    (tmp_path / "cifar10.npz").write_bytes(b"PK cut off")
    with pytest.raises(ValueError, match="cifar10.npz: no .npz file, or one that is cut off"):
        cifar10(root=tmp_path)


def test_stl10_unlabeled_has_no_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "STL10", Fake)
    images = stl10("unlabeled", root=tmp_path)
    assert images.labels is None and len(images) == 6 and (tmp_path / "stl10-unlabeled.npz").exists()
    with pytest.raises(ValueError, match="'extra'.*'unlabeled'"):
        stl10("extra", root=tmp_path)


@pytest.mark.parametrize("fault", [OSError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch, fault):
    def no_network(*_, **__):
        raise fault
    monkeypatch.setattr(Fake, "__init__", no_network)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    with pytest.raises(ConnectionError, match="(?s)example.org.*by hand.*from_npz.*from_folder.*textures") as caught:
        cifar10(root=tmp_path)
    assert str(fault) in str(caught.value) and str(tmp_path) in str(caught.value) and not list(tmp_path.iterdir())


def test_cifar10_is_the_canonical_one():
    missing = [s for s in ("train", "test") if not (cache_dir() / f"cifar10-{s}.npz").exists()]
    if missing and not (cache_dir() / "cifar10.npz").exists():
        pytest.skip(f"no CIFAR-10 in {cache_dir()}; with a network, run cifar10('train') and cifar10('test') once")
    train, test = cifar10(), cifar10("test")
    assert (len(train), len(test)) == (50_000, 10_000) and train.labels.bincount().tolist() == [5000] * 10
    x = train.pixels.double()
    assert x.mean((0, 2, 3)).numpy() == pytest.approx([125.307, 122.950, 113.865], abs=1e-3)


# --- by name, for the command line

def test_load_images_by_name():
    train, test = load_images(n=400, seed=1)
    assert (len(train), len(test)) == (400, 100) and train.shape == (1, 32, 32)
    assert not set(train.factors["angle"].tolist()) & set(test.factors["angle"].tolist())
    assert torch.equal(load_images("textures", n=400, seed=1)[1].pixels, test.pixels)
    train, test = load_images("digits", size=16)
    assert (len(train), len(test)) == (1438, 359) and train.shape == (1, 16, 16)
    train, test = load_images("digits", n=100)
    assert (len(train), len(test)) == (100, 25)


def test_load_images_from_a_file(tmp_path, device):
    both = write(tmp_path / "both.npz", train_images=PIXELS, train_labels=LABELS,
                 test_images=PIXELS[:3], test_labels=LABELS[:3])
    train, test = load_images(str(both), device=device)
    assert (len(train), len(test)) == (6, 3) and train.pixels.device.type == test.pixels.device.type == device.type
    assert load_images(both, size=8)[0].shape == (3, 8, 8)                          # 5 × 4: central square, resampled
    train, test = load_images(write(tmp_path / "one.npz", x=random_bytes(20, 8, 8).numpy(), y=np.arange(20)))
    assert (len(train), len(test)) == (16, 4)
    assert sorted([*train.labels.tolist(), *test.labels.tolist()]) == list(range(20))


def test_load_images_from_a_folder(tmp_path):
    for part, names in [("train", "abc"), ("test", "bc")]:                          # the test part lacks one class
        for i, name in enumerate(names):
            save(tmp_path / part / name / "0.png", np.full((8, 8, 3), ord(name), np.uint8))
    train, test = load_images(tmp_path)
    assert train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [1, 2] and test.classes == train.classes
    assert test.shape == (3, 32, 32)
    save(tmp_path / "test" / "new" / "0.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="sub-folder.*'new'"):
        load_images(tmp_path)
    train, test = load_images(tmp_path / "train", size=8)                           # no parts: four fifths
    assert (len(train), len(test)) == (2, 1) and train.shape == (3, 8, 8)


@pytest.mark.parametrize("part", ["test", "val", "valid", "validation"])
def test_load_images_knows_the_test_part_by_four_names(tmp_path, part):
    for folder, label, times in product(["train", part], "xy", "01"):
        save(tmp_path / folder / label / f"{times}.png", np.zeros((8, 8), np.uint8))
    train, test = load_images(tmp_path, size=8)
    assert train.classes == test.classes == ("x", "y") and train.labels.tolist() == test.labels.tolist() == [0, 0, 1, 1]
    both = {"train_images": PIXELS, "train_labels": LABELS, f"{part}_images": PIXELS[:4], f"{part}_labels": LABELS[:4]}
    assert [len(images) for images in load_images(write(tmp_path / "a.npz", **both))] == [6, 4]


@pytest.mark.parametrize("test, size, says", [
    ({"images": PIXELS[:, 0]}, 8, r"\(3, 8, 8\), classes: a, b, c; the test part has \(1, 8, 8\)"),
    ({"images": PIXELS[:, :, :4]}, None, r"\(3, 5, 4\).*\(3, 4, 4\).*size=32"),
    ({"images": PIXELS, "labels": LABELS + 1}, 8, "classes: 0, 1, 2; .*classes: 0, 1, 2, 3;")])
def test_load_images_compares_its_two_parts(tmp_path, test, size, says):
    names = {} if "labels" in test else {"classes": np.array(["a", "b", "c"])}
    path = write(tmp_path / "a.npz", train_images=PIXELS, train_labels=LABELS, **names,
                 **{f"test_{key}": value for key, value in test.items()})
    with pytest.raises(ValueError, match=says):
        load_images(path, size=size)


def test_load_images_takes_parts_that_differ_in_size_alone_or_lack_the_last_class(tmp_path):
    path = write(tmp_path / "a.npz", train_images=PIXELS, train_labels=LABELS, test_images=PIXELS[:2, :, :4],
                 test_labels=LABELS[:2])
    assert [images.shape for images in load_images(path, size=8)] == [(3, 8, 8)] * 2


@pytest.mark.parametrize("what", ["no/such/dir", "~/no such folder", "f.npy", "a.png", "x.NPZ", "./x", Path("textures")])
def test_load_images_says_that_there_is_no_such_file(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{what}: no such file or folder; give"):
        load_images(what)


def test_load_images_knows_files_by_home_and_by_capital_letters(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.npz", x=PIXELS).rename(tmp_path / "a.NPZ")
    assert [len(part) for part in load_images("~/a.NPZ")] == [5, 1]
    save(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="a.png is neither an .npz file nor a folder"):
        load_images(tmp_path / "a.png")


@pytest.mark.parametrize("n", [1, 2])
def test_load_images_says_that_one_or_two_images_are_too_few(tmp_path, n):
    with pytest.raises(ValueError, match=f"images: {n} in a, expected at least 3: a fifth"):
        load_images(write(tmp_path / "a.npz", images=PIXELS[:n]))


@pytest.mark.parametrize("what, says", [("texture", "Did you mean 'textures'"), ("cifar-10", "Did you mean 'cifar10'"),
                                        ("pictures", "'FOLDER'")])
def test_load_images_refuses_unknown_names(what, says):
    with pytest.raises(ValueError, match=says):
        load_images(what)


def test_load_images_refuses_no_images_and_no_name():
    for given in ("n", "size"):
        with pytest.raises(ValueError, match=f"{given}: got 0"):
            load_images(**{given: 0})
    with pytest.raises(TypeError, match="got ndarray.*from_tensor takes pixels"):
        load_images(PIXELS)


def test_the_type_is_public():
    assert isinstance(textures(1, size=8), Images)
