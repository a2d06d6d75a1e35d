"""Conditions of claims on costs, gains, spreads and layers; those that most claims are made of are in chapter 07."""
from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan
from statistics import mean, stdev, variance

from .evidence import direction, values

__all__ = ["CostsLess", "NoGain", "F_RATIO", "Steadier", "LowerInside"]


def _cost(rows: dict, measure: str, whole: str, cut: str) -> list[float]:
    """Return how much of `measure` is lost from `whole` to `cut`, for each seed."""
    return [a - b for a, b in zip(values(rows, whole, measure), values(rows, cut, measure))]


@dataclass(frozen=True)
class CostsLess:
    """From `whole` to `cut` less of `measure` is lost than from `other` to `other_cut`, by the laboratory's rule."""
    measure: str
    whole: str
    cut: str
    other: str
    other_cut: str

    def __call__(self, rows: dict) -> str:
        return direction(_cost(rows, self.measure, self.other, self.other_cut),
                         _cost(rows, self.measure, self.whole, self.cut))

    def says(self, rows: dict) -> tuple[str, str]:
        """Return what is asked, and the means that answer it (for the ledger)."""
        pairs = (self.whole, self.cut), (self.other, self.other_cut)
        lost = " against ".join(f"{mean(_cost(rows, self.measure, *arms)):.3f}" for arms in pairs)
        return (f"{self.measure}: from {self.whole} to {self.cut} less is lost "
                f"than from {self.other} to {self.other_cut}", f"lost {lost}")


@dataclass(frozen=True)
class NoGain:
    """The mean of `measure` is at most `margin` higher in `arm` than in `over`; lower is no fault."""
    measure: str
    arm: str
    over: str
    margin: float

    def __call__(self, rows: dict) -> str:
        here, there = values(rows, self.arm, self.measure), values(rows, self.over, self.measure)
        word = direction(here, there)
        if word == "not tested" or mean(here) - mean(there) <= self.margin:
            return word if word == "not tested" else "direction reproduced"
        return "contradicted" if word == "direction reproduced" else "no difference seen"

    def says(self, rows: dict) -> tuple[str, str]:
        """Return what is asked, and the means that answer it (for the ledger)."""
        seen = " against ".join(f"{mean(values(rows, arm, self.measure)):.3f}" for arm in (self.arm, self.over))
        return f"{self.measure}: {self.arm} at most {self.margin:g} above {self.over}", f"{self.measure} {seen}"


# The ratio of two variances from n values each that equal spreads exceed once in twenty (F, one-sided)
F_RATIO = {3: 19.0, 4: 9.277, 5: 6.388, 6: 5.050, 7: 4.284, 8: 3.787, 9: 3.438, 10: 3.179}


@dataclass(frozen=True)
class Steadier:
    """The seeds of `arm` differ less in `measure` than those of `than`, by more than equal ones would once in twenty.

    With three seeds that is a standard deviation 4.4 times smaller; with ten 1.8 times."""
    measure: str
    arm: str
    than: str

    def __call__(self, rows: dict) -> str:
        here, there = (values(rows, arm, self.measure) for arm in (self.arm, self.than))
        if len(here) < 3 or any(isnan(value) for value in here + there):
            return "not tested"
        ratio, (small, large) = F_RATIO[min(len(here), max(F_RATIO))], (variance(here), variance(there))
        if large > ratio * small:
            return "direction reproduced"
        return "contradicted" if small > ratio * large else "no difference seen"

    def says(self, rows: dict) -> tuple[str, str]:
        """Return what is asked, and the standard deviations that answer it (for the ledger)."""
        seen = " against ".join(f"{stdev(values(rows, arm, self.measure)):.4f}" for arm in (self.arm, self.than))
        asked = f"{self.measure}: the seeds of {self.arm} differ less than those of {self.than}"
        return asked, f"standard deviation {seen}"


@dataclass(frozen=True)
class LowerInside:
    """`measure` of one layer ends lower than that of another, inside the same runs of `arm`."""
    measure: str            # std | AUC | rank
    arm: str
    layer: str              # as measure_layers names them: stem, layer1 …, backbone, projector
    than: str

    def __call__(self, rows: dict) -> str:
        return direction(*(self._of(rows, layer) for layer in (self.than, self.layer)))

    def _of(self, rows: dict, layer: str) -> list[float]:
        return [row["layers"].get(layer, {}).get(self.measure, nan) for row in rows[self.arm]]

    def says(self, rows: dict) -> tuple[str, str]:
        """Return what is asked, and the means that answer it (for the ledger)."""
        seen = " against ".join(f"{mean(self._of(rows, layer)):.3f}" for layer in (self.layer, self.than))
        return f"{self.measure} inside {self.arm}: {self.layer} below {self.than}", f"{self.measure} {seen}"
