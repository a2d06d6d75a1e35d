"""Making the records that claims ask for: one run, a queue of them that can stop and go on, and proof by repeating."""
from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean, stdev

import torch
from filelock import FileLock, Timeout
from torch import nn

from .checks import one_of, pick_device, positive, usable_cores
from .collapse import auc, collapsed, effective_rank, measure_layers, spectrum
from .evidence import Claim, claims
from .images import Images, cache_dir, load_images
from .memory import Diverged, Run
from .probes import features, knn, untrained
from .recipe import SCALES, Recipe, find, flops, seconds
from .records import (SCHEMA, Record, Shelf, code_version, commit, digest, machine, peak_memory, read_shelf, records_dir,
                      thin, write_record)
from .report import judge_net
from .training import fit
from .views import Views, make_views
from .weights import save_backbone

__all__ = ["Job", "queue", "missing", "run_recipe", "score", "reproduce", "in_processes", "verify"]

LOOKS = 20         # choice: so many times a run is looked at, and its state saved
TAIL = 50          # choice: the final loss is the mean of so many last steps; a single batch is noise
BANK, QUERIES = 5_000, 2_000     # choice: images of the kNN curve; the final kNN takes all
RESERVE = 40.0     # seconds at the end of a budget that are left to the probes


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
    """Return the runs that are missing on `shelf`, by priority of their claims; within a claim, all arms of a seed first.
    A claim that needs more than `speed` images a second has none."""
    one_of("scale", scale, SCALES)
    waiting, jobs = _by_recipe(claims().values(), scale), {}
    for claim in sorted((c for c in claims(ids).values() if c.needs <= speed), key=lambda c: c.priority):
        for seed in range(positive("seeds", seeds)):
            for recipe in claim.recipes(scale).values():
                if (recipe.key, seed) not in jobs and seed not in shelf.of(recipe.key):
                    names = tuple(dict.fromkeys(c.id for c in waiting[recipe.key]))
                    jobs[recipe.key, seed] = Job(recipe, seed, names, seconds(recipe, shelf, device, threads))
    return list(jobs.values())


@lru_cache(maxsize=2)
def _data(images: str, n: int | None, size: int | None, device: str) -> tuple[Images, Images, str]:
    """Return (train, test, hash of the training pixels); always the same images for one recipe."""
    train, test = load_images(images, n=n, size=size, device=device)
    return train, test, digest(train.pixels)


def _watch(train: Images, test: Images, views: Views):
    """Return the function that `fit` calls to look at the spectrum and at kNN, on a part of the images."""
    bank, asked = train[:BANK], test[:QUERIES]

    def look(method: nn.Module) -> dict:
        f = features(method, asked, views)
        sigma = spectrum(f)
        return {"AUC": float(auc(sigma)), "rank": float(effective_rank(sigma)),
                "kNN": knn(features(method, bank, views), bank.labels, f, asked.labels, k=_neighbours(bank))}
    return look


def _order(recipe: Recipe, train: Images, seed: int):
    """Return the recipe's order of batches; None for the default one, which `fit` makes itself."""
    if recipe.order == Recipe.order:
        return None
    given = {"n": len(train), "batch": recipe.batch, "steps": recipe.steps, "seed": seed}
    return find(recipe.order)(**given, **dict(recipe.stream))


