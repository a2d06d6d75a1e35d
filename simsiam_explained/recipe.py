"""Recipes: everything that decides a run but its seed, in one frozen value with a key."""
from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .checks import one_of, positive
from .memory import in_eval
from .records import SCHEMA, Shelf
from .views import make_views

__all__ = ["Recipe", "SCALES", "base", "find", "arguments", "flops", "seconds"]

PARTS = {"net": "backbone", "parts": "method", "augment": "views", "stream": "order"}   # arguments, and of what
GIVEN = {"seed", "channels", "shape", "n", "batch", "backbone"}                         # by the run, not by a recipe
SHAPES = {"cifar10": (50_000, 3, 32), "cifar100": (50_000, 3, 32), "stl10": (5_000, 3, 96),
          "textures": (8_000, 1, 32), "digits": (1_437, 1, 32)}                         # images, channels, side


def find(name: str) -> Callable:
    """Return what a recipe means by "module.name" of this package, as in "simsiam.SimSiam"."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(f"simsiam_explained.{module}"), attribute)
    except (ImportError, AttributeError) as fault:
        raise ValueError(f"recipe: there is no {name!r} in this package ({fault}); "
                         "expected module.name, as in 'simsiam.SimSiam'.") from fault


def _takes(name: str) -> dict:
    """Return {argument: parameter} of a function, or of a class and its parents."""
    made_by = find(name)
    layers = [c.__init__ for c in reversed(made_by.__mro__[:-1])] if isinstance(made_by, type) else [made_by]
    return {p.name: p for layer in layers for p in inspect.signature(layer).parameters.values()}


@cache
def arguments(part: str, name: str) -> dict:
    """Return {argument: default} of all that a recipe may set in one of its PARTS, as in ("net", "encoders.resnet")."""
    if part == "augment":
        first, second = (asdict(a) if a else {} for a in (make_views(name).first, make_views(name).second))
        return {k: v if second.get(k, v) == v else None for k, v in first.items()}     # None: no common default
    return {p.name: p.default for p in _takes(name).values() if p.default is not p.empty and p.name not in GIVEN}


def _changes(part: str, name: str, given: Mapping | Iterable) -> tuple:
    """Return the sorted (argument, value) pairs of `given` that differ from the defaults; unknown ones are refused."""
    found, defaults = {}, arguments(part, name)
    for key, value in dict(given).items():
        default = defaults[one_of(f"recipe: {part}, the arguments of {name}", key, defaults)]
        value = tuple(value) if isinstance(value, list) else value
        value = float(value) if isinstance(default, float) and type(value) is int else value
        if value != default or type(value) is not type(default):
            found[key] = value
    return tuple(sorted(found.items()))


class _Complete:
    """What a Recipe can do; its fields stand below."""

    def __post_init__(self):
        one_of("recipe: images", self.images, SHAPES)
        one_of("recipe: autocast", self.autocast, ("float32", "bfloat16"))
        for name in ("steps", "batch", *(name for name in ("n", "size") if getattr(self, name) is not None)):
            positive(f"recipe: {name}", getattr(self, name))
        for name in ("base_lr", "momentum", "weight_decay"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for part, of in PARTS.items():
            object.__setattr__(self, part, _changes(part, getattr(self, of), getattr(self, part)))

    @property
    def key(self) -> str:
        """A hash of the schema and of the fields that differ from their defaults: a new neutral field keeps old keys."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        text = json.dumps({"schema": SCHEMA} | changed, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def whole(self) -> dict:
        """Return every field, and every argument of every part, as a record keeps them; Recipe(**whole) is equal."""
        return asdict(self) | {part: arguments(part, getattr(self, of)) | dict(getattr(self, part))
                               for part, of in PARTS.items()}


class _Buildable(_Complete):
    """What a Recipe can make: variants of itself, and the method that it speaks of."""

    def but(self, **changes) -> Recipe:
        """Return a copy with fields, or arguments of its parts, changed. steps=None: as many images as before."""
        own = {k: changes.pop(k) for k in [f.name for f in fields(self)] if k in changes}
        if "steps" in own and own["steps"] is None:
            own["steps"] = round(self.steps * self.batch / own.get("batch", self.batch))
        new = replace(self, **own)
        allowed = {part: arguments(part, getattr(new, of)) for part, of in PARTS.items()}
        for name, value in changes.items():
            one_of("recipe", name, [f.name for f in fields(self)] + [k for names in allowed.values() for k in names])
            where = [part for part, names in allowed.items() if name in names]
            if len(where) > 1:
                raise ValueError(f"recipe: {name!r} is an argument of {' and of '.join(where)}; say {where[0]}={{…}}.")
            new = replace(new, **{where[0]: dict(getattr(new, where[0])) | {name: value}})
        return new

    def build(self, seed: int = 0) -> nn.Module:
        """Return the method with the first weights of `seed`, on the CPU."""
        n, channels, side = SHAPES[self.images]
        given = {"seed": seed, "channels": channels, "shape": (channels, self.size or side, self.size or side),
                 "n": min(self.n or n, n), "batch": self.batch}
        fit_to = lambda name: {k: v for k, v in given.items() if k in _takes(name)}  # noqa: E731
        backbone = find(self.backbone)(**dict(self.net), **fit_to(self.backbone))
        return find(self.method)(backbone, **dict(self.parts), **fit_to(self.method))


