"""Bytes on disk into arrays: .npz files and image files, with refusals that name the file and the fault."""
from __future__ import annotations

import os
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .checks import one_of
from .memory import whole_file

__all__ = ["ENDINGS", "PARTS", "listed", "place", "held_out", "fetch", "save_npz", "open_npz", "read_npz",
           "find_images", "by_folder", "read_images"]

_TEST = ("test", "val", "valid", "validation")           # of a set that holds several, the first is its test part
PARTS = ("train", *_TEST, "unlabeled")
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def listed(names) -> str:
    """Return the first five names, and how many there are."""
    names = list(names)
    return ", ".join(names[:5]) + (f", … ({len(names)} in all)" if len(names) > 5 else "")


def place(what) -> Path | None:
    """Return the path of the .npz file or folder `what`, None for a mere word; an error if it is no such file."""
    path = Path(os.path.expanduser(what))
    if path.is_dir() or path.is_file() and path.suffix.lower() == ".npz":
        return path
    if path.exists():
        raise ValueError(f"images: {what} is neither an .npz file nor a folder of image files; give one of these.")
    if path.suffix or path.name != what:
        raise FileNotFoundError(f"images: {what}: no such file or folder; give an .npz file or a folder of images.")
    return None


def held_out(path: Path) -> str | None:
    """Return the name of the test part of an .npz file, or of a folder with train and test parts; else None."""
    if path.is_dir():
        return next((part for part in _TEST if (path / part).is_dir() and (path / "train").is_dir()), None)
    with open_npz(path) as file:
        return next((part for part in _TEST if {f"{part}_images", f"x_{part}"} & set(file.files)), None)


def fetch(name: str, split: str, folder: Path) -> Path:
    """Return the .npz of one split of cifar10, cifar100 or stl10 in `folder`; torchvision fetches a missing one."""
    path = folder / f"{name}-{split}.npz"
    if path.exists():
        return path
    from torchvision import datasets

    folder.mkdir(parents=True, exist_ok=True)
    source = getattr(datasets, name.upper())
    which = {"split": split} if name == "stl10" else {"train": split == "train"}
    try:                                # torchvision keeps a finished download and compares its checksum
        data = source(str(folder), download=True, **which)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"{name}: {path.name} is not in {folder}, and the download failed ({error}). Three roads: download "
            f"{source.url} by hand into {folder}, or put {name}.npz there with keys train_images, train_labels, …, and "
            "call again; from_npz('FILE.npz'); from_folder('FOLDER') of image files. textures() needs no download.") from error
    labels = np.asarray(data.labels if name == "stl10" else data.targets, dtype=np.int64)
    known = {} if split == "unlabeled" else {"labels": labels, "classes": np.array(data.classes)}
    save_npz(path, images=data.data, **known)
    return path


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    """Write an .npz whole or not at all."""
    with whole_file(path) as file:
        np.savez(file, **arrays)


@contextmanager
def open_npz(path):
    """Open an .npz file in a `with`, pickles refused; FileNotFoundError or ValueError if it is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; np.savez('FILE.npz', images=…, labels=…) makes one.")
    with open(path, "rb") as raw:
        try:
            file = np.load(raw, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ValueError(f"{path}: no .npz file, or one that is cut off; copy it again, or write it with "
                             "np.savez('FILE.npz', images=…, labels=…).") from error
        if isinstance(file, np.ndarray):
            raise ValueError(f"{path}: a single array, expected an .npz; use np.savez('FILE.npz', images=…, labels=…).")
        with file:
            yield file


def _pairs(split: str) -> list[tuple[str, str]]:
    """The keys (images, labels) under which a split may lie."""
    plain = [("images", "labels"), ("x", "y")] if split == "train" else []
    return [(f"{split}_images", f"{split}_labels"), (f"x_{split}", f"y_{split}"), *plain]


def read_npz(path, split: str) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return (pixels (N, C, H, W), labels (N,) or None, class names) of one split; KeyError if there is none, and a
    warning that names keys which belong to no split."""
    pairs = _pairs(split)
    with open_npz(path) as file:
        keys = next((pair for pair in pairs if pair[0] in file.files), None)
        if keys is None:
            raise KeyError(f"{path}: no {split} images among the keys {', '.join(file.files) or '(none)'}; "
                           f"expected one of {', '.join(pair[0] for pair in pairs)}.")
        pixels = _channels_first(_array(file, keys[0], path, "iuf"), path)
        labels = _array(file, keys[1], path, "iu") if keys[1] in file.files else None
        classes = _names(_array(file, "classes", path, "UiuS"), path) if "classes" in file.files else []
        others = {key for part in PARTS if part != split for pair in _pairs(part) for key in pair}
        if unused := [key for key in file.files if key not in {*keys, "classes", *others}]:
            warnings.warn(f"{path}: not used: {listed(unused)}; with images in {keys[0]!r}, labels are looked for in "
                          f"{keys[1]!r}, names in 'classes'.", stacklevel=3)
    if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    return pixels, labels, classes


