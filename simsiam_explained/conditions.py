"""Conditions of claims that compare more than two arms; those on one or two are in chapter 07's module."""
from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from .evidence import direction, values

__all__ = ["CostsLess"]


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