@dataclass(frozen=True)
class Recipe(_Buildable):
    """Everything that decides a run, except its seed. Defaults: SimSiam on CIFAR-10 as in its App. D, for 100 epochs."""
    images: str = "cifar10"
    n: int | None = None                 # at most so many training images; None: all
    size: int | None = None              # resampled to so many pixels a side; None: as they are
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

    def __str__(self) -> str:
        return describe(self)


@cache
def flops(recipe: Recipe) -> float:
    """Return the floating-point operations of one view's way through backbone, projector and predictor, forward."""
    method, (_, channels, side) = recipe.build(), SHAPES[recipe.images]
    x = torch.zeros(2, channels, recipe.size or side, recipe.size or side)
    with FlopCounterMode(display=False) as counted, in_eval(method), torch.no_grad():
        method.predictor(method.projector(method.backbone(x)))
    return counted.get_total_flops() / len(x)


SPEED = {"cpu": 6e10, "cuda": 5e13}    # choice: operations a second (CPU: a thread), where no record says better


def seconds(recipe: Recipe, shelf: Shelf = Shelf(), device: str = "cpu", threads: int = 2) -> float:
    """Return the estimated training time: by the speed of the record whose net is nearest in size, on such a device."""
    alike = [r for r in shelf.records.values() if r.machine["device"] == device and (device == "cuda" or r.machine["threads"] == threads)]
    views, seen = recipe.build().views_per_image, recipe.steps * recipe.batch
    if alike:
        near = min(alike, key=lambda r: abs(r.flops - flops(recipe)))
        return seen / near.images_per_second * flops(recipe) / near.flops * views / 2
    return 3 * views * seen * flops(recipe) / (SPEED[device] * (threads if device == "cpu" else 1))


def _said(pairs: Iterable) -> str:
    return ", ".join(f"{k} {v}" for k, v in pairs)


def describe(recipe: Recipe) -> str:
    """Return what `print(recipe)` shows: the effective rate, steps, views, BN groups, weights, the estimated time."""
    r, method, (n, channels, side) = recipe, recipe.build(), SHAPES[recipe.images]
    n, side, v = min(r.n or n, n), r.size or side, method.views_per_image
    weights = {name: sum(w.numel() for w in getattr(method, name).parameters()) for name in ("backbone", "projector", "predictor")}
    frozen = sum(w.numel() for w in method.parameters() if not w.requires_grad)
    bn = sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in method.modules())
    lines = {
        f"recipe {r.key}": f"{r.method}, {_said(r.parts)}",
        "images": f"{n:,} of {r.images}, {channels}×{side}×{side}; order {r.order} {_said(r.stream)}",
        "views": f"{v} of each image, recipe {r.views} {_said(r.augment)}",
        "net": f"{r.backbone}, {_said(r.net)}",
        "weights": f"{_said((k, f'{w:,}') for k, w in weights.items())}; {frozen:,} frozen",
        "BN": f"{bn} layers; one group: the {r.batch} images of a batch, each view alone",
        "rate": f"{r.base_lr * r.batch / 256:.4g} = {r.base_lr:g} × {r.batch}/256, {r.schedule} per {r.per}, "
                f"warm-up {r.warmup}; predictor {method.predictor_lr}; momentum {r.momentum:g}, decay {r.weight_decay:g} on {r.decay}",
        "length": f"{r.steps:,} steps of {r.batch} = {r.steps * r.batch / n:.1f} epochs, {r.autocast}",
        "time": f"about {seconds(r) / 60:.1f} min on two CPU threads, {seconds(r, device='cuda') / 60:.1f} min on a big GPU"}
    return "\n".join(f"{name:19} {text.strip(' ,;')}" for name, text in lines.items())


SCALES = ("live", "small", "full")


@cache
def base(scale: str) -> Recipe:
    """Return the recipe of a healthy SimSiam at one scale; the arms of the claims are its variants."""
    narrow = {"width": 16, "blocks": (1, 1, 1), "stem": "stride2"}
    if one_of("scale", scale, SCALES) == "live":       # choice: chapter 08's run, on which the rate was settled
        return Recipe("textures", n=4000, size=24, views="textures", net=narrow | {"width": 8},
                      parts={"dim": 64, "layers": 2}, steps=200, batch=128, base_lr=0.8, weight_decay=1e-4)
    if scale == "small":              # choice: five epochs, and the rate for them by kNN on 5,000 held-out training images
        return Recipe(net=narrow, parts={"dim": 512, "hidden": 512, "layers": 2}, steps=1000, batch=256, base_lr=0.2)
    return Recipe(autocast="bfloat16")
