"""What a recipe names: functions and classes of this package, and which of their arguments it may set."""
from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cache

from .checks import one_of
from .views import make_views

__all__ = ["PARTS", "find", "takes", "check_free", "arguments", "alike", "differing"]

PARTS = {"net": "backbone", "parts": "method", "augment": "views", "stream": "order"}   # arguments, and of what
GIVEN = ("backbone", "seed", "channels", "shape", "n", "batch", "steps", "images")      # by the run, not by a recipe


def find(name: str) -> Callable:
    """Return what a recipe means by "module.name" of this package, as in "simsiam.SimSiam"."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(f"simsiam_explained.{module}"), attribute)
    except (ImportError, AttributeError) as fault:
        raise ValueError(f"recipe: there is no {name!r} in this package ({fault}); "
                         "expected module.name, as in 'simsiam.SimSiam'.") from fault


def takes(name: str) -> dict:
    """Return {argument: parameter} of a function, or of a class and its parents."""
    made_by = find(name)
    layers = [c.__init__ for c in reversed(made_by.__mro__[:-1])] if isinstance(made_by, type) else [made_by]
    return {p.name: p for layer in layers for p in inspect.signature(layer).parameters.values()}


def check_free(what: str, fixed: Mapping, given: Iterable[str]) -> None:
    """TypeError for the first of `given` that a class sets itself; `fixed`: {such an argument: what to do instead}."""
    for name in given:
        if name in fixed:
            raise TypeError(f"{what}: {name!r} is set by the class itself: {fixed[name]}.")


def _fixed(part: str, name: str) -> Mapping:
    """Return what the class `name` has fixed, as check_free takes it."""
    return {} if part == "augment" else getattr(find(name), "fixed", {})


@cache
def _defaults(part: str, name: str) -> dict:
    """Return {argument: default} of one of PARTS, with those that a class sets itself."""
    if part == "augment":
        first, second = (asdict(a) if a else {} for a in (make_views(name).first, make_views(name).second))
        return {k: v if second.get(k, v) == v else None for k, v in first.items()}     # None: no common default
    return {p.name: p.default for p in takes(name).values() if p.default is not p.empty and p.name not in GIVEN}


@cache
def arguments(part: str, name: str) -> dict:
    """Return {argument: default} of all that a recipe may set in one of its PARTS, as in ("net", "encoders.resnet")."""
    return {k: v for k, v in _defaults(part, name).items() if k not in _fixed(part, name)}


def _frozen(value):
    """Return `value` with tuples for lists."""
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value


def alike(value):
    """Return `value` as JSON writes all values that are equal to it: whole numbers without a point."""
    if isinstance(value, (list, tuple)):
        return [alike(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def differing(part: str, name: str, given: Mapping | Iterable) -> tuple:
    """Return the sorted (argument, value) pairs of `given` that differ from the defaults; unknown ones are refused."""
    found, defaults = {}, _defaults(part, name)      # older records state those that a class sets itself, too
    for key, value in dict(given).items():
        default = defaults[one_of(f"recipe: {part}, the arguments of {name}", key, defaults)]
        if None not in (value, default) and isinstance(value, bool) != isinstance(default, bool):   # True == 1
            raise TypeError(f"recipe: {part}, {key} of {name}: got {value!r}, expected a {type(default).__name__}.")
        if _frozen(value) != default:
            found[key] = _frozen(value)
    check_free(f"recipe: {part}, {name}", _fixed(part, name), found)
    return tuple(sorted(found.items()))
