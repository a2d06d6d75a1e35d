"""Two minutes before the long runs: how many images a second this machine trains on, what is fastest, what bounds it."""
from __future__ import annotations

import json
import time
from collections.abc import Sequence

import pandas as pd
import torch

from .checks import pick_device
from .images import Images
from .memory import whole_file
from .recipe import Recipe, base, flops
from .records import machine, plain, records_dir
from .training import fit
from .views import make_views

__all__ = ["CASES", "pilot", "pilot_of"]

CASES = ((512, "bfloat16", False), (512, "float32", False), (256, "bfloat16", False), (256, "float32", False),
         (512, "bfloat16", True))     # batch, autocast, compile: what costs most time comes last


def _noise(recipe: Recipe) -> Images:
    """Return images of the right shape; the speed does not depend on what they show."""
    return Images(torch.randint(0, 256, (4 * recipe.batch, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def _views_share(recipe: Recipe, images: Images, device: torch.device, speed: float) -> float:
    """Return the share of a training step that is spent on drawing the two views."""
    views, pixels = make_views(recipe.views), images.pixels[:recipe.batch].to(device)
    generator = torch.Generator(device).manual_seed(0)
    for repeats in (2, 10):                          # the first time warms up
        began = time.perf_counter()
        for _ in range(repeats):
            x1, _ = views(pixels, generator)
        float(x1.sum())                              # waits for the device
    return (time.perf_counter() - began) / repeats / (recipe.batch / speed)


def pilot(device: str = "auto", cases: Sequence[tuple] = CASES, recipe: Recipe | None = None, steps: int = 100) -> pd.DataFrame:
    """Return a row for each case: images/s of training, TFLOP/s of the network, share of the time that the views take.

    The first half of the `steps` of a case warms up and is not counted."""
    place, rows = pick_device(device), []
    for batch, autocast, compile in cases:
        now = (recipe or base("full")).but(batch=batch, autocast=autocast, steps=steps)
        images = _noise(now)
        run = fit(now.build(), images, make_views(now.views), steps=steps, batch=batch, base_lr=now.base_lr, device=place,
                  autocast=autocast, compile=compile, every=max(1, steps // 2), progress=False)
        speed = run.last("images/s")
        rows.append({"batch": batch, "autocast": autocast, "compile": compile, "images/s": speed,
                     "TFLOP/s": 6 * flops(now) * speed / 1e12,     # two views, forward and twice as much backward
                     "views' share": _views_share(now, images, place, speed)})
    return pd.DataFrame(rows)


def pilot_of(device: str = "auto") -> pd.DataFrame:
    """Return the pilot of this machine, from data/pilot.json if it was made before, else made now and kept there."""
    here, path = machine(pick_device(device)), records_dir().parent / "pilot.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    for made in known:
        if made["machine"] == here:
            return pd.DataFrame(made["cases"])
    table = pilot(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps([*known, {"machine": here, "cases": plain(table.to_dict("records"), 4)}], indent=1).encode())
    return table
