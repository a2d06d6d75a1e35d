"""Refusals that help: every error names what was given, what was expected and what to do."""
from __future__ import annotations

import difflib
import inspect
import math
import os
import tempfile
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["one_of", "positive", "whole", "number", "flag", "check_features", "check_labels", "check_pixels",
           "check_generator", "check_method", "check_writable", "quick", "pick_device", "usable_cores"]

MANY = 30     # choice: of more names than these, only the nearest three are shown


def one_of(what: str, given: object, valid: Iterable[str]) -> str:
    """Return `given` if it is one of `valid`; otherwise ValueError naming the nearest valid one, or three of MANY."""
    valid = list(valid)
    if given in valid:
        return given
    many = len(valid) > MANY
    near = difflib.get_close_matches(str(given).lower(), map(str, valid), n=3 if many else 1, cutoff=0 if many else 0.4)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    names = f"{len(valid)} names" if many else ", ".join(map(repr, valid))
    raise ValueError(f"{what}: got {given!r}, expected one of {names}.{hint}")


def positive(what: str, given: object) -> int:
    """Return `given` as an int if it is a whole number of at least 1; otherwise TypeError or ValueError naming it."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"{what}: got {given!r} ({type(given).__name__}), expected a whole number ≥ 1.")
    if given < 1:
        raise ValueError(f"{what}: got {given}, expected a whole number ≥ 1.")
    return int(given)


def whole(what: str, given: object) -> int:
    """Return `given` as an int if it is a whole number of at least 0; otherwise ValueError naming it."""
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 0:
        raise ValueError(f"{what}: got {given!r}, expected a whole number ≥ 0.")
    return int(given)


def number(what: str, given: float, low: float, high: float = math.inf) -> float:
    """Return `given` as a float if it is finite and in [low, high]; otherwise ValueError."""
    if isinstance(given, bool) or not isinstance(given, Real) or not low <= given <= high or given == math.inf:
        raise ValueError(f"{what}: got {given!r}, expected a number from {low:g} to {high:g}.")
    return float(given)


def flag(what: str, given: bool) -> bool:
    """Return `given` if it is True or False; otherwise TypeError."""
    if not isinstance(given, bool):
        raise TypeError(f"{what}: got {given!r}, expected True or False.")
    return given


def check_features(x: Tensor, what: str = "features") -> Tensor:
    """Return `x` if it is a finite, non-empty float tensor (N, d); otherwise an error that names the fault."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{what}: got {type(x).__name__}, expected a torch.Tensor (N, d).")
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{what}: got shape {tuple(x.shape)}, expected (N, d) with N ≥ 1 and d ≥ 1; "
                         "pool or flatten each image to one vector first.")
    if not x.is_floating_point():
        raise TypeError(f"{what}: got dtype {x.dtype}, expected floating point; use .float().")
    if not torch.isfinite(x).all():
        raise ValueError(f"{what}: {int((~torch.isfinite(x)).any(1).sum())} of {len(x)} rows hold NaN or infinity; "
                         "the network that made them has diverged.")
    return x


def check_labels(labels: Tensor | None, n: int, what: str = "labels") -> Tensor:
    """Return `labels` if there is one whole number for each of `n` images; otherwise an error."""
    if labels is None:
        raise ValueError(f"{what}: this image set has none, and a probe needs them; "
                         "give labels=… when the set is made, or skip the probe.")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.ndim != 1:
        raise TypeError(f"{what}: got {getattr(labels, 'dtype', type(labels).__name__)} of shape "
                        f"{tuple(getattr(labels, 'shape', ()))}, expected a whole-number tensor (N,).")
    if len(labels) != n:
        raise ValueError(f"{what}: got {len(labels)} for {n} images, expected one for each image.")
    return labels


def quick(full, test):
    """Return `full`, or `test` when a notebook runs as a test (nbdev_test sets IN_TEST)."""
    return test if os.environ.get("IN_TEST") else full


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device for 'auto' (cuda if there is one), 'cpu' or 'cuda'; otherwise ValueError."""
    name = str(name)
    one_of("device", name.split(":")[0], ["auto", "cpu", "cuda"])
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: got {name!r}, but torch sees no CUDA device here; use 'auto' or 'cpu'.")
    return torch.device(name)


def check_pixels(pixels: Tensor) -> Tensor:
    """Return `pixels` if they are a batch of uint8 images (B, C, H, W) of 1 or 3 channels; otherwise an error."""
    if not isinstance(pixels, Tensor):
        raise TypeError(f"pixels: got {type(pixels).__name__}, expected a torch.Tensor (B, C, H, W) of uint8; "
                        "of Images take .pixels.")
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise ValueError(f"pixels: got shape {tuple(pixels.shape)}, expected a batch (B, C, H, W) with B ≥ 1; "
                         "one image needs pixels[None].")
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels: got dtype {pixels.dtype}, expected torch.uint8 with values 0…255; "
                        "from floats in [0, 1] use (x * 255).round().byte().")
    if pixels.shape[1] not in (1, 3):
        raise ValueError(f"pixels: got {pixels.shape[1]} channels, expected 1 (grey) or 3 (red, green, blue), "
                         "in the order (B, C, H, W).")
    return pixels


def check_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return `generator` if it is a torch.Generator on `device`; otherwise an error."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: got {type(generator).__name__}, expected a torch.Generator; "
                        f"use torch.Generator({str(device)!r}).manual_seed(seed).")
    if generator.device.type != device.type:
        raise ValueError(f"generator: it is on {generator.device}, but the pixels are on {device}; "
                         f"use torch.Generator({str(device)!r}).manual_seed(seed).")
    return generator


def check_method(method: nn.Module, views: int) -> nn.Module:
    """Return `method` if its forward takes so many views of each image; otherwise TypeError."""
    try:
        inspect.signature(method.forward).bind(*range(views))
    except TypeError as fault:
        raise TypeError(f"method: {type(method).__name__}.forward cannot take {views} views of each image ({fault}); "
                        "a backbone alone is no method, wrap it as in SimSiam(backbone).") from None
    except ValueError:         # a scripted module has no signature
        pass
    return method


def check_writable(path: str | Path, what: str = "checkpoint") -> Path:
    """Return `path` if a file can be written there; otherwise an OSError, before any time is spent."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError("it is read-only")
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as fault:
        raise type(fault)(f"{what}: cannot write {str(path)!r} ({fault.strerror or fault}); "
                          "give a file in a folder that exists and is yours.") from None
    return path
