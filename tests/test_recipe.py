"""Recipes: what shares a key and what never does, what is refused, what is built, what it costs."""
import inspect
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evidence_kit import TINY, record
from torch import nn

from simsiam_explained import evidence, probes, runs
from simsiam_explained.images import cache_dir, load_images
from simsiam_explained.named import PARTS, arguments, find
from simsiam_explained.recipe import SCALES, SCHEMA, SHAPES, Recipe, base, flops, seconds
from simsiam_explained.training import Plan, shuffled
from simsiam_explained.views import RECIPES, make_views

PINNED = Path(__file__).with_name("defaults.json")
OTHERS = {"images": "textures", "views": "simsiam", "backbone": "encoders.mlp", "method": "simsiam.Siamese",
          "order": "training.lr_at", "autocast": "bfloat16", "optimiser": "lars", "n": 100, "size": 8,
          "unlabelled": "cifar100", "momentum": 0.8, "decay": "no_norm_bias", "schedule": "constant", "per": "epoch"}


def another(value):
    """A value of the same kind that is not `value`."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "!"
        case tuple() if value:
            return (another(value[0]), *value[1:])
    return 7


def everything_changed_once(recipe):
    """Yield (what, recipe with only that changed) for every field and every argument of every part."""
    for f in fields(recipe):
        if f.name not in PARTS:
            yield f.name, replace(recipe, **{f.name: OTHERS.get(f.name) or another(getattr(recipe, f.name))})
    for part, of in PARTS.items():
        now = arguments(part, getattr(recipe, of)) | dict(getattr(recipe, part))
        for name, value in now.items():
            yield f"{part}: {name}", replace(recipe, **{part: dict(getattr(recipe, part)) | {name: another(value)}})


# ---- keys

def test_every_field_and_every_argument_changes_the_key():
    changed = dict(everything_changed_once(Recipe()))
    assert len(changed) >= 40 and {"steps", "net: width", "parts: stop_gradient", "augment: hue"} <= set(changed)
    assert len({r.key for r in changed.values()} | {Recipe().key}) == len(changed) + 1
    for what, recipe in changed.items():
        assert recipe != Recipe(), what


def test_arguments_of_two_defaults_change_the_key_as_well():
    first = Recipe(views="byol")            # its two views blur and solarise differently
    keys = {replace(first, augment={name: value}).key for name in ("blur_p", "solarise_p") for value in (0.0, 0.5, 1.0)}
    assert len(keys | {first.key}) == 7


@pytest.mark.parametrize("name", RECIPES)
def test_views_are_as_large_as_the_images_of_the_recipe(name):
    """BYOL's own are 224 pixels wide; of CIFAR-10 they would be 49 times as dear, and no sharper."""
    for size in (None, 16):
        recipe = Recipe(views=name, size=size)
        xs = recipe.make_views()(torch.zeros(2, *recipe.shape, dtype=torch.uint8), torch.Generator().manual_seed(0))
        assert [tuple(x.shape) for x in xs] == [(2, *recipe.shape)] * 2


def test_views_have_what_a_recipe_changes():
    assert Recipe(views="byol", augment={"blur_p": 0.5}).make_views() == make_views("byol", size=None, blur_p=0.5)


def test_a_new_neutral_field_keeps_old_keys():
    @dataclass(frozen=True)
    class Newer(Recipe):
        momentum_of_the_target: float = 0.0

    for scale in SCALES:
        old = base(scale)
        assert Newer(**old.whole()).key == old.key
        assert Newer(**old.whole(), momentum_of_the_target=0.9).key != old.key


def test_another_schema_is_another_key(monkeypatch):
    old = base("small").key
    monkeypatch.setattr("simsiam_explained.recipe.SCHEMA", SCHEMA + 1)
    assert base("small").key != old


