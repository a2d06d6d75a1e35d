"""Two minutes before the long runs: how many images a second a machine trains on, what is fastest, what bounds it."""
from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence

import pandas as pd
import torch

from .checks import pick_device
from .images import Images
from .memory import whole_file
from .origin import machine
from .recipe import Recipe, base, flops
from .records import plain, records_dir
from .training import fit

__all__ = ["CASES", "pilot", "pilot_of", "gains"]

CASES = ((512, "bfloat16", False), (512, "float32", False), (256, "bfloat16", False), (256, "float32", False),
         (512, "bfloat16", True))     # batch, autocast, compile: what costs most time comes last


def _noise(recipe: Recipe) -> Images:
    """Return images of the right shape; the speed does not depend on what they show."""
    generator = torch.Generator().manual_seed(0)
    return Images(torch.randint(0, 256, (4 * recipe.batch, *recipe.shape), dtype=torch.uint8, generator=generator))


def _views_share(recipe: Recipe, images: Images, device: torch.device, speed: float) -> float:
    """Return the share of a training step that is spent on drawing the two views."""
    views, pixels = recipe.make_views(), images.pixels[:recipe.batch].to(device)
    generator = torch.Generator(device).manual_seed(0)
    for repeats in (2, 10):                          # the first time warms up
        began = time.perf_counter()
        for _ in range(repeats):
            x1, _ = views(pixels, generator)
        float(x1.sum())                              # waits for the device
    return (time.perf_counter() - began) / repeats / (recipe.batch / speed)


def _case(recipe: Recipe, device: torch.device, compile: bool) -> dict:
    """Return what one case measures; NaN, and why, if it cannot run here (no compiler, too little memory)."""
    images, steps = _noise(recipe), recipe.steps
    try:
        run = fit(recipe.build(), images, recipe.make_views(), steps=steps, batch=recipe.batch, device=device,
                  base_lr=recipe.base_lr, autocast=recipe.autocast, compile=compile, every=max(1, steps // 2),
                  progress=False)
    except RuntimeError as fault:
        return {"images/s": math.nan, "TFLOP/s": math.nan, "views' share": math.nan, "failed": str(fault)[:80]}
    speed = run.last("images/s")
    return {"images/s": speed, "TFLOP/s": 6 * flops(recipe) * speed / 1e12,     # two views, backward twice forward
            "views' share": _views_share(recipe, images, device, speed), "failed": ""}


def pilot(device: str = "auto", cases: Sequence[tuple] = CASES, recipe: Recipe | None = None,
          steps: int = 100) -> pd.DataFrame:
    """Return a row for each case: images/s of training, TFLOP/s of the network, share of the time that the views take.

    The first half of the `steps` of a case warms up and is not counted."""
    place, rows, recipe = pick_device(device), [], base("full") if recipe is None else recipe
    for batch, autocast, compile in cases:
        now = recipe.but(batch=batch, autocast=autocast, steps=steps)
        rows.append({"batch": batch, "autocast": autocast, "compile": compile} | _case(now, place, compile))
    return pd.DataFrame(rows)


def pilot_of(device: str = "auto") -> pd.DataFrame:
    """Return the pilot of this machine, from data/pilot.json if it was made before, else made now and kept there."""
    here, path = machine(pick_device(device)), records_dir().parent / "pilot.json"
    del here["threads"]                              # the processes of one queue have fewer
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        for made in known:
            if made["machine"] == here:
                return pd.DataFrame(made["cases"])
    except (ValueError, KeyError, TypeError) as fault:
        raise ValueError(f"{path}: is damaged ({fault}); remove it, and the next call makes it again.") from fault
    table = pilot(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    known.append({"machine": here, "cases": plain(table.to_dict("records"), 4)})
    with whole_file(path) as file:
        file.write(json.dumps(known, indent=1).encode())
    return table


def gains(table: pd.DataFrame) -> str:
    """Return what bounds the speed: by how much each change of a pilot's cases multiplies it."""
    speed = table.set_index(["batch", "autocast", "compile"])["images/s"]
    fast = (512, "bfloat16", False)
    changes = {"bfloat16 for float32: much where arithmetic bounds it": speed[fast] / speed[512, "float32", False],
               "compiled for eager: much where memory or launches do": speed[512, "bfloat16", True] / speed[fast],
               "batch 512 for 256: much where launches do": speed[fast] / speed[256, "bfloat16", False]}
    return "\n".join(f"×{gain:.2f}  {change}" for change, gain in changes.items())
