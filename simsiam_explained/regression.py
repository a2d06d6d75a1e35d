"""A line through columns of a table of runs: least squares, judged on runs or groups of runs that it has not seen."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .checks import one_of, positive

__all__ = ["Forecast", "forecast", "counts", "resampled", "rank_correlation"]


def _numbers(table, names: Sequence[str]) -> np.ndarray:
    """Return the columns `names` of `table` (a DataFrame, or {name: values}) as (n, k) floats that can be fitted."""
    table = pd.DataFrame(table)
    for name in names:
        one_of("forecast: column", name, table.columns)
    try:
        values = table[list(names)].to_numpy(float)
    except (TypeError, ValueError) as fault:
        raise TypeError(f"forecast: {', '.join(names)}: expected a number in every run ({fault}).") from fault
    for name, column in zip(names, values.T):
        if bad := int((~np.isfinite(column)).sum()):
            raise ValueError(f"forecast: {name} is NaN or infinite in {bad} of {len(column)} runs, as after a run that "
                             "diverged; leave these out first, and say so.")
        if len(column) and np.ptp(column) <= 1e-12 * np.abs(column).max():
            raise ValueError(f"forecast: {name} is {column[0]:g} in all {len(column)} runs; a constant explains "
                             "nothing, and nothing of it is there to explain; use runs that differ.")
    return values


def _groups(table, by: Sequence[str] | str, n: int) -> np.ndarray:
    """Return the number (n,) of each run's group: runs alike in the columns `by`; without any, each run is its own."""
    by = [by] if isinstance(by, str) else list(by)
    if not by:
        return np.arange(n)
    table = pd.DataFrame(table)
    for name in by:
        one_of("forecast: groups", name, table.columns)
    labels = table.groupby(by, sort=False, dropna=False).ngroup().to_numpy()
    if len(set(labels)) < 3:
        raise ValueError(f"forecast: by {', '.join(by)} the runs form {len(set(labels))} groups, expected at least 3, "
                         "since each is forecast from the others.")
    return labels


def _design(table, y: str, of: Sequence[str] | str) -> tuple[tuple, np.ndarray, np.ndarray]:
    """Return (names, X (n, 1 + k) whose first column is 1, y (n,)), or an error that says what cannot be fitted."""
    of = (of,) if isinstance(of, str) else tuple(of)
    values = _numbers(table, (y, *of))
    n, k = len(values), len(of)
    if not k or n < k + 3:
        raise ValueError(f"forecast: got {n} runs for {k} columns, expected at least one column and {k + 3} runs.")
    unit = (values[:, 1:] - values[:, 1:].mean(0)) / values[:, 1:].std(0)
    if np.linalg.matrix_rank(unit, tol=1e-8 * n ** 0.5) < k:
        raise ValueError(f"forecast: in these runs one of {', '.join(of)} is a line through the others; leave it out.")
    return of, np.column_stack([np.ones(n), values[:, 1:]]), values[:, 0]