@pytest.mark.parametrize("one, other", [
    ({}, {"net": {"width": 64, "blocks": (2, 2, 2, 2)}, "steps": 9700, "parts": {"layers": 2, "hidden": 2048}}),
    ({}, {"n": 50_000, "size": 32, "augment": asdict(make_views("cifar").first)}),
    ({}, {"n": 1_000_000}),
    ({"images": "textures"}, {"images": "textures", "n": 8000}),
    ({"net": {"blocks": (1, 1, 1)}}, {"net": {"blocks": [1, 1, 1]}}),
    ({"net": {"width": 8, "stem": "stride2"}}, {"net": (("stem", "stride2"), ("width", 8))}),
    ({"base_lr": 1.0, "warmup": 0}, {"base_lr": 1, "warmup": 0.0}),
    ({"augment": {"crop_scale": (0.5, 1.0)}}, {"augment": {"crop_scale": [0.5, 1]}}),
    ({"views": "byol", "augment": {"blur_p": 1.0}}, {"views": "byol", "augment": {"blur_p": 1}}),
])
def test_equal_recipes_written_differently_share_one_key(one, other):
    one, other = Recipe(**one), Recipe(**other)
    assert one == other and one.key == other.key and hash(one) == hash(other)


def test_numbers_of_numpy_are_the_same_recipe():
    numpy = Recipe(n=np.int64(100), steps=np.int32(50), base_lr=np.float64(0.1))
    assert numpy == Recipe(n=100, steps=50, base_lr=0.1) and numpy.key == Recipe(n=100, steps=50, base_lr=0.1).key


def test_a_recipe_comes_back_from_json():
    for claim in evidence.claims().values():
        for scale in claim.scales:
            for recipe in claim.recipes(scale).values():
                back = Recipe(**json.loads(json.dumps(recipe.whole())))
                assert back == recipe and back.key == recipe.key
    for what, recipe in everything_changed_once(Recipe()):
        assert Recipe(**json.loads(json.dumps(recipe.whole()))) == recipe, what


def test_more_textures_than_usual_are_another_recipe():
    assert Recipe("textures", n=9000).count == 9000 and Recipe("textures", n=9000).key != Recipe("textures").key


def test_unlabelled_images_are_counted_and_nothing_else_of_the_recipe_changes():
    joined = Recipe(n=1000, unlabelled="cifar100")
    assert joined.count == 51_000 and joined.n == 1000 and joined.batches(2) == shuffled(51_000, 512, 2)
    assert joined.key != Recipe(n=1000).key == Recipe(n=1000, unlabelled="").key == joined.but(unlabelled="").key
    assert Recipe(unlabelled="stl10").shape == (3, 32, 32)                  # resampled to the side of the others
    assert "51,000 of cifar10 and, unlabelled, cifar100, 3×32×32" in str(joined)
    single = Recipe(unlabelled="cifar100", order="orders.single_pass")      # chunks of both
    assert len(single.batches(0).ordering) == 100_000 and len(single.batches(0)) == single.steps


def defaults():
    """All defaults that the key of a recipe leaves out, and the protocol that its figures are measured by."""
    named = {(part, getattr(recipe, of)) for claim in evidence.claims().values() for scale in claim.scales
             for recipe in claim.recipes(scale).values() for part, of in PARTS.items()}
    found = {"Recipe": {f.name: f.default for f in fields(Recipe)}}
    found |= {f"{part} {name}": arguments(part, name) for part, name in sorted(named)}
    found |= {f"views {name}": asdict(make_views(name)) for part, name in sorted(named) if part == "augment"}
    for probe in (probes.knn, probes.linear_probe):
        taken = inspect.signature(probe).parameters.values()
        found[probe.__name__] = {p.name: p.default for p in taken if p.default is not p.empty}
    found["a run"] = {name: getattr(runs, name) for name in ("TAIL", "BANK", "QUERIES")}
    return json.loads(json.dumps(found))


def test_no_default_has_changed_within_a_schema():
    pinned, now = json.loads(PINNED.read_text(encoding="utf-8")), defaults()
    assert pinned["schema"] == SCHEMA, f"a new schema: write defaults() of this file into {PINNED.name} anew"
    for of, was in pinned["defaults"].items():
        changed = {name: (value, now.get(of, {}).get(name)) for name, value in was.items()
                   if name not in now.get(of, {}) or now[of][name] != value}
        assert not changed, (f"{of}: {changed} (was, is). Old records would answer for runs that they are not: "
                             "give the default its old value again, or raise SCHEMA in recipe.py")
    new = {of: left for of, values in now.items()
           if (left := {k: v for k, v in values.items() if k not in pinned["defaults"].get(of, {})})}
    assert not new, ("new, and no fault: where such a default changes nothing about older runs, add it by hand to "
                     f"{PINNED.name}, else raise SCHEMA\n{json.dumps(new, indent=1)}")


