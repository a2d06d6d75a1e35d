"""Making the records that claims ask for: one run, a queue of them that can stop and go on, and proof by repeating."""
from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from difflib import get_close_matches
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
from .memory import Diverged, Run, whole_file
from .probes import features, knn, untrained
from .recipe import SCALES, SCHEMA, Recipe, flops, seconds
from .records import (Record, Shelf, code_version, commit, digest, forget_peak, machine, peak_memory, read_shelf,
                      records_dir, thin, write_record)
from .report import judge_net
from .training import Plan, fit
from .views import Views, make_views
from .weights import save_backbone

__all__ = ["Job", "queue", "missing", "run_recipe", "score", "reproduce", "in_processes", "verify"]

PLAN = [f.name for f in fields(Plan) if f.name != "seed"]    # what a recipe says of the optimiser and its schedule
LOOKS = 20         # choice: so many times a run is looked at, and its state saved
TAIL = 50          # choice: the final loss is the mean of so many last steps; a single batch is noise
BANK, QUERIES = 5_000, 2_000     # choice: images of the kNN curve; the final kNN takes all
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


@lru_cache(maxsize=2)
def _data(images: str, n: int | None, size: int | None, device: str) -> tuple[Images, Images, str]:
    """Return (train, test, hash of the training pixels); always the same images for one recipe."""
    train, test = load_images(images, n=n, size=size, device=device)
    return train, test, digest(train.pixels)


def _watch(train: Images, test: Images, views: Views):
    """Return the function that `fit` calls to look at the spectrum and at kNN, on a part of the images."""
    bank, asked = train[:BANK], test[:QUERIES]

    def look(method: nn.Module) -> dict:
        if not _finite(method):          # the next loss will say so
            return dict.fromkeys(("AUC", "rank", "kNN"), math.nan)
        f = features(method, asked, views)
        sigma = spectrum(f)
        return {"AUC": float(auc(sigma)), "rank": float(effective_rank(sigma)),
                "kNN": knn(features(method, bank, views), bank.labels, f, asked.labels, k=_neighbours(bank))}
    return look


def _finite(net: nn.Module) -> bool:
    return all(bool(value.isfinite().all()) for value in net.state_dict().values())


