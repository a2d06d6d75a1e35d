"""Making the records that claims ask for: a queue of runs that can stop and go on, and proof by repeating."""
from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from statistics import stdev

import torch
from filelock import FileLock, Timeout

from .checks import one_of, pick_device, positive, usable_cores
from .evidence import Claim, claims
from .images import cache_dir
from .recipe import SCALES, Recipe, seconds
from .records import Record, Shelf, read_shelf, records_dir, write_record
from .runs import run_recipe, say, score
from .weights import save_backbone

__all__ = ["Job", "queue", "missing", "run_recipe", "score", "reproduce", "in_processes", "verify"]

RESERVE = 40.0     # seconds of a budget that are too few to begin a run in, or a tenth of the budget if that is less


@dataclass(frozen=True)
class Job:
    """One run that is missing: a recipe, a seed, the claims that wait for it, and the estimated seconds of training."""
    recipe: Recipe
    seed: int
    claims: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        """The name of its record."""
        return f"{self.recipe.key}-s{self.seed}"


def _by_recipe(wanted: Iterable[Claim], scale: str) -> dict[str, list[Claim]]:
    """Return {key: the claims that ask for this recipe at this scale}."""
    found: dict[str, list[Claim]] = {}
    for claim in wanted:
        for recipe in claim.recipes(scale).values():
            found.setdefault(recipe.key, []).append(claim)
    return found


def queue(scale: str, ids: Iterable[str] = (), seeds: int = 3, shelf: Shelf = Shelf(), device: str = "cpu",
          threads: int = 2, speed: float = math.inf) -> list[Job]:
    """Return the runs that are missing on `shelf`, by priority of their claims; in a claim, all arms of a seed first.

    A claim that needs more than `speed` images a second has none."""
    one_of("scale", scale, SCALES)
    waiting, jobs = _by_recipe(claims().values(), scale), {}
    for claim in sorted((c for c in claims(ids).values() if c.needs <= speed), key=lambda c: c.priority):
        for seed in range(positive("seeds", seeds)):
            for recipe in claim.recipes(scale).values():
                if (recipe.key, seed) not in jobs and seed not in shelf.of(recipe.key):
                    names = tuple(dict.fromkeys(c.id for c in waiting[recipe.key]))
                    estimate = seconds(recipe, shelf.records.values(), device, threads)
                    jobs[recipe.key, seed] = Job(recipe, seed, names, estimate)
    return list(jobs.values())


def _work_dir() -> Path:
    """Return the folder of locks and checkpoints of unfinished runs, beside the downloaded images."""
    folder = cache_dir() / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make(job: Job, limit: float, device: str, compile: bool, keep: Iterable[str]) -> Record | None:
    """Make the record of `job`, or its first part (status "stopped"); None where its file is there already."""
    path, checkpoint = records_dir() / f"{job.name}.json", _work_dir() / f"{job.name}.ckpt"
    if path.is_file():
        if read_shelf().records.get((job.recipe.key, job.seed)) is None:
            say(f"left out: {path} is no sound record; `simsiam-explained claims` says why")
        return None                             # else another process has finished it meanwhile
    say(f"{job.name} for {', '.join(job.claims)}: about {job.seconds:.0f} s of training")
    record, method = run_recipe(job.recipe, job.seed, device=device, checkpoint=checkpoint, limit=limit,
                                compile=compile, claims_of=claims(job.claims).values())
    if record.status == "stopped":
        say(f"{job.name} stopped; the same command {'begins it again: give more time' if job.recipe.watch else 'goes on'}")
        return record
    if set(job.claims) & set(keep) and job.seed == 0 and record.status != "diverged":   # choice: one of an arm
        knn_before, after = record.final["kNN"], save_backbone(
            method.backbone, record, partial(score, recipe=job.recipe, device=device))
        say(f"{job.name} backbone kept in 8 bits a weight: kNN {knn_before:.4f} → {after:.4f}")
    write_record(record)
    for file in (checkpoint, checkpoint.with_suffix(".origin")):
        file.unlink(missing_ok=True)
    say(f"{job.name} {record.status}: loss {record.final['loss']:.3f}, std·√d {record.final['std']:.3f}, rank "
         f"{record.final['rank']:.1f}, kNN {record.final['kNN']:.3f}, {record.images_per_second:,.0f} images/s")
    return record