# ---- what is refused

@pytest.mark.parametrize("given, kind, word", [
    ({"images": "cifar"}, ValueError, "images: got 'cifar'.*cifar10"), ({"steps": 0}, ValueError, "steps: got 0"),
    ({"batch": 12.5}, TypeError, "batch: got 12.5"), ({"n": -1}, ValueError, "recipe: n"),
    ({"autocast": "float16"}, ValueError, "bfloat16"), ({"optimiser": "adam"}, ValueError, "'adam'"),
    ({"net": {"widht": 8}}, ValueError, "'widht'.*did you mean 'width'"),
    ({"views": "imagenet"}, ValueError, "imagenet"),
    ({"parts": {"stop_gradient": 1}}, TypeError, "stop_gradient of simsiam.SimSiam: got 1, expected a bool"),
    ({"unlabelled": "cifar"}, ValueError, "unlabelled: got 'cifar'.*cifar100"),
    ({"unlabelled": "cifar10"}, ValueError, "unlabelled: got 'cifar10', expected one of 'cifar100'"),   # it is there already
    ({"unlabelled": "textures"}, ValueError, "textures has 1 channels, cifar10 3"),
    ({"unlabelled": "cifar100", "order": "orders.single_pass", "stream": {"by": "class"}}, ValueError, "by: got 'class'"),
    ({"net": {"width": True}}, TypeError, "expected a int"), ({"parts": {"seed": 1}}, ValueError, "'seed'"),
    ({"method": "simsiam.SimSam"}, ValueError, "no 'simsiam.SimSam'"),
    ({"backbone": "resnet"}, ValueError, "module.name"),
    ({"schedule": "cosin"}, ValueError, "did you mean 'cosine'"), ({"base_lr": -1}, ValueError, "base_lr: got -1"),
    ({"steps": 200, "warmup": 900}, ValueError, "warmup: got 900 of 200"), ({"momentum": 1}, ValueError, "below 1"),
    ({"method": "nowhere.SimSiam"}, ValueError, "nowhere"),
])
def test_what_cannot_be_is_refused_at_once(given, kind, word):
    with pytest.raises(kind, match=f"(?i){word}"):
        Recipe(**given)


def test_but_changes_fields_and_arguments():
    changed = Recipe().but(width=8, stop_gradient=False, steps=10, hue=0.0)
    assert dict(changed.net) == {"width": 8} and dict(changed.parts)["stop_gradient"] is False
    assert dict(changed.augment) == {"hue": 0.0} and changed.steps == 10
    assert changed.but(width=64, stop_gradient=True, steps=9700, hue=Recipe().whole()["augment"]["hue"]) == Recipe()
    assert Recipe().but(batch=256, steps=None).steps == 2 * Recipe().steps
    with pytest.raises(ValueError, match="(?i)'wdth'.*did you mean 'width'"):
        Recipe().but(wdth=8)


def test_an_argument_of_two_parts_must_be_said_with_its_part(monkeypatch):
    monkeypatch.setattr("simsiam_explained.recipe.arguments", lambda part, name: {"depth": 1})
    with pytest.raises(ValueError, match="argument of net and of"):
        Recipe(parts=()).but(depth=2)


# ---- what is made

def test_a_seed_is_a_net_and_the_same_each_time():
    one, same, other = TINY.build(1), TINY.build(1), TINY.build(2)
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters()))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)


def test_what_is_built_has_the_arguments():
    method = TINY.but(predictor="fixed", affine=False, symmetry="asymmetric 2x", width=6).build()
    assert method.views_per_image == 4 and not any(w.requires_grad for w in method.predictor.parameters())
    assert method.backbone.dim == 6 * 4 and next(method.parameters()).shape[1] == 1


