"""Where the runs of one batch differ, as batched products need it: gates and slices, so that all arms train at once."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

__all__ = ["BN_LAYERS", "Switches", "pick"]

BN_LAYERS = {  # which of projector (g1, g2) and predictor (h1, h2) have BN: the rows of SimSiam's Table 3
    "default": ("g1", "g2", "h1"), "none": (), "hidden": ("g1", "h1"), "all": ("g1", "g2", "h1", "h2")}


def pick(gate: bool | Tensor, yes: Callable, no: Callable) -> Tensor:
    """Return yes() where `gate` holds and no() elsewhere; of a gate that is one for all runs, only what is needed."""
    return yes() if gate is True else no() if gate is False else torch.where(gate, yes(), no())


@dataclass(frozen=True)
class Switches:
    """The switches of a batch of runs. A gate is True or False, or where runs differ a bool tensor (runs, 1, 1)."""

    through: Tensor                     # (runs, 1, 1): how much of the gradient passes the target, 0 or 1
    bn: dict[str, bool | Tensor]        # {layer of the projector: gate}
    kinds: dict[str, tuple]             # {predictor: (slice of its runs, gate of the BN in h1, of the BN in h2)}
    entropy: bool | Tensor              # gate of the cross-entropy
    back: Tensor                        # (runs, 1, 1): weight of D(p2, z1), ½ or 0

    @classmethod
    def of(cls, runs: Sequence, like: Tensor) -> Switches:
        """Return the switches of `runs`, an Arm each, in the dtype and on the device of `like`.

        ValueError if the runs of one predictor do not stand side by side."""
        def column(values: list) -> Tensor:
            return like.new_tensor([float(value) for value in values]).view(-1, 1, 1)

        def gate(flags: list[bool]) -> bool | Tensor:
            return flags[0] if len(set(flags)) == 1 else column(flags).bool()

        def has_bn(layer: str, part: slice = slice(None)) -> bool | Tensor:
            return gate([layer in BN_LAYERS[run.bn] for run in runs[part]])

        places = [(kind, [i for i, _ in part]) for kind, part in groupby(enumerate(runs), lambda pair: pair[1].predictor)]
        kinds = {kind: slice(at[0], at[-1] + 1) for kind, at in places}
        if len(kinds) < len(places):
            raise ValueError(f"runs: got predictors in the order {[kind for kind, _ in places]}, expected each kind side by side.")
        return cls(through=column([not run.stop_gradient for run in runs]),
                   bn={layer: has_bn(layer) for layer in ("g1", "g2")},
                   kinds={kind: (at, has_bn("h1", at), has_bn("h2", at)) for kind, at in kinds.items()},
                   entropy=gate([run.similarity == "cross_entropy" for run in runs]),
                   back=column([0.5 * (run.symmetry == "symmetric") for run in runs]))
