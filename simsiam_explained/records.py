"""Records: one JSON file for each finished run, complete enough to be believed, or to be made again."""
from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import get_type_hints

from torch import Tensor

from .memory import whole_file
from .origin import MACHINE
from .recipe import SCHEMA, Recipe

__all__ = ["POINTS", "Record", "Shelf", "records_dir", "read_record", "read_shelf", "write_record", "thin", "plain"]

POINTS = 400      # a stored curve has at most so many
STATUS = ("ok", "collapsed", "diverged", "stopped")
FIGURES = ("loss", "std", "AUC", "rank", "kNN", "linear")    # that every run has, before and after; rules build on them
EARLY = 0.2       # choice: a fifth of the steps: the first weights are forgotten, most of the training is to come


def _drift(curve: list) -> float:
    """Return by how much a curve of (step, value) changes from EARLY of its steps to its last; NaN where it is none."""
    if not curve:
        return math.nan
    _, early = min(curve, key=lambda point: abs(point[0] - EARLY * curve[-1][0]))
    return math.nan if None in (early, curve[-1][1]) else curve[-1][1] - early


@dataclass(frozen=True)
class Record:
    """What one run of one recipe with one seed left behind. `final` and `untrained` are rows of figures
    (loss, std, AUC, rank, kNN, linear and more), measured at the last step and before the first."""

    schema: int
    key: str                  # of the recipe
    recipe: dict              # every field, every argument
    seed: int
    seeds: dict               # which seed the first weights, the order and the views had
    status: str               # ok | collapsed | diverged | stopped
    final: dict
    untrained: dict
    curves: dict              # {name: [[steps taken, value], …]}, at most POINTS each
    spectra: dict             # {layer: singular values of the centred features, descending}
    machine: dict             # device, name, threads, platform, packages
    code: str                 # hash of the package's sources; two where a stopped run went on under others
    commit: str | None        # where known
    data: str                 # hash of the training images' bytes
    flops: float              # forward, of one view
    wall: float               # seconds of training
    images_per_second: float
    peak_memory: float        # MiB, of the process or the GPU, since the run or its last part began
    digest: str               # hash of the trained weights: equal digests, equal bits
    rules: dict = field(default_factory=dict)    # {claim: hash of its deciding rule when this run began}

    @property
    def name(self) -> str:
        """The file's name without its ending: KEY-sSEED."""
        return f"{self.key}-s{self.seed}"

    @property
    def row(self) -> dict:
        """The final figures; what of them the untrained net had, as "untrained …"; what training changed of kNN as "gain",
        of AUC as "AUC rise"; and "AUC drift", by how much the curve of AUC changed from a fifth of the steps to the last."""
        before = {f"untrained {name}": value for name, value in self.untrained.items()}
        gain, rise = (self.final.get(m, math.nan) - self.untrained.get(m, math.nan) for m in ("kNN", "AUC"))
        return self.final | before | {"gain": gain, "AUC rise": rise, "AUC drift": _drift(self.curves.get("AUC", [])),
                                      "status": self.status, "images/s": self.images_per_second}


@dataclass(frozen=True)
class Shelf:
    """All readable records of a folder, and one sentence for each file that is none."""

    records: dict[tuple[str, int], Record] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def of(self, key: str) -> dict[int, Record]:
        """Return {seed: record} of one recipe, by its key, whole runs only."""
        found = {seed: r for (k, seed), r in self.records.items() if k == key and r.status != "stopped"}
        return dict(sorted(found.items()))


def records_dir() -> Path:
    """Return the folder of the records: $SIMSIAM_EXPLAINED_RECORDS, else data/records of the clone this code runs from.

    FileNotFoundError if the package was installed without its clone and nothing is named."""
    if named := os.environ.get("SIMSIAM_EXPLAINED_RECORDS"):
        return Path(named)
    root = Path(__file__).resolve().parent.parent
    if not (root / "settings.ini").is_file():
        raise FileNotFoundError("records: this package was installed without its data folder; name one with "
                                "SIMSIAM_EXPLAINED_RECORDS, or install from a clone with pip install -e .")
    return root / "data" / "records"


