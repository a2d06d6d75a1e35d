"""Conditions on the pool of all runs of a claim: what follows from what over many recipes, not seed by seed.

Seeds of one recipe are nearly one run. So whole recipes (arms) are left out and drawn with replacement, never single
runs: with single runs the 95% interval finds a slope in three lifeless worlds of ten (chapter 19, and a test)."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd

from .regression import counts, forecast, rank_correlation, resampled

__all__ = ["pool", "Forecasts", "Tracks"]


def pool(rows: Mapping[str, Sequence[Mapping]], needed: Sequence[str]) -> pd.DataFrame:
    """Return a row for each run of all arms, with its arm; runs without a finite number in `needed` are left out."""
    runs = [{"arm": arm} | {name: row.get(name, nan) for name in needed} for arm, of in rows.items() for row in of]
    table = pd.DataFrame(runs, columns=["arm", *needed])
    return table[np.isfinite(table[list(needed)].astype(float)).all(axis=1)].reset_index(drop=True)


def _middle(drawn: np.ndarray, level: float) -> np.ndarray:
    """Return the bounds (2, …) between which the middle `level` of the draws (draws, …) lies."""
    return np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")


@dataclass(frozen=True)
class Forecasts:
    """A line through all of `of` forecasts `y` of an arm from the other arms better (R² left out) than a line through
    any one of them; and every slope is below 0 in the middle `level` of 2,000 draws of arms with replacement.

    A slope wholly above 0 contradicts it. `judge` asks for three seeds of each arm; the pool must besides keep `least`
    runs with finite numbers, or it is not tested. A run that diverged has none, one that collapsed has."""
    y: str = "linear"
    of: tuple[str, ...] = ("loss", "AUC")
    least: int = 40
    level: float = 0.95
    arm: str = "all arms"     # what the ledger calls them

    def found(self, rows: Mapping) -> tuple | None:
        """Return (fits: of all, of each alone; bounds of the slopes (2, k)), or None for fewer than `least` whole runs.

        ValueError where no line can be fitted: a constant, a copy of another column, fewer than three arms."""
        runs = pool(rows, (self.y, *self.of))
        if len(runs) < self.least:
            return None
        fits = [forecast(runs, self.y, of, "arm") for of in (self.of, *self.of)]
        return fits, _middle(resampled(runs, self.y, self.of, "arm"), self.level)

    def __call__(self, rows: Mapping) -> str:
        try:
            found = self.found(rows)
        except ValueError:
            return "no difference seen"
        if found is None:
            return "not tested"
        (together, *alone), (low, high) = found
        better = together.left_out_r2 > max(fit.left_out_r2 for fit in alone)
        return ("contradicted" if (low > 0).any() else
                "direction reproduced" if better and (high < 0).all() else "no difference seen")

    def says(self, rows: Mapping) -> tuple[str, str]:
        """Return what is asked, and the numbers that answer it (for the ledger)."""
        asked = f"{self.y} from {' and '.join(self.of)}: better than from each alone, arms left out; all slopes below 0"
        try:
            found = self.found(rows)
        except ValueError as fault:
            return asked, str(fault)
        if found is None:
            return asked, f"{len(pool(rows, (self.y, *self.of)))} runs, {self.least} asked for"
        fits, bounds = found
        told = ", ".join(f"{_signed(fit.left_out_r2)} from {' and '.join(fit.of)}" for fit in fits)
        slopes = ", ".join(f"{name} {_signed(slope)} ({_signed(low)} to {_signed(high)})"
                           for name, slope, (low, high) in zip(self.of, fits[0].coefficients[1:], bounds.T))
        return asked, f"R² left out: {told}; slopes: {slopes}"


@dataclass(frozen=True)
class Tracks:
    """`measure`, or with `near` its distance from that value, orders the runs of all arms as `y` does (sign 1) or the
    other way round (−1): the middle `level` of Spearman's ρ over 2,000 draws of arms lies on that side of 0.

    Pooled as in `Forecasts`."""
    measure: str
    y: str = "linear"
    sign: int = 1
    near: float | None = None
    least: int = 40
    level: float = 0.95
    arm: str = "all arms"

    def found(self, rows: Mapping) -> tuple[float, float, float] | None:
        """Return ρ and the bounds of its interval; None for fewer than `least` whole runs."""
        runs = pool(rows, (self.y, self.measure))
        if len(runs) < self.least or runs["arm"].nunique() < 3:
            return None
        x = runs[self.measure] if self.near is None else (runs[self.measure] - self.near).abs()
        low, high = _middle(rank_correlation(x, runs[self.y], counts(runs, "arm")), self.level)
        return float(rank_correlation(x, runs[self.y])[0]), float(low), float(high)

    def __call__(self, rows: Mapping) -> str:
        if (found := self.found(rows)) is None:
            return "not tested"
        low, high = sorted(self.sign * bound for bound in found[1:])
        return "direction reproduced" if low > 0 else "contradicted" if high < 0 else "no difference seen"

    def says(self, rows: Mapping) -> tuple[str, str]:
        """Return what is asked, and the numbers that answer it (for the ledger)."""
        what = self.measure if self.near is None else f"|{self.measure} − {self.near:g}|"
        asked = f"{what} orders the runs {'as' if self.sign > 0 else 'against'} {self.y}"
        if (found := self.found(rows)) is None:
            return asked, f"{len(pool(rows, (self.y, self.measure)))} runs, {self.least} asked for"
        rho, low, high = (_signed(number) for number in found)
        return asked, f"Spearman's ρ {rho} ({low} to {high})"