def _train(recipe: Recipe, seed: int, train: Images, test: Images, views: Views, device: torch.device,
           compile: bool, ends: float, checkpoint: Path | None) -> Run:
    """Return the run of `recipe`: done, stopped (at the time `ends`), or diverged. It goes on from its `checkpoint`."""
    every, plan = max(1, recipe.steps // LOOKS), {name: getattr(recipe, name) for name in PLAN}
    try:
        return fit(recipe.build(seed), train, views, **plan, seed=seed, order=recipe.batches(seed), device=device,
                   autocast=recipe.autocast, compile=compile, every=every, evaluate=_watch(train, test, views),
                   limit=max(ends - time.monotonic(), 1e-3), progress=False,
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


def _set_aside(file: Path, why: object) -> None:
    """Keep a checkpoint that nothing can go on from under another name, and say so."""
    kept = file.replace(file.with_name(f"{file.name}.damaged"))
    _say(f"{why}\n          the file is kept as {kept}; this run starts afresh")


def _origin(checkpoint: Path | None, rules: dict[str, str]) -> dict:
    """Return the code, commit and rules that a run began with: those of now, or those kept with its `checkpoint`."""
    now = {"code": code_version(), "commit": commit(), "rules": rules}
    if checkpoint is None:
        return now
    note = checkpoint.with_suffix(".origin")
    if checkpoint.is_file():
        try:
            kept = json.loads(note.read_text(encoding="utf-8"))
            both = kept["code"] if kept["code"] == now["code"] else f"{kept['code']}, then {now['code']}"
            return {"code": both, "commit": kept["commit"], "rules": dict(kept["rules"])}
        except (OSError, ValueError, KeyError, TypeError) as fault:
            _set_aside(checkpoint, f"{note.name}: does not say with which code and rules this run began ({fault!r})")
    with whole_file(note) as file:
        file.write(json.dumps(now).encode())
    return now


def _from_its_start(train: Callable[[Path | None], Run], checkpoint: Path | None, rules: dict) -> tuple[Run, dict]:
    """Return (what `train` makes, `_origin` of it); a checkpoint that does not fit, or is damaged, is set aside."""
    origin, resumes = _origin(checkpoint, rules), checkpoint and checkpoint.is_file()
    try:
        return train(checkpoint), origin
    except ValueError as fault:
        if not resumes:
            raise
        _set_aside(checkpoint, fault)
        return _from_its_start(train, checkpoint, rules)


def run_recipe(recipe: Recipe, seed: int = 0, *, device: str = "auto", checkpoint: str | Path | None = None,
               limit: float | None = None, compile: bool = False,
               claims_of: Iterable[Claim] = ()) -> tuple[Record, nn.Module]:
    """Return (record, trained method). A run that diverged has NaN for its final figures, one that stopped has none.

    limit: seconds, probes included, then the run is stopped; with a `checkpoint` file it goes on at the next call.
    KeyboardInterrupt at a Ctrl-C, once the step is done and the state is saved."""
    ends, place = time.monotonic() + (math.inf if limit is None else limit), pick_device(device)
    forget_peak(place)
    rules = {claim.id: claim.rule_hash for claim in claims_of}
    train, test, data = _data(recipe.images, recipe.n, recipe.size, str(place))
    views = make_views(recipe.views, **dict(recipe.augment))
    began = time.monotonic()
    start, before = _figures(untrained(recipe.build(seed).to(place), train, views), train, test, views)
    ends -= 1.3 * (time.monotonic() - began)      # the same probes come once more at the end
    train_it = partial(_train, recipe, seed, train, test, views, place, compile, ends)
    run, origin = _from_its_start(train_it, checkpoint and Path(checkpoint), rules)
    if run.status == "stopped" and time.monotonic() < ends:
        raise KeyboardInterrupt
    if run.status == "done" and time.monotonic() > ends:
        run.status = "stopped"                    # its state is saved, and the next call has time for the probes
    status, final, spectra = run.status, {}, {f"untrained {name}": sigma for name, sigma in before.items()}
    if status == "done" and not _finite(run.method):
        status = "diverged"
    if status == "diverged":
        final = dict.fromkeys([*start, "loss"], math.nan) | {"layers": {}}
    if status == "done":
        final, after = _figures(run.method, train, test, views)
        final["loss"], spectra = mean(run.curve("loss")[1][-TAIL:]), spectra | after
        word = collapsed(final["std"], final["rank"], start["std"], start["rank"])   # choice: against its own start
        status = "ok" if word == "no" else "collapsed"
    start["loss"] = run.curve("loss")[1][0] if "loss" in run.history else math.nan
    return Record(
        schema=SCHEMA, key=recipe.key, recipe=recipe.whole(), seed=seed, status=status, final=final, untrained=start,
        seeds={"init": seed, "order": seed, "views": seed}, spectra=spectra, data=data, flops=flops(recipe),
        curves={name: thin([list(point) for point in curve]) for name, curve in run.history.items()},
        machine=machine(place) | ({"compile": True} if compile else {}), wall=run.seconds, digest=digest(run.method),
        images_per_second=run.images_per_second, peak_memory=peak_memory(place), **origin), run.method


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


def _make(job: Job, limit: float, device: str, compile: bool, keep: Iterable[str]) -> Record | None:
    """Make the record of `job`, or its first part (status "stopped"); None where its file is there already."""
    path, checkpoint = records_dir() / f"{job.name}.json", _work_dir() / f"{job.name}.ckpt"
    if path.is_file():
        if read_shelf().records.get((job.recipe.key, job.seed)) is None:
            _say(f"left out: {path} is no sound record; `simsiam-explained claims` says why")
        return None                             # else another process has finished it meanwhile
    _say(f"{job.name} for {', '.join(job.claims)}: about {job.seconds:.0f} s of training")
    record, method = run_recipe(job.recipe, job.seed, device=device, checkpoint=checkpoint, limit=limit,
                                compile=compile, claims_of=claims(job.claims).values())
    if record.status == "stopped":
        _say(f"{job.name} stopped; the same command goes on")
        return record
    if set(job.claims) & set(keep) and record.status != "diverged":
        knn_before, after = record.final["kNN"], save_backbone(
            method.backbone, record, partial(score, recipe=job.recipe, device=device))
        _say(f"{job.name} backbone kept in 8 bits a weight: kNN {knn_before:.4f} → {after:.4f}")
    write_record(record)
    for file in (checkpoint, checkpoint.with_suffix(".origin")):
        file.unlink(missing_ok=True)
    _say(f"{job.name} {record.status}: loss {record.final['loss']:.3f}, std·√d {record.final['std']:.3f}, rank "
         f"{record.final['rank']:.1f}, kNN {record.final['kNN']:.3f}, {record.images_per_second:,.0f} images/s")
    return record


def reproduce(scale: str, ids: Iterable[str] = (), seeds: int = 3, budget: float | None = None, device: str = "auto",
              compile: bool = False, keep: Iterable[str] = (), speed: float = math.inf) -> list[Record]:
    """Make the missing records by priority until all are there or `budget` seconds are spent; return those made.

    A run that the budget or a Ctrl-C cuts keeps its state for the next call; one that another process is at is left to
    it; one that fails does not stop the others: ValueError names it when they are done. keep: claims whose backbones
    are stored too (`weights`). speed: of this machine in images a second, for claims that need it."""
    budget = math.inf if budget is None else budget
    ends, made, failed = time.monotonic() + budget - min(RESERVE, budget / 10), [], []
    place, keep = pick_device(device), [name for asked in keep for name in claims([asked])]
    for job in queue(scale, ids, seeds, read_shelf(), place.type, torch.get_num_threads(), speed):
        if (left := ends - time.monotonic()) <= 0:
            _say("the budget is spent; the same command goes on")
            break
        try:
            with FileLock(_work_dir() / f"{job.name}.ckpt.lock", timeout=0):
                record = _make(job, left, device, compile, keep)
        except Timeout:
            continue
        except KeyboardInterrupt:
            _say(f"{job.name} interrupted; the same command goes on")
            raise
        except (ValueError, TypeError, RuntimeError) as fault:
            _say(f"{job.name} failed: {fault}")
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
    known |= {key: next(iter(shelf.of(key).values())) for key in {record.key for record in known.values()}}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise ValueError(f"verify: got {name!r}, but none of the {len(shelf.records)} records in {records_dir()} has "
                         f"that name; {f'did you mean {near[0]}?' if near else '`simsiam-explained claims ID` shows keys.'}")
    old = known[name]
    device = old.machine["device"] if device == "auto" else device
    recipe = Recipe(**old.recipe)
    _say(f"{old.name}: about {seconds(recipe, [old], old.machine['device'], old.machine['threads']):.0f} s of training")
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
