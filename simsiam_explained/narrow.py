"""The small world in which a net may be too small for its data: its recipe, its screen, and the full scale."""
from __future__ import annotations

__all__ = ["NARROW", "SCREEN", "FULL", "FULL_MORE", "FULL_NETS", "SLOW"]

# choice: the leads' world. The projector keeps its width whatever the backbone's, which the paper's code did not
NARROW = dict(size=16, net={"width": 8, "blocks": (3, 3, 3), "stem": "stride2"},
              parts={"dim": 512, "hidden": 512, "layers": 2}, steps=1500, batch=256, base_lr=0.06, weight_decay=1e-4)


def _net(width: int, depth: int) -> dict:
    """Return what makes NARROW's net so wide, with so many blocks a stage."""
    return {"width": width, "blocks": (depth,) * 3}


def _ordered(name: str, **arguments) -> dict:
    return {"order": f"orders.{name}", **arguments}


# The control: BYOL's slow target, and SimSiam in all else. A quarter of BYOL's sum is SimSiam's loss
_SLOW = {"method": "byol.BYOL", "bn": "default", "predictor_hidden": 128, "predictor_lr": "constant", "bias_out": True,
         "loss_scale": 0.25, "tau": 0.99}
SLOW = {"small": _SLOW, "full": _SLOW | {"dim": 2048, "predictor_hidden": 512}}     # what NARROW and FULL have
_TEXTURES = {"images": "textures", "views": "textures"}
_MOSAICS = {"images": "mosaics", "views": "textures", "size": 32}    # choice: at 16 pixels a disc holds hardly a cycle

SCREEN: dict[str, dict] = {    # {arm: what it changes in NARROW}, one seed each: where is the regime?
    "8 × 3": {},
    **{f"{w} × 3": _net(w, 3) for w in (4, 16)},         # 32 × 3 would take more than five minutes
    **{f"8 × {b}": _net(8, b) for b in (1, 2, 6)},
    **{f"{w} × 1": _net(w, 1) for w in (16, 32)},
    **{f"rate {lr:g}": {"base_lr": lr} for lr in (0.03, 0.2, 0.4)},
    **{f"{steps:,} steps": {"steps": steps} for steps in (500, 3_000)},
    **{f"8 × {b}, 3,000 steps": _net(8, b) | {"steps": 3_000} for b in (1, 6)},
    "32 pixels": {"size": 32},
    "decay 5e-4": {"weight_decay": 5e-4},
    **{f"8 × 6, {name}": _net(8, 6) | _ordered(name.replace(" ", "_")) for name in ("single pass", "cumulative", "hybrid")},
    "subset": _ordered("subset"),                        # a fifth of the images
    **{f"subset, {share:.0%}": _ordered("subset", share=share) for share in (0.01, 0.1)},
    "slow target, 8 × 3": _SLOW,
    **{f"slow target, 8 × {b}": _SLOW | _net(8, b) for b in (1, 6)},
    "textures": _TEXTURES, "textures, 50,000": _TEXTURES | {"n": 50_000},       # 8 classes
    "mosaics": _MOSAICS, "mosaics, 50,000": _MOSAICS | {"n": 50_000},           # 64, and twice as many factors
}

# CIFAR-10, SimSiam's App. D but batches of 256, so that a chunk of one in fifteen holds many; 100 epochs.
# deviation: no zero_init; the code of Li et al. begins with the last BN of each block at 0
FULL = dict(net={"width": 8, "blocks": (3, 4, 6, 3)}, steps=19_500, batch=256)
FULL_MORE = FULL | {"unlabelled": "cifar100"}    # choice: twice the images, of eleven times the classes, at the same steps
FULL_NETS: dict[str, dict] = {    # {arm: what it changes in FULL}: ResNet-10 to -50, the paper's Table 1 among them
    **{f"ResNet-{layers}, width {w}": {"width": w, "blocks": blocks}
       for layers, blocks in ((10, (1, 1, 1, 1)), (18, (2, 2, 2, 2)), (34, (3, 4, 6, 3)), (50, (5, 6, 9, 4)))
       for w in (8, 16, 32, 64)},
    **{f"bottleneck-{layers}, width {w}": {"width": w, "blocks": blocks, "block": "bottleneck"}
       for layers, blocks in ((26, (2, 2, 2, 2)), (50, (3, 4, 6, 3))) for w in (8, 16, 64)},
    "bottleneck-26, width 64, inside × 2": {"width": 64, "blocks": (2, 2, 2, 2), "block": "bottleneck", "inner": 2},
}