def test_the_order_is_that_of_fit():
    order = TINY.batches(3)
    assert order == shuffled(96, 16, 3) and order != shuffled(96, 16, 4)


@pytest.mark.parametrize("images", ["textures", "mosaics", "digits", *(pytest.param(name, marks=pytest.mark.skipif(
    not (cache_dir() / f"{name}.npz").is_file() and not (cache_dir() / f"{name}-train.npz").is_file(),
    reason=f"{name} is not in {cache_dir()}")) for name in ("cifar10", "cifar100", "stl10"))])
def test_the_numbers_of_images_are_right(images):
    train, _ = load_images(images)
    assert (len(train), *train.shape) == (SHAPES[images][0], SHAPES[images][1], SHAPES[images][2], SHAPES[images][2])
    assert Recipe(images).count == len(train) and Recipe(images).shape == train.shape


def test_printing_says_what_a_run_will_be():
    recipe = base("small").but(batch=512, affine=False)
    said, weights = str(recipe), sum(w.numel() for w in recipe.build().backbone.parameters())
    for word in (recipe.key, "affine False", "50,000 of cifar10, 3×32×32", "0.4 = 0.2 × 512/256", "cosine per step",
                 "1,000 steps of 512 = 10.2 epochs", "2 of each image", "12 layers; one group: the 512 images",
                 "two CPU threads", "a big GPU", f"backbone {weights:,}"):
        assert word in said, word
    assert max(map(len, said.splitlines())) < 140


def test_all_parts_of_a_recipe_exist():
    for claim in evidence.claims().values():
        for scale in claim.scales:
            for recipe in claim.recipes(scale).values():
                assert callable(find(recipe.method)) and set(PARTS.values()) <= set(recipe.whole())


# ---- what it costs

def test_flops_are_those_of_a_count_by_hand():
    method, counted = TINY.build().eval(), []

    def count(layer, given, out):
        if isinstance(layer, nn.Conv2d):         # a product and a sum for each weight, at each place
            counted.append(2 * layer.weight.numel() * out.shape[2] * out.shape[3])
        if isinstance(layer, nn.Linear):
            counted.append(2 * layer.weight.numel())

    for layer in method.modules():
        layer.register_forward_hook(count)
    with torch.no_grad():
        method.predictor(method.projector(method.backbone(torch.zeros(1, 1, 16, 16))))
    assert flops(TINY) == sum(counted)
    stem = next(layer for layer in method.modules() if isinstance(layer, nn.Conv2d))
    assert counted[0] == 2 * 1 * 4 * stem.kernel_size[0] ** 2 * 8 * 8      # 1 → 4 channels on 8 × 8 places
    assert flops(TINY.but(size=32)) > 3.5 * flops(TINY)


def test_the_estimate_follows_the_records_of_such_a_device():
    mine, twice = record(speed=100.0), record(speed=200.0)
    assert seconds(TINY, [mine]) == seconds(TINY) or mine.machine["threads"] == 2
    threads = mine.machine["threads"]
    there = lambda recipe, *records: seconds(recipe, records, "cpu", threads)  # noqa: E731
    assert there(TINY, mine) == pytest.approx(4 * 16 / 100.0) and there(TINY, twice) == pytest.approx(4 * 16 / 200.0)
    assert there(TINY.but(steps=40), mine) == pytest.approx(10 * there(TINY, mine))
    assert there(TINY.but(symmetry="asymmetric 2x"), mine) == pytest.approx(2 * there(TINY, mine))
    assert there(TINY, replace(mine, images_per_second=float("nan"))) == there(TINY)       # diverged at once
    assert seconds(TINY, [mine], "cuda") == seconds(TINY, device="cuda") != there(TINY, mine)
    large = record(base("small").but(width=64), speed=5.0)
    assert there(TINY, replace(large, flops=flops(base("small").but(width=64))), replace(mine, flops=flops(TINY))) \
        == pytest.approx(there(TINY, mine))


def test_the_plan_of_fit_is_in_every_recipe():
    assert set(runs.PLAN) <= {f.name for f in fields(Recipe)} and "seed" in {f.name for f in fields(Plan)}