def _left_out(X: np.ndarray, y: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a fit without its group says of each run (n,), and the mean without its group (n,)."""
    said, mean = np.empty_like(y), np.empty_like(y)
    for label in np.unique(labels):
        rest = labels != label
        apart = X[rest, 1:] - X[rest, 1:].mean(0)
        if np.linalg.matrix_rank(apart / np.maximum(X[:, 1:].std(0), 1e-300), tol=1e-8 * len(X) ** 0.5) < X.shape[1] - 1:
            raise ValueError(f"forecast: without the group of run {int((~rest).argmax())} too few runs are left, or a column "
                             "is constant or a line through the others: no line is fitted; form other groups.")
        said[~rest] = X[~rest] @ np.linalg.lstsq(X[rest], y[rest], rcond=None)[0]
        mean[~rest] = y[rest].mean()
    return said, mean


@dataclass(frozen=True, eq=False)
class Forecast:
    """A line through columns of a table, and how well it does on its own runs and on those that it has not seen."""
    y: str
    of: tuple[str, ...]
    coefficients: tuple[float, ...]   # the intercept first
    r2: float                         # of the runs that it was fitted to
    left_out_r2: float                # of each group of runs from the others; 0: no better than the others' mean
    left_out: np.ndarray              # (n,), each run from a fit without its group
    left_out_mean: np.ndarray         # (n,), the mean of y without its group

    def __call__(self, table) -> np.ndarray:
        """Return what the line says of other runs, (m,)."""
        table = pd.DataFrame(table)
        for name in self.of:
            one_of("forecast: column", name, table.columns)
        return self.coefficients[0] + table[list(self.of)].to_numpy(float) @ np.array(self.coefficients[1:])


def forecast(
    table,                                      # a row for each run: a DataFrame, or {column: values}
    y: str = "linear",                          # what is forecast
    of: Sequence[str] | str = ("loss", "AUC"),  # Li et al. 2022
    groups: Sequence[str] | str = (),           # columns; runs alike in them are left out together. (): each run alone
) -> Forecast:
    """Return the least-squares line of `y` on `of`. ValueError for NaN, infinities, a constant, a column that repeats
    the others, too few runs or groups; TypeError for what is no number."""
    of, X, target = _design(table, y, of)
    found = np.linalg.lstsq(X, target, rcond=None)[0]
    left, mean = _left_out(X, target, _groups(table, groups, len(X)))
    r2 = 1 - ((target - X @ found) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    honest = 1 - ((target - left) ** 2).sum() / ((target - mean) ** 2).sum()
    return Forecast(y, of, tuple(found.tolist()), float(r2), float(honest), left, mean)


def counts(
    table, groups: Sequence[str] | str = (), draws: int = 2000, seed: int = 0,
) -> np.ndarray:     # (draws, n)
    """Return how often each run counts when whole groups are drawn with replacement, as many as there are."""
    labels = _groups(table, groups, len(pd.DataFrame(table)))
    shares = np.full(labels.max() + 1, 1 / (labels.max() + 1))
    drawn = np.random.default_rng(seed).multinomial(len(shares), shares, positive("draws", draws))
    return drawn[:, labels].astype(float)


def resampled(table, y: str = "linear", of: Sequence[str] | str = ("loss", "AUC"), groups: Sequence[str] | str = (),
              draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Return the slopes (draws, k) of `forecast` on families of runs drawn by `counts`."""
    of, X, target = _design(table, y, of)
    w, scale = counts(table, groups, draws, seed), X[:, 1:].std(0)
    unit = np.column_stack([X[:, 0], (X[:, 1:] - X[:, 1:].mean(0)) / scale])
    gram, right = np.einsum("bn,ni,nj->bij", w, unit, unit), np.einsum("bn,ni,n->bi", w, unit, target)
    return (np.linalg.pinv(gram, hermitian=True) @ right[..., None])[:, 1:, 0] / scale


def rank_correlation(x, y, counts: np.ndarray | None = None) -> np.ndarray:
    """Return Spearman's ρ of x and y (n,), for each row of `counts` (draws, n), how often each run counts; ties share
    their ranks, a constant has ρ 0. ValueError for NaN, infinities, other lengths, fewer than 3 runs."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 3 or not np.isfinite([x, y]).all():
        raise ValueError(f"rank_correlation: got shapes {x.shape} and {y.shape}, expected two columns of at least 3 "
                         "finite numbers.")
    counts = np.ones((1, len(x))) if counts is None else counts

    def ranks(v: np.ndarray) -> np.ndarray:                  # (draws, n), centred
        found = counts @ ((v[:, None] < v) + 0.5 * (v[:, None] == v))
        return found - (counts * found).sum(1, keepdims=True) / counts.sum(1, keepdims=True)
    a, b = ranks(x), ranks(y)
    size = ((counts * a * a).sum(1) * (counts * b * b).sum(1)) ** 0.5
    return np.divide((counts * a * b).sum(1), size, out=np.zeros(len(counts)), where=size > 1e-9)
