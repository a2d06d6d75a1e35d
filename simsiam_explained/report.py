"""Judging runs side by side: one table of losses, collapse monitors and probes, with the untrained net in it."""
from __future__ import annotations

import copy
import math

import pandas as pd
from torch import Tensor, nn

from .checks import one_of
from .collapse import auc, collapsed, effective_rank, spectrum, std_ratio
from .images import Images
from .memory import Run
from .probes import _embed, _network, features, knn, linear_probe, untrained, usual_k
from .views import Views

__all__ = ["nets", "judge_net", "report", "spectra"]


def _checked(runs: dict[str, Run]) -> dict[str, Run]:
    """Return `runs` if they are named runs, each with weights of its own; otherwise an error that says what to do."""
    if not isinstance(runs, dict) or not runs:
        raise TypeError(f"runs: got {runs if runs == {} else type(runs).__name__}, expected at least one named run, "
                        "as in {'SimSiam': run}.")
    if "untrained" in runs:
        raise ValueError("runs: 'untrained' names the net before training, which has its own row; rename this run.")
    owners: dict[int, str] = {}
    for name, run in runs.items():
        if not isinstance(run, Run):
            raise TypeError(f"runs: {name!r} is a {type(run).__name__}, expected a Run, which fit(method, …) returns.")
        if not run.history and run.status != "diverged":
            raise ValueError(f"runs: {name!r} has taken no step; train it with fit first, or leave it out.")
        for weight in run.method.parameters():      # frozen ones too: their batch norm's statistics are overwritten
            if (owner := owners.setdefault(id(weight), name)) != name:
                raise ValueError(f"runs {owner!r} and {name!r} share weights; build a backbone for each, "
                                 "or copy.deepcopy it.")
    return runs


def _diverged(run: Run, images: Images, views: Views) -> bool:
    """Whether nothing of a run can be measured: its loss, or what its net makes of the first images, is not finite."""
    layers = [layer for layer in ("backbone", "projector") if getattr(run.method, layer, None) is not None]
    found = (_embed(_network(run.method, layer), images[:64], views) for layer in layers)
    return run.status == "diverged" or not all(bool(x.isfinite().all()) for x in found)


def nets(runs: dict[str, Run], train: Images, views: Views, healthy: str | None = None) -> dict[str, nn.Module]:
    """Return {"untrained": the start of the `healthy` run with settled BN, name: its method, …} of all that did not
    diverge. healthy: None is the first of those."""
    if not isinstance(train, Images):
        raise TypeError(f"train: got {type(train).__name__}, expected Images; images.from_tensor makes one.")
    alive = {name: run.method for name, run in _checked(runs).items() if not _diverged(run, train, views)}
    good = one_of("healthy", healthy or next(iter(alive or runs)), runs)
    if alive and good not in alive:
        raise ValueError(f"healthy: {good!r} has diverged; name one of {', '.join(map(repr, alive))}.")
    device = next(runs[good].method.parameters()).device
    start = untrained(copy.deepcopy(runs[good].initial).to(device), train, views)
    return {"untrained": start} | alive


def judge_net(method: nn.Module, train: Images, test: Images, views: Views, k: int, linear: bool = True) -> dict:
    """Return what clean images in eval mode say: std·√d of the projector, AUC and rank of the backbone, the probes."""
    f = features(method, test, views)
    sigma = spectrum(f)
    row = {"std": float(std_ratio(features(method, test, views, layer="projector"))), "AUC": float(auc(sigma)),
           "rank": float(effective_rank(sigma)), "kNN": math.nan, "linear": math.nan}
    if train.labels is not None and test.labels is not None and train.labels.unique().numel() > 1:
        bank, (y, y_test) = features(method, train, views), (part.labels.to(f.device) for part in (train, test))
        row["kNN"] = knn(bank, y, f, y_test, k=k)
        if linear:
            row["linear"] = linear_probe(bank, y, f, y_test)
    return row


def _verdict(row: dict, healthy: dict, name: str) -> str:
    """Return what `collapsed` says of a row beside that of the healthy run `name`, which must not be a constant."""
    if not min(healthy["std"], healthy["rank"]) > 0:
        raise ValueError(f"healthy: {name!r} is itself a constant (std·√d {healthy['std']:.3g}, rank "
                         f"{healthy['rank']:.3g}); name another run that collapse can be measured against.")
    return collapsed(row["std"], row["rank"], healthy["std"], healthy["rank"])


def report(
    runs: dict[str, Run],
    train: Images, test: Images,   # the probes learn on train; everything is measured on test
    views: Views,                  # only `clean`, and for the untrained net's BN the views
    *,
    k: int | None = None,          # of kNN; None: 200, or a tenth of a smaller train set
    healthy: str | None = None,    # the arm that "collapsed" is measured against; None: the first that did not diverge
    linear: bool = True,
) -> pd.DataFrame:
    """Return one row for the untrained net and one per run. loss: of the last step (untrained: of the first);
    all else in eval mode on clean images. kNN and linear are NaN without labels of at least two classes, and all
    figures of a run that diverged."""
    judged = nets(runs, train, views, healthy)
    k = usual_k(len(train)) if k is None else k
    rows = {name: judge_net(net, train, test, views, k, linear) for name, net in judged.items()}
    good = healthy or [*judged, *runs][1]                                     # as in nets
    _, first = runs[good].history.get("loss", [(1, math.nan)])[0]
    rows["untrained"] |= {"loss": first, "images/s": math.nan, "collapsed": "untrained"}
    for name, run in runs.items():
        if name not in judged:
            rows[name] = {"collapsed": "diverged"}
            continue
        rows[name] |= {"loss": run.last("loss"), "images/s": run.images_per_second,
                       "collapsed": _verdict(rows[name], rows[good], good)}
    columns = ["loss", "std", "AUC", "rank", "kNN", "linear", "images/s", "collapsed"]
    return pd.DataFrame.from_dict(rows, orient="index").loc[["untrained", *runs], columns]


def spectra(runs: dict[str, Run], train: Images, test: Images, views: Views, layer: str = "backbone", *,
            healthy: str | None = None) -> dict[str, Tensor]:
    """Return {name: singular values (d,) of the centred features of `layer`} for the untrained net (the start of the
    `healthy` run, as in `report`) and every run that did not diverge."""
    judged = nets(runs, train, views, healthy)
    return {name: spectrum(features(net, test, views, layer=layer)) for name, net in judged.items()}
