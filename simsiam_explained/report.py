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
from .probes import features, knn, linear_probe, untrained
from .views import Views

__all__ = ["nets", "judge_net", "report", "spectra"]


def nets(runs: dict[str, Run], train: Images, views: Views, healthy: str | None = None) -> dict[str, nn.Module]:
    """Return {"untrained": the start of the `healthy` run (None: the first) with settled BN, name: its method, …}."""
    if not isinstance(runs, dict) or not runs:
        raise TypeError(f"runs: got {runs if runs == {} else type(runs).__name__}, expected at least one named run, "
                        "as in {'SimSiam': run}.")
    good = one_of("healthy", healthy or next(iter(runs)), runs)
    device = next(runs[good].method.parameters()).device
    start = untrained(copy.deepcopy(runs[good].initial).to(device), train, views)
    return {"untrained": start} | {name: run.method for name, run in runs.items()}


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


def report(
    runs: dict[str, Run],
    train: Images, test: Images,   # the probes learn on train; everything is measured on test
    views: Views,                  # only `clean`, and for the untrained net's BN the views
    *,
    k: int | None = None,          # of kNN; None: 200, or a tenth of a smaller train set
    healthy: str | None = None,    # the arm that "collapsed" is measured against; None: the first
    linear: bool = True,
) -> pd.DataFrame:
    """Return one row for the untrained net and one per run. loss: of the last step (untrained: of the first);
    all else in eval mode on clean images. kNN and linear are NaN without labels of at least two classes."""
    k, judged = min(200, max(1, len(train) // 10)) if k is None else k, nets(runs, train, views, healthy)
    rows = {name: judge_net(net, train, test, views, k, linear) for name, net in judged.items()}
    good = healthy or next(iter(runs))
    rows["untrained"] |= {"loss": runs[good].curve("loss")[1][0], "images/s": math.nan, "collapsed": "untrained"}
    for name, run in runs.items():
        verdict = collapsed(rows[name]["std"], rows[name]["rank"], rows[good]["std"], rows[good]["rank"])
        rows[name] |= {"loss": run.last("loss"), "images/s": run.images_per_second, "collapsed": verdict}
    columns = ["loss", "std", "AUC", "rank", "kNN", "linear", "images/s", "collapsed"]
    return pd.DataFrame.from_dict(rows, orient="index")[columns]


def spectra(runs: dict[str, Run], train: Images, test: Images, views: Views,
            layer: str = "backbone") -> dict[str, Tensor]:
    """Return {name: singular values (d,) of the centred features of `layer`} for the untrained net and every run."""
    return {name: spectrum(features(net, test, views, layer=layer)) for name, net in nets(runs, train, views).items()}
