"""Backbones small enough to keep beside their record: 8 bits a number, one scale for each output channel."""
from __future__ import annotations

import copy
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .files import open_npz
from .memory import whole_file
from .recipe import Recipe
from .records import Record, read_record, records_dir

__all__ = ["weights_dir", "pack", "unpack", "save_backbone", "load_backbone"]


def weights_dir() -> Path:
    """Return the folder of the kept backbones, beside the records."""
    return records_dir().parent / "weights"


def pack(state: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return a state dict as arrays: what has two or more dimensions as int8 and a float32 scale for each output
    channel (the first dimension), all else as it is."""
    arrays = {}
    for name, value in state.items():
        value = value.detach().cpu()
        if value.ndim < 2:
            arrays[name] = value.numpy()
            continue
        rows = value.flatten(1).float()
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
        arrays[f"{name}|int8"] = (rows / scale).round().to(torch.int8).view(value.shape).numpy()
        arrays[f"{name}|scale"] = scale.flatten().numpy()
    return arrays


def unpack(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Return the state dict that `pack` made arrays of, to the rounding of 8 bits."""
    state = {}
    for name, value in arrays.items():
        key, _, kind = name.partition("|")
        if kind == "int8":
            scale = torch.from_numpy(arrays[f"{key}|scale"])
            state[key] = torch.from_numpy(value).float() * scale.view(-1, *[1] * (value.ndim - 1))
        elif not kind:
            state[key] = torch.from_numpy(value)
    return state


def save_backbone(backbone: nn.Module, record: Record, score: Callable[[nn.Module], float],
                  folder: Path | None = None) -> float:
    """Write `backbone` as KEY-sSEED.npz beside its record; return the `score` (kNN) that it has after packing, which is
    kept with it. A ResNet-18 takes 11 MB."""
    arrays, packed = pack(backbone.state_dict()), copy.deepcopy(backbone)
    packed.load_state_dict(unpack(arrays))
    after, page = score(packed), BytesIO()
    np.savez_compressed(page, **arrays, **{"|kNN": np.float64(after)})
    folder = weights_dir() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / f"{record.name}.npz") as file:
        file.write(page.getvalue())
    return after


def load_backbone(name: str, folder: Path | None = None) -> tuple[nn.Module, Record, float]:
    """Return (backbone in eval mode, its record, its kNN after packing), by the record's name KEY-sSEED.

    FileNotFoundError names those that there are; ValueError says that a file is damaged."""
    folder = weights_dir() if folder is None else Path(folder)
    if not (path := folder / f"{name}.npz").is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.npz"))) or "none"
        raise FileNotFoundError(f"weights: there is no {name!r} in {folder}; there are: {there}.")
    if not (beside := records_dir() / f"{name}.json").is_file():
        raise FileNotFoundError(f"weights: {name!r} has no record {beside}, which says what net it is; restore it.")
    record = read_record(beside)
    try:
        with open_npz(path) as file:
            arrays = {key: file[key] for key in file.files}
        backbone = Recipe(**record.recipe).build().backbone
        backbone.load_state_dict(unpack(arrays))
        return backbone.eval(), record, float(arrays["|kNN"])
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as fault:
        raise ValueError(f"weights: {path} is damaged or not of its record's net ({fault}); restore it.") from fault
