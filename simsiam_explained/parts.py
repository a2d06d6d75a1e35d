"""What eight methods are made of, each of them without each of its parts, and the rule that says how a run died."""
from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd

from .checks import one_of
from .collapse import RANK_SHARE, collapsed

__all__ = ["Made", "PARTS", "METHODS", "has", "without", "cells", "Seen", "DEATHS", "kind_of_death", "death_map"]

NEGATIVES, PREDICTORS = ("none", "both views", "other view", "queue"), ("none", "mlp", "computed")


@dataclass(frozen=True)
class Made:
    """What a method is made of. The defaults: two views that should agree, and nothing else."""
    negatives: str = "none"       # of NEGATIVES
    predictor: str = "none"       # of PREDICTORS; computed: DirectPred's
    ema: bool = False             # the target is a slow copy
    stop_gradient: bool = False
    codes: bool = False           # views predict each other's codes, not each other
    partition: bool = False       # the codes are shared out equally
    centring: bool = False        # of the scores behind the codes
    sharpening: bool = False      # the codes are sharper than the predictions
    affine: bool = True           # no part of a method: scale and offset of the output's batch norm

    def __post_init__(self):
        one_of("negatives", self.negatives, NEGATIVES)
        one_of("predictor", self.predictor, PREDICTORS)
        if self.ema and not self.stop_gradient:
            raise ValueError("ema: got True with stop_gradient=False; no gradient reaches a slow target.")
        if not self.codes and (self.partition or self.centring or self.sharpening):
            raise ValueError(f"codes: got False in {self}; equal partition, centring and sharpening act on codes.")

    @property
    def loss(self) -> str:
        """Which loss trains it: of NEGATIVES, or "shared codes" or "codes"."""
        return ("shared codes" if self.partition else "codes") if self.codes else self.negatives


PARTS = {"negatives": "negatives", "predictor": "predictor", "EMA": "ema", "stop-gradient": "stop_gradient",
         "equal partition": "partition", "centring": "centring", "sharpening": "sharpening"}    # {name: field}
METHODS = {
    "SimCLR": Made(negatives="both views"),
    "MoCo v2": Made(negatives="queue", ema=True, stop_gradient=True),
    "MoCo v3": Made(negatives="other view", predictor="mlp", ema=True, stop_gradient=True),
    "SwAV": Made(stop_gradient=True, codes=True, partition=True, sharpening=True),
    "DINO": Made(ema=True, stop_gradient=True, codes=True, centring=True, sharpening=True),
    "BYOL": Made(predictor="mlp", ema=True, stop_gradient=True),
    "DirectPred": Made(predictor="computed", ema=True, stop_gradient=True),
    "SimSiam": Made(predictor="mlp", stop_gradient=True)}


def has(made: Made) -> dict[str, str]:
    """Return {part: what it has of it}, "" where nothing."""
    words = {True: "yes", False: "", "none": ""}
    return {part: words.get(getattr(made, field), getattr(made, field)) for part, field in PARTS.items()}


def without(made: Made, part: str) -> Made:
    """Return `made` less a part that it has. A slow target goes with the stop-gradient: no gradient reaches it."""
    field = PARTS[one_of("part", part, [name for name, of in has(made).items() if of])]
    gone = {field: "none" if isinstance(getattr(made, field), str) else False}
    return replace(made, **gone | ({"ema": False} if part == "stop-gradient" else {}))


def cells(methods: Mapping[str, Made] = METHODS) -> tuple[dict[str, Made], dict[tuple[str, str], str]]:
    """Return ({arm: Made}: the methods, and each without each of its parts; {(method, part): arm}); equal arms once."""
    arms, where = dict(methods), {}
    for name, made in methods.items():
        for part in (part for part, of in has(made).items() if of):
            less = without(made, part)
            same = [arm for arm, other in arms.items() if other == less]
            where[name, part] = same[0] if same else f"{name} − {part}"
            arms[where[name, part]] = less
    return arms, where


class Seen(NamedTuple):
    """What the outputs of one run showed on vectors that it was never trained on."""
    std: float      # std·√d of z
    rank: float     # effective rank of z, centred
    unsure: float   # mean entropy of a code, in units of ln K; NaN without codes
    told: float     # what a code tells of its image, the same; NaN without codes


DEATHS = ("alive", "complete", "dimensional", "one-hot", "uniform")


def kind_of_death(run: Seen, healthy: Seen) -> str:
    """Return one of DEATHS, by a comparison with the method as it should be; the codes are asked first.

    Codes that tell less than a quarter of what the healthy ones tell are dead: one-hot (all images share few), or
    uniform. Otherwise `collapsed` decides: complete by the std of z, dimensional by the rank of z alone."""
    if run.told < RANK_SHARE * healthy.told:                 # never true of NaN
        return "uniform" if run.unsure > 0.5 else "one-hot"
    word = collapsed(run.std, run.rank, healthy.std, healthy.rank)
    return "alive" if word == "no" else "complete" if "std" in word else "dimensional"


def death_map(
    fates: Mapping[tuple[str, str], list[str]],    # {(method, part): [one of DEATHS for each seed]}
    methods: Mapping[str, Made] = METHODS,
) -> pd.DataFrame:
    """Return methods × parts: how a method ended without the part. "–": it has none; "= BYOL": another method."""
    _, where = cells(methods)
    table = pd.DataFrame("–", index=list(methods), columns=list(PARTS))
    for (method, part), ends in fates.items():
        seen = Counter(ends).most_common()
        words = seen[0][0] if len(seen) == 1 else ", ".join(f"{kind} {n}" for kind, n in seen)
        table.loc[method, part] = words + (f" = {where[method, part]}" if where[method, part] in methods else "")
    return table