def reproduce(scale: str, ids: Iterable[str] = (), seeds: int = 3, budget: float | None = None, device: str = "auto",
              compile: bool = False, keep: Iterable[str] = (), speed: float = math.inf) -> list[Record]:
    """Make the missing records by priority until all are there or `budget` seconds are spent; return those made.

    A run that the budget or a Ctrl-C cuts keeps its state for the next call; one that another process is at is left to
    it; one that fails does not stop the others: ValueError names it when they are done. keep: claims whose backbones
    are stored too, of seed 0 (`weights`). speed: of this machine in images a second, for claims that need it."""
    budget = math.inf if budget is None else budget
    ends, made, failed = time.monotonic() + budget - min(RESERVE, budget / 10), [], []
    place, keep = pick_device(device), [name for asked in keep for name in claims([asked])]
    for job in queue(scale, ids, seeds, read_shelf(), place.type, torch.get_num_threads(), speed):
        if (left := ends - time.monotonic()) <= 0:
            say("the budget is spent; the same command goes on")
            break
        try:
            with FileLock(_work_dir() / f"{job.name}.ckpt.lock", timeout=0):
                record = _make(job, left, device, compile, keep)
        except Timeout:
            continue
        except KeyboardInterrupt:
            say(f"{job.name} interrupted; the same command goes on")
            raise
        except (ValueError, TypeError, RuntimeError) as fault:
            say(f"{job.name} failed: {fault}")
            failed.append(job.name)
            continue
        if record and record.status == "stopped":
            break
        made += [record] if record else []
    if failed:
        raise ValueError(f"{len(failed)} runs failed, for the reasons above: {', '.join(failed)}; {len(made)} made.")
    return made


def missing(scale: str, ids: Iterable[str] = (), seeds: int = 3, device: str = "auto") -> str:
    """Return the queue as text: record, estimated minutes of training, arm, claims, and whether it has begun."""
    place, threads, known = pick_device(device), torch.get_num_threads(), claims()
    jobs, lines = queue(scale, ids, seeds, read_shelf(), place.type, threads), []
    for job in jobs:
        arm = next(arm for arm, recipe in known[job.claims[0]].recipes(scale).items() if recipe == job.recipe)
        begun = "  begun" if (_work_dir() / f"{job.name}.ckpt").is_file() else ""
        needs = min(known[name].needs for name in job.claims)
        fast = f"  only above {needs:,.0f} images/s, or with --long" if needs else ""
        lines.append(f"{job.name}  {job.seconds / 60:7.1f} min  {arm}  ({', '.join(job.claims)}){begun}{fast}")
    where = f"{threads} CPU threads" if place.type == "cpu" else torch.cuda.get_device_name(place)
    total = sum(job.seconds for job in jobs) / 60
    return "\n".join([*lines, f"{len(jobs)} runs, about {total:.0f} min of training, and the probes, on {where}"])


def in_processes(jobs: int, command: list[str]) -> int:
    """Run `simsiam-explained COMMAND` in `jobs` processes that share the cores and the queue; return the worst code.

    A Ctrl-C is passed on to each of them once, and they are waited for."""
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, usable_cores() // positive("jobs", jobs)))}
    workers = [subprocess.Popen([sys.executable, "-m", "simsiam_explained.cli", *command], env=environment,
                                start_new_session=True) for _ in range(jobs)]
    try:
        return max([abs(worker.wait()) for worker in workers])
    except KeyboardInterrupt:
        for worker in workers:
            worker.send_signal(signal.SIGINT)
        for worker in workers:
            worker.wait()
        raise


def verify(name: str, device: str = "auto") -> tuple[bool, str]:
    """Run a recorded recipe again and compare: (agrees, sentence). name: KEY-sSEED, or KEY for its first seed.

    With the same code, machine, packages and threads every bit must agree on a CPU. Elsewhere, and on a GPU (choice:
    its sums have no fixed order), kNN, std·√d and the loss must lie within 3 standard deviations of the recipe's
    seeds, of which there must be three. device: "auto" is the record's own kind."""
    shelf = read_shelf()
    known = {record.name: record for record in shelf.records.values()}
    known |= {record.key: record for record in sorted(known.values(), key=lambda record: -record.seed)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`simsiam-explained claims ID` shows keys."
        raise ValueError(f"verify: got {name!r}, but none of the {len(shelf.records)} records in {records_dir()} has "
                         f"that name; {hint}")
    old = known[name]
    device = old.machine["device"] if device == "auto" else device
    recipe = Recipe(**old.recipe)
    say(f"{old.name}: about {seconds(recipe, [old], old.machine['device'], old.machine['threads']):.0f} s of training")
    new, _ = run_recipe(recipe, old.seed, device=device, compile=old.machine.get("compile", False))
    if new.digest == old.digest:
        return True, f"{old.name}: the same to the bit"
    here, there = ({"code": r.code, "images": r.data} | r.machine for r in (new, old))
    other = [what for what in here | there if here.get(what) != there.get(what)]
    if not other and new.machine["device"] == "cpu":
        return False, f"{old.name}: the same machine, packages, threads and code, but not the same bits"
    told = f"{old.name}: other bits" + (f" (other {', '.join(other)})" if other else "")
    if "diverged" in (new.status, old.status):
        return new.status == old.status, f"{told}; {new.status} here, {old.status} there"
    rows = [r.row for r in shelf.of(old.key).values() if r.status != "diverged"]
    if len(rows) < 3:
        return False, f"{told}, and {len(rows)} seeds give no spread to compare with; make 3 first"
    off = {m: abs(new.row[m] - old.row[m]) / max(stdev(row[m] for row in rows), 1e-12) for m in ("loss", "std", "kNN")}
    steps = ", ".join(f"{m} {by:.1f}" for m, by in off.items())
    return all(by <= 3 for by in off.values()), f"{told}; differences in seed standard deviations: {steps}"
