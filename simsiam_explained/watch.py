"""A run watched from inside: kNN on features that training itself makes, and the gradient of every layer."""
from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .checks import check_labels, positive
from .memory import in_eval
from .probes import knn

__all__ = ["first_layer", "Watch", "watch"]


def first_layer(backbone: nn.Module) -> nn.Module:
    """Return the first convolution or linear layer: of a ViT the patch projection, of a ResNet the stem's."""
    for layer in backbone.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            return layer
    raise ValueError(f"backbone: this {type(backbone).__name__} has no convolution and no linear layer.")


class Watch:
    """What `watch` collects. `stop()` takes its hooks away; what was collected stays."""

    def __init__(self, every: int, k: int):
        self.steps: list[int] = []               # since it watches, at which kNN was read
        self.knn: list[float] = []               # of the new features among those in the bank, each as it was made
        self.renewed: list[float] = []           # the same question, all these features made again by the weights of now
        self.every, self.k, self.step = every, k, 0
        self._squares: dict[str, list[Tensor]] = {}
        self._undo: list[Callable] = []

    @property
    def norms(self) -> dict[str, Tensor]:
        """{layer: length of its gradient, (steps,) float32}, in the order of the forward pass."""
        return {name: torch.stack(of).sqrt().float().cpu() for name, of in self._squares.items() if of}

    @property
    def last_block(self) -> str:
        """The last of the backbone's parts that is called "layer…", of a ViT its last block; else its last part."""
        parts = [name for name in self._squares if name not in ("first layer", "projector", "predictor")]
        return ([name for name in parts if name.startswith("layer")] or parts)[-1]

    def stop(self) -> None:
        """Take all hooks away."""
        while self._undo:
            self._undo.pop()()


def _groups(method: nn.Module) -> dict[str, list[Tensor]]:
    """Return {layer: its trainable weights}: the first layer, the backbone's parts, projector, predictor."""
    first, groups = list(first_layer(method.backbone).parameters()), {"first layer": []}
    for head in ("backbone", "projector", "predictor"):
        for name, w in getattr(method, head).named_parameters():
            if w.requires_grad:
                part = name.split(".")[0] if head == "backbone" else head
                own = "first layer" if any(w is other for other in first) else part
                groups.setdefault(own, []).append(w)
    return {name: ws for name, ws in groups.items() if ws}


def _watch_gradients(seen: Watch, method: nn.Module) -> None:
    """Add the square of each weight's gradient to its layer's sum of the step, as soon as it is whole."""
    for name, ws in _groups(method).items():
        sums = seen._squares.setdefault(name, [])

        def add(w: Tensor, sums: list = sums) -> None:
            if sums:                             # before the first step, somebody else calls backward
                sums[-1] = sums[-1].to(w.device) + w.grad.detach().double().square().sum()

        seen._undo += [w.register_post_accumulate_grad_hook(add).remove for w in ws]


def _watch_features(seen: Watch, method: nn.Module, labels: Tensor, bank: int, renew: bool) -> None:
    """Keep the features of the first view of each batch in a queue; now and then ask the old about the new."""
    known, new, waiting = deque(), [], []        # of batches: (features, labels, views or None)
    before_step = getattr(method, "before_step", None)

    def look() -> None:
        rows = [torch.cat([batch[i] for batch in of]) for of in (known, new) for i in (0, 1)]
        ask = knn if len(rows[1].unique()) > 1 else lambda *rows, k: math.nan      # a bank of one class tells nothing
        seen.steps.append(seen.step)
        seen.knn.append(ask(*rows, k=seen.k))
        if renew:
            with in_eval(method.backbone), torch.no_grad():
                rows[::2] = [torch.cat([method.backbone(x).float() for *_, x in of]) for of in (known, new)]
            seen.renewed.append(ask(*rows, k=seen.k))

    def begin(batch: Tensor) -> None:
        if int(batch.max()) >= len(labels):
            raise IndexError(f"labels: there are {len(labels)}, but the batch holds image {int(batch.max())}; give those "
                             "of all training images.")
        if seen.step and seen.step % seen.every == 0:
            if sum(len(y) for _, y, _ in known) >= max(seen.k, bank // 2):
                look()
            known.extend(new)
            new.clear()
            while sum(len(y) for _, y, _ in known) - len(known[0][1]) >= bank:
                known.popleft()                  # first in, first out
        for sums in seen._squares.values():
            sums.append(torch.zeros((), dtype=torch.float64, device=batch.device))
        seen.step += 1
        waiting[:] = [labels[batch.to(labels.device)]]
        if before_step is not None:
            before_step(batch)

    def keep(module: nn.Module, args: tuple, features: Tensor) -> None:
        if module.training and waiting:          # the second view, and probes, come when nothing waits
            new.append((features.detach().float(), waiting.pop(), args[0].detach() if renew else None))

    method.before_step = begin
    hook = method.backbone.register_forward_hook(keep)
    seen._undo += [hook.remove, lambda: method.__dict__.pop("before_step")]


def watch(
    method: nn.Module,       # before `fit`; it has a backbone, a projector and a predictor
    labels: Tensor,          # (N,) of the training images
    *,
    every: int = 10,         # kNN once in so many steps: MoCo v3 reads it every tens of steps, an epoch hides the dips
    bank: int = 2000,        # features it keeps, at least; the paper: a tenth of the images
    k: int = 20,             # choice: a hundredth of the bank
    renew: bool = False,     # ask once more, in eval mode, with the bank and the new features made again: costs forward passes
) -> Watch:
    """Let `fit` fill a Watch as it trains `method`, without a forward pass of its own and without changing a bit.

    Every `every` steps the features of the batches since the last look are asked among those before them: kNN of
    augmented training images, each as the weights of its own step saw it (MoCo v3, App. A). Where the weights move
    far, the bank is out of date; `renew` is ours, to tell that from features that got worse. Where the bank holds one
    class, kNN is NaN. A resumed run may be watched: from where it goes on."""
    if "before_step" in vars(method):
        raise ValueError("method: it is watched already; call stop() of that Watch first.")
    seen = Watch(positive("every", every), positive("k", k))
    if positive("bank", bank) < k:
        raise ValueError(f"bank: got {bank} features for k={k} neighbours; keep at least that many.")
    labels = check_labels(labels, 0 if labels is None else len(labels))
    _watch_gradients(seen, method)
    _watch_features(seen, method, labels, bank, renew)
    return seen
