"""Recipes: everything that decides a run but its seed, in one frozen value with a key."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .checks import one_of, positive, whole
from .memory import in_eval
from .named import PARTS, alike, arguments, check_free, differing, find, takes
from .training import Plan
from .views import Views, make_views

__all__ = ["SCHEMA", "SCALES", "PLAN", "Recipe", "base", "flops", "seconds"]

SCHEMA = 1      # of recipes and records; a changed default, or a changed meaning of a field, raises it
SHAPES = {"cifar10": (50_000, 3, 32), "cifar100": (50_000, 3, 32), "stl10": (5_000, 3, 96),
          "textures": (8_000, 1, 32), "mosaics": (8_000, 1, 32), "digits": (1_438, 1, 32)}   # images, channels, side
ENDLESS = ("textures", "mosaics")       # made: as many as are asked for
PLAN = [f.name for f in fields(Plan) if f.name != "seed"]    # what a recipe says of the optimiser and its schedule


def _check_unlabelled(recipe: Recipe) -> None:
    """ValueError if the set `recipe.unlabelled` cannot be trained on besides; another side is resampled."""
    other = one_of("recipe: unlabelled", recipe.unlabelled, [name for name in SHAPES if name != recipe.images])
    if SHAPES[other][1] != recipe.shape[0]:
        raise ValueError(f"recipe: unlabelled: {other} has {SHAPES[other][1]} channels, {recipe.images} "
                         f"{recipe.shape[0]}; one net cannot take both.")
    by = dict(recipe.stream).get("by", "chance")
    if by != "chance":
        raise ValueError(f"recipe: by: got {by!r}, but the images of {other} come without labels and factors; "
                         "leave out `by`, or `unlabelled`.")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run, except its seed. Defaults: SimSiam on CIFAR-10 as in its App. D, 100 epochs."""
    images: str = "cifar10"
    n: int | None = None                 # at most so many of its training images; None: all
    size: int | None = None              # resampled to so many pixels a side; None: as they are
    unlabelled: str = ""                 # another set, whose training images are all trained on besides, without labels
    views: str = "cifar"
    augment: Mapping = ()                # arguments of make_views(views, …), of
    backbone: str = "encoders.resnet"
    net: Mapping = ()                    # the backbone, of
    method: str = "simsiam.SimSiam"
    parts: Mapping = (("hidden", 2048), ("layers", 2))   # the method; App. D leaves `hidden` open. choice: as wide as z
    order: str = "training.shuffled"
    stream: Mapping = ()                 # and of the order
    steps: int = 9700                    # 100 epochs of 97 whole batches; the paper's number on CIFAR-10 takes 800
    batch: int = 512                     # App. D, as the learning rate and the weight decay
    base_lr: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: str = "all"
    warmup: int = 0
    schedule: str = "cosine"
    per: str = "step"
    autocast: str = "float32"            # or "bfloat16"
    optimiser: str = "sgd"               # one of OPTIMISERS
    watch: int = 0                       # kNN in a bank of training features once in so many steps, and gradients; 0: not

    def __post_init__(self):
        for f in fields(self):
            if isinstance(value := getattr(self, f.name), np.generic):       # JSON, and so the key, knows no NumPy
                object.__setattr__(self, f.name, value.item())
        all_images, _, side = SHAPES[one_of("recipe: images", self.images, SHAPES)]
        one_of("recipe: autocast", self.autocast, ("float32", "bfloat16"))
        _ = self.plan         # what fit would refuse is refused here
        for name in ("n", "size"):
            if getattr(self, name) is not None:
                positive(f"recipe: {name}", getattr(self, name))
        if self.n == all_images or self.n and self.n > all_images and self.images not in ENDLESS:
            object.__setattr__(self, "n", None)
        if self.size == side:
            object.__setattr__(self, "size", None)
        for part, of in PARTS.items():
            object.__setattr__(self, part, differing(part, getattr(self, of), getattr(self, part)))
        if self.unlabelled:
            _check_unlabelled(self)
        if whole("recipe: watch", self.watch) and self.unlabelled:
            raise ValueError("recipe: watch: its kNN needs the labels of all training images; leave out `unlabelled`.")

    @property
    def key(self) -> str:
        """A hash of the schema and of the fields that differ from their defaults: new neutral ones keep old keys."""
        changed = {f.name: alike(getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps({"schema": SCHEMA} | changed, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def plan(self) -> Plan:
        """What `fit` does with the weights; ValueError or TypeError names a field that cannot be."""
        return Plan(**{name: getattr(self, name) for name in PLAN})

    @property
    def count(self) -> int:
        """The number of training images, those of `unlabelled` among them."""
        return (self.n or SHAPES[self.images][0]) + (SHAPES[self.unlabelled][0] if self.unlabelled else 0)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, channels, side = SHAPES[self.images]
        return channels, self.size or side, self.size or side

    def whole(self) -> dict:
        """Return every field, and every argument of every part, as a record keeps them; Recipe(**whole) is equal."""
        return asdict(self) | {part: arguments(part, getattr(self, of)) | dict(getattr(self, part))
                               for part, of in PARTS.items()}

    def but(self, **changes) -> Recipe:
        """Return a copy with fields, or arguments of its parts, changed. steps=None: as many images as before; a warmup
        that is a float: that share of the steps."""
        names = [f.name for f in fields(self)]
        own = {name: changes.pop(name) for name in names if name in changes}
        if "steps" in own and own["steps"] is None:
            own["steps"] = max(1, round(self.steps * self.batch / own.get("batch", self.batch)))
        if isinstance(own.get("warmup"), float):
            own["warmup"] = round(own["warmup"] * own.get("steps", self.steps))
        new = replace(self, **own)
        allowed = {part: arguments(part, getattr(new, of)) for part, of in PARTS.items()}
        check_free(f"recipe: {new.method}", getattr(find(new.method), "fixed", {}), changes)
        for name, value in changes.items():
            one_of("recipe", name, names + [k for arguments_of in allowed.values() for k in arguments_of])
            part, *others = [part for part, arguments_of in allowed.items() if name in arguments_of]
            if others:
                raise ValueError(f"recipe: {name!r} is an argument of {part} and of {', '.join(others)}; say "
                                 f"{part}={{…}} with all its arguments.")
            new = replace(new, **{part: dict(getattr(new, part)) | {name: value}})
        return new

    def _made(self, what: str, of: str, seed: int, *first, **more):
        """Return what `what` names, made with the arguments in `of` and with those that only the run knows."""
        known = {"seed": seed, "channels": self.shape[0], "shape": self.shape, "n": self.count, "batch": self.batch,
                 "steps": self.steps} | more
        name = getattr(self, what)
        return find(name)(*first, **dict(getattr(self, of)), **{k: v for k, v in known.items() if k in takes(name)})

    def build(self, seed: int = 0, **known) -> nn.Module:
        """Return the method with the first weights of `seed`, on the CPU. known: channels, shape, n of other images."""
        return self._made("method", "parts", seed, self._made("backbone", "net", seed, **known), **known)

    def make_views(self) -> Views:
        """Return its views, of the size of its images; the papers' 224 pixels are ImageNet's."""
        return make_views(self.views, size=None, **dict(self.augment))

    def batches(self, seed: int = 0, images=None) -> Iterable:
        """Return the order of the run of `seed`: batches of image numbers. A sorted stream needs the training images."""
        return self._made("order", "stream", seed, images=images)

    def __str__(self) -> str:
        return _described(self)


@cache
def _cost(recipe: Recipe) -> tuple[float, int]:
    """Return (operations of one view's way forward through backbone, projector and predictor; views of an image)."""
    method, x = recipe.build().requires_grad_(False), torch.zeros(2, *recipe.shape)   # no_grad: an error in torch 2.4
    with FlopCounterMode(display=False) as counted, in_eval(method):
        method.predictor(method.projector(method.backbone(x)))
    return counted.get_total_flops() / len(x), method.views_per_image


def flops(recipe: Recipe) -> float:
    """Return the floating-point operations of one view's way through backbone, projector and predictor, forward."""
    return _cost(recipe)[0]


SPEED = {"cpu": 8e10, "cuda": 5e13}    # choice: operations a second (CPU: of a thread), by what our runs took,
VIEWS = {"cpu": 1.5e-4, "cuda": 0.0}   # and seconds on one view


def _guess(recipe: Recipe, device: str, threads: int) -> float:
    """Return the estimated training time in seconds, of a machine that no record tells of."""
    operations, views = _cost(recipe)
    threads = threads if device == "cpu" else 1
    return recipe.steps * recipe.batch * views * (3 * operations / SPEED[device] + VIEWS[device]) / threads


def seconds(recipe: Recipe, records: Iterable = (), device: str = "cpu", threads: int = 2) -> float:
    """Return the estimated training time: by the speed of the record whose net is nearest in size, on such a device."""
    alike = [r for r in records if r.machine["device"] == device and r.images_per_second > 0
             and (device == "cuda" or r.machine["threads"] == threads)]
    if not alike:
        return _guess(recipe, device, threads)
    near = min(alike, key=lambda r: abs(r.flops - flops(recipe)))
    there = Recipe(**near.recipe)
    took = there.steps * there.batch / near.images_per_second
    return took * _guess(recipe, device, threads) / _guess(there, device, threads)


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _said(pairs: Iterable) -> str:
    return ", ".join(f"{k} {v}" for k, v in pairs)


def _described(r: Recipe) -> str:
    """Return what `print(recipe)` shows: the effective rate, steps, views, BN groups, weights, the estimated time."""
    method = r.build()
    heads = {name: getattr(method, name) for name in ("backbone", "projector", "predictor")}
    weights = {name: f"{sum(w.numel() for w in net.parameters()):,}" for name, net in heads.items()}
    frozen = sum(w.numel() for w in method.parameters() if not w.requires_grad)
    bn = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in method.modules())
    lines = {
        f"recipe {r.key}": f"{r.method}, {_said(r.parts)}",
        "images": f"{r.count:,} of {r.images}{' and, unlabelled, ' * bool(r.unlabelled)}{r.unlabelled}, "
                  f"{'×'.join(map(str, r.shape))}; order {r.order} {_said(r.stream)}",
        "views": f"{method.views_per_image} of each image, recipe {r.views} {_said(r.augment)}",
        "net": f"{r.backbone}, {_said(r.net)}",
        "weights": f"{_said(weights.items())}; {frozen:,} frozen",
        "BN": f"{bn} layers; one group: the {r.batch} images of a batch, each view alone",
        "rate": f"{r.optimiser}, {r.plan.lr0:.4g} = {r.base_lr:g} × {r.batch}/256, {r.schedule} per {r.per}, "
                f"warm-up {r.warmup}; predictor {method.predictor_lr}; momentum {r.momentum:g}, "
                f"decay {r.weight_decay:g} on {r.decay}",
        "length": f"{r.steps:,} steps of {r.batch} = {r.steps * r.batch / r.count:.1f} epochs, {r.autocast}",
        "time": f"about {_span(seconds(r))} on two CPU threads, {_span(seconds(r, device='cuda'))} on a big GPU"}
    return "\n".join(f"{name:19} {text.strip(' ,;')}" for name, text in lines.items())


SCALES = ("live", "small", "full")


@cache
def base(scale: str) -> Recipe:
    """Return the recipe of a healthy SimSiam at one scale; the arms of the claims are its variants."""
    narrow = {"width": 16, "blocks": (1, 1, 1), "stem": "stride2"}
    if one_of("scale", scale, SCALES) == "live":       # choice: chapter 08's run, on which the rate was settled
        return Recipe("textures", n=4000, size=24, views="textures", net=narrow | {"width": 8},
                      parts={"dim": 64, "layers": 2}, steps=200, batch=128, base_lr=0.8, weight_decay=1e-4)
    if scale == "small":      # choice: five epochs, and the rate for them by kNN on 5,000 held-out training images
        return Recipe(net=narrow, parts={"dim": 512, "hidden": 512, "layers": 2}, steps=1000, batch=256, base_lr=0.2)
    return Recipe(autocast="bfloat16")
