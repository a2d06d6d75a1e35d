"""Views: every operation equals torchvision's on the same numbers, and the numbers are drawn as torchvision draws."""
import dataclasses
import math

import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.v2.functional as F

import simsiam_explained.views as module
from simsiam_explained.resample import kernel_size
from simsiam_explained.views import RECIPES, Augment, Drawn, Views, apply, draw, make_views

TOLERANCE = 1e-5          # of values in [0, 1]; float32 sums in another order than torchvision's
N = 2000                  # draws in a statistical test


def generator(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def pictures(n=24, c=3, h=32, w=32, seed=0):
    """Smooth noise and flat images, uint8: plain noise would hide errors of a pixel's place, flat ones test 0 / 0."""
    x = torch.rand(n, c, h // 4 + 1, w // 4 + 1, generator=generator(seed))
    x = torch.nn.functional.interpolate(x, size=(h, w), mode="bilinear").mul(1.6).sub(0.3).clamp(0, 1)
    x[0], x[1], x[2] = 0, 1, 0.5
    return x.mul(255).round().byte()


def nothing(n, h=32, w=32, device="cpu"):
    """Drawn numbers that leave n images as they are."""
    zero, off = torch.zeros(n, device=device), torch.zeros(n, dtype=torch.bool, device=device)
    return Drawn(zero, zero, zero + h, zero + w, off, off, torch.arange(4, device=device).repeat(n, 1),
                 torch.tensor([1.0, 1.0, 1.0, 0.0], device=device).repeat(n, 1), off, off, zero + 1, off)


def by_torchvision(pixels, drawn, size=None, share=0.1):
    """The same views, one image at a time, from torchvision's functions."""
    out = []
    for x, d in zip(pixels, (drawn.take(i) for i in range(len(pixels)))):
        side = [size or x.shape[1], size or x.shape[2]]
        x = F.resized_crop(x.float() / 255, int(d.top), int(d.left), int(d.height), int(d.width), side, antialias=True)
        x = x.clamp(0, 1)
        ops = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        for k in d.order.tolist() if d.jitter else []:
            if len(x) == 3 or k < 2:
                x = ops[k](x, float(d.factors[k]))
        if d.grey and len(x) == 3:
            x = F.rgb_to_grayscale(x, num_output_channels=3)
        if d.blur:
            x = F.gaussian_blur(x, [kernel_size(share, side[1]), kernel_size(share, side[0])], [float(d.sigma)] * 2)
        if d.solarise:
            x = F.solarize(x, 0.5)
        out.append(F.horizontal_flip(x) if d.flip else x)           # last, as in the official code: it commutes
    return torch.stack(out)


# -- each operation, given what was drawn

@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("h, w, size", [(32, 32, None), (32, 32, 32), (16, 24, 40), (80, 60, 24), (20, 33, None)])
def test_crop_and_flip_equal_torchvision(c, h, w, size, device):
    pixels = pictures(c=c, h=h, w=w)
    augment = Augment(crop_scale=(0.08, 1.0), jitter_p=0, grey_p=0, blur_p=0)
    drawn = draw(augment, len(pixels), h, w, generator(1, device))
    assert 0 < drawn.flip.sum() < len(pixels)
    ours = apply(pixels.to(device), drawn, size).cpu()
    assert (ours - by_torchvision(pixels, Drawn(*(f.cpu() for f in drawn)), size)).abs().max() < TOLERANCE


def test_antialiasing_changes_nothing_when_a_crop_is_enlarged():
    pixels = pictures()
    drawn = draw(Augment(flip_p=0, jitter_p=0, grey_p=0, blur_p=0), len(pixels), 32, 32, generator(1))
    windows = zip(*(getattr(drawn, k).int().tolist() for k in ("top", "left", "height", "width")))
    plain = [F.resized_crop(x.float() / 255, *window, [32, 32], antialias=False) for x, window in zip(pixels, windows)]
    assert (apply(pixels, drawn) - torch.stack(plain)).abs().max() < TOLERANCE


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("op, low, high", [(0, 0.2, 1.8), (1, 0.2, 1.8), (2, 0.2, 1.8), (3, -0.5, 0.5)])
def test_one_colour_operation_equals_torchvision(op, low, high, c, device):
    pixels = pictures(c=c)
    drawn = nothing(24)
    drawn.factors[:, op] = torch.linspace(low, high, 24)[torch.randperm(24, generator=generator())]
    drawn = drawn._replace(jitter=torch.ones(24, dtype=torch.bool))
    ours = apply(pixels.to(device), Drawn(*(f.to(device) for f in drawn))).cpu()
    assert (ours - by_torchvision(pixels, drawn)).abs().max() < TOLERANCE
    assert c == 1 and op > 1 or (ours - pixels / 255).abs().max() > 0.1, "the operation did nothing"


def test_order_of_the_colour_operations_is_each_images_own(device):
    pixels, orders = pictures(), torch.tensor([[a, b, c, 6 - a - b - c] for a in range(4) for b in range(4)
                                               for c in range(4) if len({a, b, c}) == 3])
    factors = torch.tensor([1.4, 0.6, 1.4, 0.1]).repeat(24, 1)
    drawn = nothing(24)._replace(jitter=torch.ones(24, dtype=torch.bool), order=orders, factors=factors)
    ours = apply(pixels.to(device), Drawn(*(f.to(device) for f in drawn))).cpu()
    assert (ours - by_torchvision(pixels, drawn)).abs().max() < TOLERANCE
    other = apply(pixels, drawn._replace(order=orders.flip(1)))
    assert (ours - other).abs().amax((1, 2, 3)).gt(0.01).float().mean() > 0.5, "the order made no difference"


@pytest.mark.parametrize("op", ["grey", "blur", "solarise"])
@pytest.mark.parametrize("c, size", [(1, 32), (3, 32), (3, 56)])
def test_grey_blur_and_solarise_equal_torchvision(op, c, size, device):
    pixels, on = pictures(c=c, h=size, w=size), torch.arange(24) % 3 > 0
    drawn = nothing(24, size, size)._replace(**{op: on}, sigma=torch.linspace(0.1, 2.0, 24))
    ours = apply(pixels.to(device), Drawn(*(f.to(device) for f in drawn))).cpu()
    assert (ours - by_torchvision(pixels, drawn)).abs().max() < TOLERANCE
    assert (ours - pixels / 255)[~on].abs().max() < TOLERANCE


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("second", [False, True])
def test_whole_recipes_equal_torchvision(name, second, device):
    views, pixels = RECIPES[name], pictures(n=64, h=40, w=40)
    augment = (views.second or views.first) if second else views.first
    drawn = draw(augment, 64, 40, 40, generator(3, device))
    ours = apply(pixels.to(device), drawn, 48, augment.blur_kernel).cpu()
    reference = by_torchvision(pixels, Drawn(*(f.cpu() for f in drawn)), 48)
    # solarisation has a step at 0.5: a value within rounding of it may land on either side
    step = (reference - 0.5).abs() < 1e-4 if augment.solarise_p else torch.zeros_like(reference, dtype=torch.bool)
    assert (ours - reference)[~step].abs().max() < 5 * TOLERANCE


def test_nothing_drawn_changes_nothing():
    pixels = pictures()
    assert (apply(pixels, nothing(24)) - pixels / 255).abs().max() < 1e-6


def test_kernel_sizes():
    assert [kernel_size(0.1, s) for s in (8, 32, 40, 96, 224)] == [3, 3, 5, 9, 23]       # 23 at 224: BYOL Tab. 6


# -- what is drawn

def distance(a, b):
    """Kolmogorov–Smirnov distance of two samples, in units of its 0.01 % critical value: above 1 they differ."""
    a, b = torch.as_tensor(a, dtype=torch.float64).sort()[0], torch.as_tensor(b, dtype=torch.float64).sort()[0]
    both = torch.cat([a, b])
    below = [torch.searchsorted(x, both, right=True) / len(x) for x in (a, b)]
    return float((below[0] - below[1]).abs().max()) / (2.23 * math.sqrt((len(a) + len(b)) / (len(a) * len(b))))


def torchvision_crops(augment, h, w, n=N):
    image = torch.zeros(1, h, w)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = [T.RandomResizedCrop.get_params(image, list(augment.crop_scale), list(augment.crop_ratio))
                for _ in range(n)]
    top, left, height, width = torch.tensor(rows, dtype=torch.float64).T
    return {"area": height * width, "aspect": (width / height).log(), "height": height, "width": width, "top": top,
            "left": left, "room above": top / (h - height + 1), "room left": left / (w - width + 1)}


def our_crops(drawn, h, w):
    top, left, height, width = (f.double().cpu() for f in drawn[:4])
    return {"area": height * width, "aspect": (width / height).log(), "height": height, "width": width, "top": top,
            "left": left, "room above": top / (h - height + 1), "room left": left / (w - width + 1)}


@pytest.mark.parametrize("name", ["cifar", "byol", "textures"])
@pytest.mark.parametrize("h, w", [(32, 32), (224, 224), (30, 96)])
def test_crops_are_drawn_as_by_torchvision(name, h, w, device):
    augment = RECIPES[name].first
    ours, theirs = our_crops(draw(augment, N, h, w, generator(0, device)), h, w), torchvision_crops(augment, h, w)
    assert {k: round(d, 2) for k in ours if (d := distance(ours[k], theirs[k])) > 1} == {}


def test_one_crop_per_batch_is_noticed():
    """The fault of a library that draws once for a whole batch: the same test must fail."""
    augment, g = RECIPES["cifar"].first, generator()
    once = [draw(augment, 1, 32, 32, g).take(torch.zeros(250, dtype=torch.long)) for _ in range(N // 250)]
    ours, theirs = our_crops(Drawn(*map(torch.cat, zip(*once))), 32, 32), torchvision_crops(augment, 32, 32)
    assert all(distance(ours[k], theirs[k]) > 2 for k in ("area", "aspect", "height", "width", "top", "left"))


def test_impossible_crops_fall_back_to_torchvisions_centre():
    for h, w in ((8, 100), (100, 8), (9, 101)):
        drawn = draw(Augment(crop_scale=(1.0, 1.0)), 5, h, w, generator())
        theirs = T.RandomResizedCrop.get_params(torch.zeros(1, h, w), [1.0, 1.0], [3 / 4, 4 / 3])
        assert torch.stack(drawn[:4]).T.int().tolist() == [list(theirs)] * 5
    square = draw(Augment(crop_scale=(1.0, 1.0), crop_ratio=(2.0, 3.0)), 5, 32, 32, generator())
    assert list(T.RandomResizedCrop.get_params(torch.zeros(1, 32, 32), [1.0, 1.0], [2.0, 3.0])) == \
        torch.stack(square[:4]).T.int()[0].tolist()


@pytest.mark.parametrize("name", ["cifar", "byol", "simclr"])
def test_colour_factors_are_drawn_as_by_torchvision(name, device):
    a = RECIPES[name].first
    jitter = T.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = [jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)[1:]
                  for _ in range(N)]
    ours = draw(a, N, 32, 32, generator(5, device)).factors.cpu()
    assert all(distance(ours[:, k], torch.tensor(theirs)[:, k]) < 1 for k in range(4))
    shifted = ours[:, 0] + 0.2 * a.brightness
    assert distance(shifted, torch.tensor(theirs)[:, 0]) > 1, "this test would not see a shift by a tenth of the range"


def test_blur_widths_are_uniform():
    sigma = draw(Augment(), N, 32, 32, generator()).sigma
    assert distance(sigma, torch.linspace(0.1, 2.0, N)) < 1 and 0.1 <= sigma.min() and sigma.max() <= 2.0


def test_every_order_of_the_colour_operations_is_equally_likely(device):
    order = draw(Augment(), 4800, 32, 32, generator(2, device)).order.cpu()
    _, counts = order.unique(dim=0, return_counts=True)
    assert len(counts) == 24 and ((counts - 200) ** 2 / 200).sum() < 57.0           # χ², 23 degrees, 0.01 %


def test_every_place_of_a_window_is_equally_likely(device):
    drawn = draw(Augment(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0)), 3400, 32, 32, generator(3, device))
    for place in (drawn.top, drawn.left):                                            # 16 × 16 windows: 17 places
        counts = place.long().cpu().bincount(minlength=17)
        assert len(counts) == 17 and ((counts - 200) ** 2 / 200).sum() < 45.9        # χ², 16 degrees, 0.01 %


def test_operations_are_on_or_off_independently_of_each_other(device):
    drawn = draw(RECIPES["byol"].second, 4000, 32, 32, generator(0, device))
    names = ("flip", "jitter", "grey", "blur", "solarise", "sigma")
    table = torch.cat([torch.stack([getattr(drawn, k).double() for k in names], 1), drawn.factors.double()], 1)
    assert (torch.corrcoef(table.T) - torch.eye(10, device=device)).abs().max() < 4.5 / math.sqrt(4000)


@pytest.mark.parametrize("name", list(RECIPES))
def test_operations_are_on_as_often_as_the_recipe_says(name, device):
    for augment in {RECIPES[name].first, RECIPES[name].second or RECIPES[name].first}:
        drawn = draw(augment, 4000, 32, 32, generator(0, device))
        for field in ("flip", "jitter", "grey", "blur", "solarise"):
            p, rate = getattr(augment, f"{field}_p"), float(getattr(drawn, field).float().mean())
            assert abs(rate - p) <= 3.9 * math.sqrt(p * (1 - p) / 4000), (field, p, rate)


# -- two views

@pytest.fixture
def record(monkeypatch):
    """What `draw` returned, call by call."""
    calls, original = [], module.draw
    monkeypatch.setattr(module, "draw", lambda *a: calls.append((a[0], original(*a))) or calls[-1][1])
    return calls


def columns(drawn):
    """Everything drawn, one standardised column for each number."""
    table = torch.cat([f.double().reshape(len(f), -1) for f in drawn], 1)
    table = table[:, table.std(0) > 0]
    return (table - table.mean(0)) / table.std(0)


def test_two_views_are_independent(record):
    Views(Augment())(torch.zeros(4000, 1, 8, 8, dtype=torch.uint8), generator())
    (_, first), (_, second) = record
    a, b = columns(first), columns(second)
    limit = 4.5 / math.sqrt(4000)
    assert (a.T @ b / 4000).abs().max() < limit, "view 1 tells something about view 2"
    assert (a[1:].T @ a[:-1] / 3999).abs().max() < limit, "an image's numbers tell something about the next one's"
    assert (a.T @ a / 4000).abs().max() > limit, "the same view twice must not pass"


def test_one_image_many_times_gives_as_many_views():
    x1, x2 = make_views("cifar")(pictures()[5:6].expand(200, 3, 32, 32).contiguous(), generator())
    both = torch.cat([x1, x2]).flatten(1)
    assert torch.cdist(both, both).fill_diagonal_(1).min() > 0


def test_byols_two_views_have_their_own_distributions(record):
    make_views("byol", size=16)(pictures(n=400), generator())
    (a, first), (b, second) = record
    assert (a.blur_p, a.solarise_p, b.blur_p, b.solarise_p) == (1.0, 0.0, 0.1, 0.2)
    assert first.blur.all() and not first.solarise.any()
    assert 10 < second.blur.sum() < 80 and 40 < second.solarise.sum() < 130


def test_same_seed_same_views_and_the_global_generator_is_left_alone(device):
    pixels, views, state = pictures(n=150).to(device), make_views("byol", size=32), torch.get_rng_state()
    one, two, other = (views(pixels, generator(s, device)) for s in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(one, two)) and not torch.equal(one[0], other[0])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("c", [1, 3])
def test_views_are_finite_floats_of_the_right_shape(name, c, device):
    for x in make_views(name, size=32)(pictures(n=150, c=c).to(device), generator(0, device)):
        assert x.shape == (150, c, 32, 32) and x.dtype == torch.float32 and x.device.type == device.type
        assert torch.isfinite(x).all() and x.is_contiguous()


def test_work_in_pieces_changes_nothing():
    views, pixels = make_views("cifar"), pictures(n=300)
    drawn = draw(views.first, 300, 32, 32, generator(4))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (views.mean, views.std))
    assert (views(pixels, generator(4))[0] - (apply(pixels, drawn) - mean) / std).abs().max() < 1e-4


def test_pixels_are_not_changed():
    pixels = pictures()
    before = pixels.clone()
    make_views("byol", size=32)(pixels, generator())
    make_views("byol", size=16).clean(pixels)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("size", [None, 32, 20, 64])
def test_clean_is_torchvisions_resize_and_normalise(c, size):
    pixels, views = pictures(c=c), make_views("simsiam", size=size)
    mean, std = (torch.tensor(v) if c == 3 else torch.tensor(v).mean()[None] for v in (views.mean, views.std))
    x = F.resize(pixels.float() / 255, [size or 32] * 2, antialias=True)
    assert (views.clean(pixels) - F.normalize(x, mean.tolist(), std.tolist())).abs().max() < 1e-5
    assert torch.equal(views.clean(pixels), views.clean(pixels))


# -- recipes

def test_recipes_hold_the_papers_constants():
    moco = Augment(crop_scale=(0.2, 1.0), crop_ratio=(3 / 4, 4 / 3), flip_p=0.5, jitter_p=0.8,
                   brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey_p=0.2,
                   blur_p=0.5, blur_sigma=(0.1, 2.0), solarise_p=0.0)
    byol = dataclasses.replace(moco, crop_scale=(0.08, 1.0), saturation=0.2, blur_p=1.0)
    simclr = dataclasses.replace(moco, crop_scale=(0.08, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)
    assert RECIPES["simsiam"].first == moco and RECIPES["simsiam"].second is None
    assert RECIPES["cifar"].first == dataclasses.replace(moco, blur_p=0.0)
    assert RECIPES["byol"].first == byol
    assert RECIPES["byol"].second == dataclasses.replace(byol, blur_p=0.1, solarise_p=0.2)
    assert RECIPES["simclr"].first == simclr
    assert {(RECIPES[k].size, RECIPES[k].std) for k in ("simsiam", "byol", "simclr")} == {(224, (0.229, 0.224, 0.225))}
    assert all(v.source for v in RECIPES.values())


def test_changes_reach_both_views_or_the_pair():
    views = make_views("byol", size=64, flip_p=0.0, mean=(0.0,), std=(1.0,))
    assert (views.size, views.mean, views.std) == (64, (0.0,), (1.0,))
    assert [(a.flip_p, a.blur_p) for a in (views.first, views.second)] == [(0.0, 1.0), (0.0, 0.1)]
    assert RECIPES["byol"].first.flip_p == 0.5


# -- refusals

@pytest.mark.parametrize("pixels, error, words", [
    ([1, 2], TypeError, "list"),
    (torch.zeros(3, 32, 32, dtype=torch.uint8), ValueError, r"pixels\[None\]"),
    (torch.zeros(0, 3, 32, 32, dtype=torch.uint8), ValueError, "B ≥ 1"),
    (torch.zeros(4, 3, 32, 32), TypeError, "float32.*uint8"),
    (torch.zeros(4, 4, 32, 32, dtype=torch.uint8), ValueError, "4 channels"),
    (torch.zeros(4, 32, 32, 3, dtype=torch.uint8), ValueError, "32 channels"),
])
def test_pixels_that_are_no_images_are_refused(pixels, error, words):
    for call in (make_views("cifar").clean, lambda p: make_views("cifar")(p, generator())):
        with pytest.raises(error, match=words):
            call(pixels)


def test_generators_that_cannot_be_used_are_refused():
    with pytest.raises(TypeError, match="int, expected a torch.Generator"):
        make_views("cifar")(pictures(), 0)
    with pytest.raises(ValueError, match="on cpu, but the pixels are on meta"):
        make_views("cifar")(pictures().to("meta"), generator())


@pytest.mark.parametrize("field, value", [
    ("crop_scale", (0.0, 1.0)), ("crop_scale", (0.5, 0.2)), ("crop_scale", (0.5, 1.2)), ("crop_scale", 0.5),
    ("crop_ratio", (-1.0, 1.0)), ("flip_p", 1.5), ("flip_p", float("nan")), ("brightness", -0.1),
    ("brightness", float("inf")), ("hue", 0.6), ("blur_sigma", (0.0, 1.0)), ("grey_p", "often"), ("solarise_p", True),
])
def test_ranges_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}: got"):
        make_views("cifar", **{field: value})


@pytest.mark.parametrize("changes, error, words", [
    ({"size": 0}, ValueError, "size: got 0"), ({"size": 32.0}, TypeError, "size: got 32.0"),
    ({"mean": (0.5, 0.5)}, ValueError, "mean"), ({"std": (0.0,)}, ValueError, "above 0"),
    ({"mean": (math.nan,)}, ValueError, "mean: got .nan"), ({"std": (math.inf,)}, ValueError, "std: got .inf"),
    ({"first": None}, TypeError, "first: got NoneType"), ({"second": "same"}, TypeError, "second: got str"),
])
def test_views_that_cannot_be_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        Views(**changes)


def test_unknown_names_get_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'cifar'"):
        make_views("cifar10")
    with pytest.raises(ValueError, match="Did you mean 'solarise_p'"):
        make_views("cifar", solarize_p=0.2)