def _train(recipe: Recipe, seed: int, train: Images, test: Images, views: Views, device: torch.device,
           checkpoint: Path | None, limit: float | None, compile: bool) -> Run:
    """Return the run of `recipe`: done, stopped, or diverged."""
    every = max(1, recipe.steps // LOOKS)
    plan = {name: getattr(recipe, name) for name in ("steps", "batch", "base_lr", "momentum", "weight_decay", "decay",
                                                     "warmup", "schedule", "per", "autocast")}
    try:
        return fit(recipe.build(seed), train, views, **plan, seed=seed, order=_order(recipe, train, seed), device=device,
                   compile=compile, every=every, evaluate=_watch(train, test, views), limit=limit, progress=False,
                   checkpoint=checkpoint, save_every=every if checkpoint else None,
                   resume=checkpoint if checkpoint and checkpoint.is_file() else None)
    except Diverged as fault:
        return fault.run


def _neighbours(train: Images) -> int:
    """Return the k of kNN: 200, or a tenth of a smaller set."""
    return min(200, max(1, len(train) // 10))


def _figures(net: nn.Module, train: Images, test: Images, views: Views) -> tuple[dict, dict]:
    """Return (row of figures, {layer: singular values}) of a net on clean images in eval mode."""
    layers = measure_layers(net, test, views)
    row = judge_net(net, train, test, views, k=_neighbours(train))
    row |= {"layers": {name: {"std": r.std, "AUC": r.auc, "rank": r.rank} for name, r in layers.items()}}
    z, z_test = (features(net, part, views, layer="projector") for part in (train, test))
    row["projector kNN"] = knn(z, train.labels, z_test, test.labels, k=_neighbours(train))
    row |= {"rankme": layers["backbone"].rankme, "alpha": layers["backbone"].alpha,
            "uniformity": layers["projector"].uniformity, "m_o": layers["projector"].m_o}
    return row, {name: layers[name].sigma for name in ("backbone", "projector")}


def run_recipe(recipe: Recipe, seed: int = 0, *, device: str = "auto", checkpoint: str | Path | None = None,
               limit: float | None = None, compile: bool = False,
               claims_of: Iterable[Claim] = ()) -> tuple[Record, nn.Module]:
    """Return (record, trained method). limit: seconds of training, then the run is stopped; with a `checkpoint` file it
    goes on at the next call. A run that diverged has NaN for its final figures, one that stopped has none."""
    place = pick_device(device)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats(place)
    rules = {claim.id: claim.rule_hash for claim in claims_of}
    train, test, data = _data(recipe.images, recipe.n, recipe.size, str(place))
    views = make_views(recipe.views, **dict(recipe.augment))
    run = _train(recipe, seed, train, test, views, place, checkpoint and Path(checkpoint), limit, compile)
    status, start, final, spectra = run.status, {}, {}, {}
    if status != "stopped":
        start, before = _figures(untrained(copy.deepcopy(run.initial).to(place), train, views), train, test, views)
        start["loss"] = run.curve("loss")[1][0] if "loss" in run.history else math.nan
        final = dict.fromkeys(start, math.nan) | {"layers": {}}
        spectra = {f"untrained {name}": sigma for name, sigma in before.items()}
    if status == "done":
        final, after = _figures(run.method, train, test, views)
        final["loss"], spectra = mean(run.curve("loss")[1][-TAIL:]), spectra | after
        word = collapsed(final["std"], final["rank"], start["std"], start["rank"])   # choice: against its own start
        status = "ok" if word == "no" else "collapsed"
    curves = {name: thin([list(point) for point in curve]) for name, curve in run.history.items()}
    return Record(
        SCHEMA, recipe.key, recipe.whole(), seed, {"init": seed, "order": seed, "views": seed}, status, final, start,
        curves, spectra, machine(place), code_version(), commit(), data, flops(recipe), run.seconds,
        run.images_per_second, peak_memory(place), digest(run.method), rules), run.method


def score(backbone: nn.Module, recipe: Recipe, device: str = "auto") -> float:
    """Return the kNN accuracy of `backbone` by the protocol of all records, on the images of `recipe`."""
    train, test, _ = _data(recipe.images, recipe.n, recipe.size, str(pick_device(device)))
    views = make_views(recipe.views, **dict(recipe.augment))
    bank, asked = features(backbone, train, views), features(backbone, test, views)
    return knn(bank, train.labels, asked, test.labels, k=_neighbours(train))


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def _work_dir() -> Path:
    """Return the folder of locks and checkpoints of unfinished runs, beside the downloaded images."""
    folder = cache_dir() / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def reproduce(scale: str, ids: Iterable[str] = (), seeds: int = 3, budget: float | None = None, device: str = "auto",
              compile: bool = False, keep: Iterable[str] = (), speed: float = math.inf) -> list[Record]:
    """Make the missing records by priority until all are there or `budget` seconds are spent; return those made.

    A run that the budget cuts keeps its state for the next call. Runs that another process is at are left to it.
    keep: claims whose backbones are stored too (`weights`). speed: of this machine, for claims that need it."""
    ends, made = time.monotonic() + (math.inf if budget is None else budget), []
    place = pick_device(device)
    for job in queue(scale, ids, seeds, read_shelf(), place.type, torch.get_num_threads(), speed):
        if (left := ends - time.monotonic() - RESERVE) <= 0:
            _say("the budget is spent; the same command goes on")
            break
        checkpoint = _work_dir() / f"{job.name}.ckpt"
        try:
            with FileLock(f"{checkpoint}.lock", timeout=0):
                if (records_dir() / f"{job.name}.json").is_file():
                    continue                        # another process has finished it meanwhile
                _say(f"{job.name} for {', '.join(job.claims)}: about {job.seconds:.0f} s of training")
                record, method = run_recipe(job.recipe, job.seed, device=device, checkpoint=checkpoint, compile=compile,
                                            limit=None if budget is None else left, claims_of=claims(job.claims).values())
                if record.status == "stopped":
                    _say(f"{job.name} stopped; the same command goes on")
                    break
                write_record(record)
                checkpoint.unlink(missing_ok=True)
                if set(job.claims) & set(keep):
                    save_backbone(method.backbone, record, partial(score, recipe=job.recipe, device=device))
        except Timeout:
            continue
        made.append(record)
        _say(f"{job.name} {record.status}: loss {record.final['loss']:.3f}, std·√d {record.final['std']:.3f}, rank "
             f"{record.final['rank']:.1f}, kNN {record.final['kNN']:.3f}, {record.images_per_second:,.0f} images/s")
    return made


def missing(scale: str, ids: Iterable[str] = (), seeds: int = 3, device: str = "auto") -> str:
    """Return the queue as a table of text: record, arm, claims, estimated minutes, and how far a stopped run has come."""
    place, shelf = pick_device(device), read_shelf()
    threads, lines = torch.get_num_threads(), []
    jobs = queue(scale, ids, seeds, shelf, place.type, threads)
    for job in jobs:
        asked = claims(job.claims[:1])[job.claims[0]]
        arm = next(arm for arm, recipe in asked.recipes(scale).items() if recipe == job.recipe)
        begun = "  begun" if (_work_dir() / f"{job.name}.ckpt").is_file() else ""
        lines.append(f"{job.name}  {job.seconds / 60:7.1f} min  {arm}  ({', '.join(job.claims)}){begun}")
    where = f"{threads} CPU threads" if place.type == "cpu" else torch.cuda.get_device_name(place)
    return "\n".join([*lines, f"{len(jobs)} runs, about {sum(j.seconds for j in jobs) / 60:.0f} min of training on {where}"])


def in_processes(jobs: int, command: list[str]) -> int:
    """Run `simsiam-explained COMMAND` in `jobs` processes that share the cores and the queue; return the worst exit code."""
    threads = max(1, usable_cores() // positive("jobs", jobs))
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    workers = [subprocess.Popen([sys.executable, "-m", "simsiam_explained.cli", *command], env=environment)
               for _ in range(jobs)]
    return max(worker.wait() for worker in workers)


def verify(name: str, device: str = "auto") -> tuple[bool, str]:
    """Run a recorded recipe again and compare: (agrees, sentence). name: a record's KEY-sSEED, or KEY for its first seed.

    On the same machine, packages and threads every bit must agree; elsewhere kNN, std·√d and the loss must lie within 3
    standard deviations of the recipe's seeds (at least three)."""
    shelf = read_shelf()
    known = {n: r for r in shelf.records.values() for n in (r.name, *([r.key] if r.seed == min(shelf.of(r.key)) else []))}
    old = known[one_of("verify", name, known)]
    new, _ = run_recipe(Recipe(**old.recipe), old.seed, device=device)
    if new.digest == old.digest:
        return True, f"{old.name}: the same to the bit"
    if new.machine == old.machine and new.code == old.code:
        return False, f"{old.name}: the same machine, packages, threads and code, but not the same bits"
    rows = [r.row for r in shelf.of(old.key).values()]
    if len(rows) < 3:
        return False, f"{old.name}: other bits on another machine, and {len(rows)} seeds give no spread; make 3 first"
    off = {m: abs(new.row[m] - old.row[m]) / max(stdev(row[m] for row in rows), 1e-12) for m in ("loss", "std", "kNN")}
    told = ", ".join(f"{m} {by:.1f}" for m, by in off.items())
    return all(by <= 3 for by in off.values()), f"{old.name}: other bits; differences in seed standard deviations: {told}"
