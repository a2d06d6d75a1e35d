"""One run of one recipe: data, training, the figures before and after, and what stands in its record."""
from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from statistics import mean

import torch
from torch import nn

from .checks import pick_device
from .collapse import auc, collapsed, effective_rank, measure_layers, spectrum
from .evidence import Claim
from .images import Images, load_images
from .memory import Diverged, Run, whole_file
from .moco_v3 import stability
from .origin import code_version, commit, digest, forget_peak, machine, peak_memory
from .probes import features, knn, untrained, usual_k
from .recipe import PLAN, SCHEMA, Recipe, flops
from .records import Record, thin
from .report import judge_net
from .training import fit
from .views import Views
from .watch import watch

__all__ = ["run_recipe", "score", "say"]

LOOKS = 20         # choice: so many times a run is looked at, and its state saved
TAIL = 50          # choice: the final loss is the mean of so many last steps; a single batch is noise
BANK, QUERIES = 5_000, 2_000     # choice: images of the kNN curve; the final kNN takes all
WATCHED = "bank kNN", "renewed kNN", "gradient, first layer", "gradient, last block"     # curves of a watched run


def say(text: str) -> None:
    """Print `text` after the time of day, at once."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


@lru_cache(maxsize=2)
def _data(images: str, n: int | None, size: int | None, device: str) -> tuple[Images, Images, str]:
    """Return (train, test, hash of the training pixels); always the same images for one recipe."""
    train, test = load_images(images, n=n, size=size, device=device)
    return train, test, digest(train.pixels)


def _joined(recipe: Recipe, train: Images, data: str) -> tuple[Images, str]:
    """Return (the images of the training steps, their hash): `train`, and behind them those of `recipe.unlabelled`."""
    if not recipe.unlabelled:
        return train, data
    more, _, _ = _data(recipe.unlabelled, None, recipe.shape[1], str(train.pixels.device))
    pixels = torch.cat([train.pixels, more.pixels])
    return Images(pixels, name=f"{train.name} and {more.name}"), digest(pixels)


def _watch(train: Images, test: Images, views: Views):
    """Return the function that `fit` calls to look at the spectrum and at kNN, on a part of the images."""
    bank, asked = train[:BANK], test[:QUERIES]

    def look(method: nn.Module) -> dict:
        try:
            f = features(method, asked, views)
        except ValueError:               # NaN or infinity: the next loss, or the last figures, will say so
            return dict.fromkeys(("AUC", "rank", "kNN"), math.nan)
        sigma = spectrum(f)
        return {"AUC": float(auc(sigma)), "rank": float(effective_rank(sigma)),
                "kNN": knn(features(method, bank, views), bank.labels, f, asked.labels, k=usual_k(len(bank)))}
    return look


def _train(recipe: Recipe, seed: int, images: Images, views: Views, look: Callable, device: torch.device,
           compile: bool, ends: float, checkpoint: Path | None) -> Run:
    """Return the run of `recipe`: done, stopped (at the time `ends`), or diverged. It goes on from its `checkpoint`."""
    every, plan = max(1, recipe.steps // LOOKS), {name: getattr(recipe, name) for name in PLAN}
    method = recipe.build(seed)
    if compile:
        torch.compiler.reset()       # it compiles 8 nets of a class at most, and runs all later ones as they are
    seen = watch(method, images.labels, every=recipe.watch, renew=True) if recipe.watch else None
    try:
        run = fit(method, images, views, **plan, seed=seed, order=recipe.batches(seed, images),
                  device=device, autocast=recipe.autocast, compile=compile, every=every, evaluate=look,
                  limit=max(ends - time.monotonic(), 1e-3), progress=False,
                  checkpoint=checkpoint, save_every=every if checkpoint else None,
                  resume=checkpoint if checkpoint and checkpoint.is_file() else None)
    except Diverged as fault:
        run = fault.run
    if seen is not None:
        seen.stop()
        norms = {layer: enumerate(of.tolist(), 1) for layer, of in seen.norms.items()}
        curves = *(zip(seen.steps, of) for of in (seen.knn, seen.renewed)), norms.get("first layer", ()), norms[seen.last_block]
        run.history |= {name: list(curve) for name, curve in zip(WATCHED, curves)}
    return run


def _figures(net: nn.Module, train: Images, test: Images, views: Views) -> tuple[dict, dict]:
    """Return (row of figures, {layer: singular values}) of a net on clean images in eval mode."""
    layers = measure_layers(net, test, views)
    row = judge_net(net, train, test, views, k=usual_k(len(train)))
    row |= {"layers": {name: {"std": r.std, "AUC": r.auc, "rank": r.rank} for name, r in layers.items()}}
    z, z_test = (features(net, part, views, layer="projector") for part in (train, test))
    row["projector kNN"] = knn(z, train.labels, z_test, test.labels, k=usual_k(len(train)))
    row |= {"rankme": layers["backbone"].rankme, "alpha": layers["backbone"].alpha,
            "uniformity": layers["projector"].uniformity, "m_o": layers["projector"].m_o}
    return row, {name: layers[name].sigma for name in ("backbone", "projector")}


_STARTS: dict[tuple, tuple[dict, dict, float]] = {}     # figures of untrained nets: arms of a seed often begin alike


def _figures_before(net: nn.Module, data: str, train: Images, test: Images,
                    views: Views) -> tuple[dict, dict, float]:
    """Return `_figures` of an untrained net, known from another run where it began so, and the seconds they take."""
    key = digest(net.backbone), digest(net.projector), data, views, str(train.pixels.device)
    if key not in _STARTS:
        began = time.monotonic()
        _STARTS[key] = *_figures(net, train, test, views), time.monotonic() - began
    row, spectra, took = _STARTS[key]
    return dict(row), dict(spectra), took


def _set_aside(file: Path, why: object) -> None:
    """Keep a checkpoint that nothing can go on from under another name, and say so."""
    kept = file.replace(file.with_name(f"{file.name}.damaged"))
    say(f"{why}\n          the file is kept as {kept}; this run starts afresh")


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

    limit: seconds, probes included, then the run is stopped; with a `checkpoint` file it goes on at the next call (a
    watched one begins again).
    KeyboardInterrupt at a Ctrl-C, once the step is done and the state is saved."""
    ends, place = time.monotonic() + (math.inf if limit is None else limit), pick_device(device)
    forget_peak(place)
    rules = {claim.id: claim.rule_hash for claim in claims_of}
    train, test, data = _data(recipe.images, recipe.n, recipe.size, str(place))
    images, seen = _joined(recipe, train, data)
    views = recipe.make_views()
    begins = untrained(recipe.build(seed).to(place), train, views)
    start, before, took = _figures_before(begins, data, train, test, views)
    ends -= 1.3 * took                            # the same probes come once more at the end
    if recipe.watch:                              # choice: a Watch is not in a checkpoint, and its hooks not in a graph
        checkpoint, compile = None, False
    train_it = partial(_train, recipe, seed, images, views, _watch(train, test, views), place, compile, ends)
    run, origin = _from_its_start(train_it, checkpoint and Path(checkpoint), rules)
    if run.status == "stopped" and time.monotonic() < ends:
        raise KeyboardInterrupt
    if run.status == "done" and time.monotonic() > ends:
        run.status = "stopped"                    # its state is saved, and the next call has time for the probes
    status, final, spectra = run.status, {}, {f"untrained {name}": sigma for name, sigma in before.items()}
    if status == "done":
        try:
            final, after = _figures(run.method, train, test, views)
            final["loss"], spectra = mean(run.curve("loss")[1][-TAIL:]), spectra | after
            if recipe.watch:
                final |= stability(*([value for _, value in run.history[name]] for name in WATCHED))
            word = collapsed(final["std"], final["rank"], start["std"], start["rank"])   # choice: against its own start
            status = "ok" if word == "no" else "collapsed"
        except ValueError:               # the last step took it to NaN or infinity
            status = "diverged"
    if status == "diverged":
        final = dict.fromkeys([*start, "loss"], math.nan) | {"layers": {}}
    start["loss"] = run.curve("loss")[1][0] if "loss" in run.history else math.nan
    return Record(
        schema=SCHEMA, key=recipe.key, recipe=recipe.whole(), seed=seed, status=status, final=final, untrained=start,
        seeds={"init": seed, "order": seed, "views": seed}, spectra=spectra, data=seen, flops=flops(recipe),
        curves={name: thin([list(point) for point in curve]) for name, curve in run.history.items()},
        machine=machine(place) | ({"compile": True} if compile else {}), wall=run.seconds, digest=digest(run.method),
        images_per_second=run.images_per_second, peak_memory=peak_memory(place), **origin), run.method


def score(backbone: nn.Module, recipe: Recipe, device: str = "auto") -> float:
    """Return the kNN accuracy of `backbone` by the protocol of all records, on the images of `recipe`."""
    train, test, _ = _data(recipe.images, recipe.n, recipe.size, str(pick_device(device)))
    views = recipe.make_views()
    bank, asked = features(backbone, train, views), features(backbone, test, views)
    return knn(bank, train.labels, asked, test.labels, k=usual_k(len(train)))