def plain(value, digits: int = 6):
    """Return `value` as strict JSON can hold it: floats to `digits` significant ones, NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(k): plain(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, digits) for v in value]
    if isinstance(value, Tensor):
        return plain(value.tolist(), digits)
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def _numbers(row: dict) -> dict:
    """Return a row of figures with null read as NaN; ValueError for what is no number."""
    if wrong := [name for name, v in row.items() if not isinstance(v, (int, float, dict, type(None)))]:
        raise ValueError(f"{wrong[0]} is {row[wrong[0]]!r}, no number")
    return {k: math.nan if v is None else _numbers(v) if isinstance(v, dict) else v for k, v in row.items()}


def thin(curve: list, points: int = POINTS) -> list:
    """Return at most `points` of a curve's points, evenly spread, the first and the last among them."""
    if len(curve) <= points:
        return list(curve)
    return [curve[round(i * (len(curve) - 1) / (points - 1))] for i in range(points)]


def write_record(record: Record, folder: Path | None = None) -> Path:
    """Write `record` so that its file is whole or absent; return the path. ValueError for a stopped run."""
    if record.status == "stopped":
        raise ValueError(f"record: the run of {record.name} is stopped; only whole runs become records.")
    folder = records_dir() if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = plain(asdict(record)) | {"recipe": plain(record.recipe, digits=17)}      # a recipe is exact
    lines = [f"{json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in content.items()]
    with whole_file(path := folder / f"{record.name}.json") as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())
    return path


def _checked(found) -> Record:
    """Return the record that a JSON file holds; ValueError or TypeError says what is wrong with it, and what to do."""
    again = "restore it, or remove it and run its recipe again"
    if not isinstance(found, dict) or not {"schema", "key", "recipe"} <= set(found):
        raise ValueError("no record of this project; move it elsewhere")
    if found["schema"] != SCHEMA:
        raise ValueError(f"has schema {found['schema']!r}, this version reads {SCHEMA}; run its recipe again")
    kinds = {name: int | float | None if kind is float else kind for name, kind in get_type_hints(Record).items()}
    if wrong := sorted(set(found) ^ set(kinds)):
        raise ValueError(f"lacks or adds {', '.join(wrong)}; {again}")
    if wrong := [name for name, kind in kinds.items() if not isinstance(found[name], kind)]:
        raise ValueError(f"{wrong[0]} is a {type(found[wrong[0]]).__name__}; {again}")
    needed = {"final": FIGURES, "untrained": FIGURES, "machine": MACHINE}
    if lost := [f"{part}: {name}" for part, names in needed.items() for name in names if name not in found[part]]:
        raise ValueError(f"lacks {', '.join(lost)}; {again}")
    floats = _numbers({name: found[name] for name, kind in get_type_hints(Record).items() if kind is float})
    record = Record(**found | floats | {name: _numbers(found[name]) for name in ("final", "untrained")})
    if record.status not in STATUS:
        raise ValueError(f"has status {record.status!r}, expected one of {', '.join(STATUS)}; {again}")
    if (key := Recipe(**record.recipe).key) != record.key:
        raise ValueError(f"its recipe has the key {key}, not {record.key}: one of them was changed, or a default was "
                         f"without a new schema; {again}")
    return record


def _refuse(constant: str):
    raise ValueError(f"{constant} is not JSON")


def read_record(path: str | Path) -> Record:
    """Return the record in one file; ValueError names the file and what is wrong with it (damaged, foreign, renamed, of
    another schema, not of its recipe)."""
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, OSError, RecursionError) as fault:
        raise ValueError(f"{path.name}: cannot be read as JSON ({fault}); restore it, or remove it and run its recipe "
                         "again.") from fault
    try:
        record = _checked(found)
    except (ValueError, TypeError) as fault:
        raise ValueError(f"{path.name}: {str(fault).rstrip('.')}.") from fault
    if path.stem != record.name:
        raise ValueError(f"{path.name}: holds the run {record.name}; give it its own name again.")
    return record


def read_shelf(folder: str | Path | None = None) -> Shelf:
    """Return every record of `folder` (None: `records_dir()`); what cannot be read is named in `.problems`, and so is a
    folder that was named, here or by $SIMSIAM_EXPLAINED_RECORDS, and is none."""
    named = folder or os.environ.get("SIMSIAM_EXPLAINED_RECORDS")
    folder = records_dir() if folder is None else Path(folder)
    records, problems = {}, []
    if named and not folder.is_dir():
        problems.append(f"{folder}: is no folder; name the one that holds the records, or make it.")
    for path in sorted(folder.glob("*.json")):
        try:
            record = read_record(path)
            records[record.key, record.seed] = record
        except ValueError as fault:
            problems.append(str(fault))
    return Shelf(records, tuple(problems))