def _array(file, key: str, path, kinds: str) -> np.ndarray:
    """One array of an open .npz; ValueError for Python objects or a damaged member, TypeError for another kind."""
    try:
        array = file[key]
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        fault = "holds Python objects, which are never unpickled; save it as one plain array" \
            if "Object arrays" in str(error) else f"cannot be read ({error}); copy or write the file again"
        raise ValueError(f"{path}: {key!r} {fault}.") from error
    if array.dtype.kind not in kinds:
        raise TypeError(f"{path}: {key!r} has dtype {array.dtype}; expected bytes or floats for images, whole numbers "
                        "for labels, text for classes.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)       # torch takes no bytes in foreign order


def _names(classes: np.ndarray, path) -> list[str]:
    """The names of the classes, bytes decoded; ValueError if they are not one row."""
    if classes.ndim != 1:
        raise ValueError(f"{path}: 'classes' has shape {classes.shape}, expected one row: a name for each class.")
    return [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in classes.tolist()]


def _channels_first(pixels: np.ndarray, path) -> np.ndarray:
    """(N, H, W, C), (N, C, H, W) or (N, H, W) as a contiguous (N, C, H, W); ValueError for a single colour picture."""
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        raise ValueError(f"{path}: images of shape {pixels.shape} are one colour picture, expected (N, H, W, C); save "
                         "pixels[None].")
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels)


def find_images(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted; NotADirectoryError if it is none, ValueError if it holds none."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder; give the folder that holds the images.")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in ENDINGS and not f.name.startswith("."))
    if not files:
        raise ValueError(f"{folder}: no images there or below; expected files ending in {', '.join(ENDINGS)}.")
    return files


def by_folder(folder: Path, files: list[Path], classes) -> tuple[list[int] | None, tuple[str, ...]]:
    """Return (the label of each file or None, the names): classes are the sub-folders, `classes` if these are given."""
    tops = [next(iter(file.relative_to(folder).parts[:-1]), "") for file in files]        # "" beside the sub-folders
    classes = tuple(classes) or _classes(folder, files, tops)
    if not classes:
        return None, ()
    return [classes.index(one_of(f"{file}: sub-folder", top, classes)) for file, top in zip(files, tops)], classes


def _classes(folder: Path, files: list[Path], tops: list[str]) -> tuple[str, ...]:
    """The sorted sub-folders if each file lies in one of several, otherwise (); ValueError for the parts of a set.

    A warning names sub-folders that are no classes, since files lie beside them or since none was read in them."""
    named, loose = sorted({*tops} - {""}), [file.name for file, top in zip(files, tops) if not top]
    if not loose and {name.lower() for name in named} <= {*PARTS}:
        whole = str(folder / max(named, key=lambda name: name.lower() == "train"))
        raise ValueError(f"{folder}: its sub-folders ({listed(named)}) are parts of a set, no classes; give {whole!r}, "
                         "or the whole to load_images if it has train and test, so written.")
    subs = sorted(sub.name for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith("."))
    empty = [name for name in subs if name not in named]
    few = "" if len(named) > 1 else " There are no labels, for one sub-folder makes no classes."
    if named and loose:
        warnings.warn(f"{folder}: no labels: the sub-folders ({listed(named)}) are ignored as classes, since beside "
                      f"them lies {listed(loose)}; move that into one of them, or away.", stacklevel=4)
    elif named and empty:
        warnings.warn(f"{folder}: {listed(empty)} ignored: no image was read there.{few}", stacklevel=4)
    return () if loose or len(named) == 1 else tuple(named)


def read_images(files: list[Path], channels: int, size: int, on_error: str) -> tuple[Tensor, list[Path]]:
    """Return (uint8 pixels (N, channels, size, size), the files read); one warning or an error names the others."""
    pixels = torch.empty(len(files), channels, size, size, dtype=torch.uint8)
    good, bad = [], []
    for file in files:
        try:
            pixels[len(good)] = _read_image(file, channels, size)
            good.append(file)
        except Exception as error:      # Pillow answers damaged files with exceptions of many types
            bad.append(f"{file} ({error})")
            if on_error == "raise" or len(bad) == len(files):
                raise ValueError(f"unreadable: {'; '.join(bad)}. Repair or remove, or use on_error='warn'.") from error
    if bad:
        warnings.warn(f"{len(bad)} of {len(files)} images left out as unreadable: {'; '.join(bad)}", stacklevel=3)
    return pixels[:len(good)], good


def _read_image(file: Path, channels: int, size: int) -> Tensor:
    """One file as uint8 (C, size, size): upright, on white where transparent, 16 bits brought to 8, centre square."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I") or image.mode == "F":
            grey = np.asarray(image, dtype=np.float64) / (1 if image.mode == "F" else 65535)
            if not (grey.min() >= 0 and grey.max() <= 1):
                raise ValueError(f"mode {image.mode} with values beyond 16 bits, or beyond [0, 1] in floating point")
            image = Image.fromarray((grey * 255).round().astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB" if channels == 3 else "L")
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).reshape(size, size, channels).permute(2, 0, 1)
