"""Views per second on one core, ours beside torchvision's PIL pipeline, in the same run.

    OMP_NUM_THREADS=1 python tools/bench_views.py [--recipe cifar] [--size 32] [--batch 256] [--repeats 7] [--seed 0]

Both start from uint8 images in memory and end with a normalised float batch. The two take turns, so that whatever else
the machine does meets both; the median of the repeats counts. Also timed: the two roads to a crop (resample.py) alone.
"""
from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision.transforms as T

from simsiam_explained import resample
from simsiam_explained.images import textures
from simsiam_explained.views import Augment, Views, draw, make_views


def pil_pipeline(views: Views, size: int) -> T.Compose:
    """Return what a DataLoader's worker does to one PIL image for the first view of `views`."""
    a = views.first
    steps = [T.RandomResizedCrop(size, scale=a.crop_scale, ratio=a.crop_ratio),
             T.RandomApply([T.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)], p=a.jitter_p),
             T.RandomGrayscale(a.grey_p)]
    if a.blur_p:
        kernel = resample.kernel_size(a.blur_kernel, size)
        steps.append(T.RandomApply([T.GaussianBlur(kernel, a.blur_sigma)], p=a.blur_p))
    if a.solarise_p:
        steps.append(T.RandomSolarize(128, a.solarise_p))
    return T.Compose([*steps, T.RandomHorizontalFlip(a.flip_p), T.ToTensor(), T.Normalize(views.mean, views.std)])


def per_second(roads: dict, repeats: int) -> dict[str, float]:
    """Return {name: views per second}, the median over `repeats` rounds in which the roads take turns."""
    seconds = {name: [] for name in roads}
    for _ in range(repeats + 1):                                   # the first round warms up and is dropped
        for name, (road, n) in roads.items():
            start = time.perf_counter()
            road()
            seconds[name].append((time.perf_counter() - start) / n)
    return {name: 1 / statistics.median(times[1:]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="cifar")
    for option, default in (("--size", 32), ("--batch", 256), ("--repeats", 7), ("--seed", 0)):
        parser.add_argument(option, type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)                                   # torchvision's transforms draw from the global one

    views = make_views(args.recipe, size=args.size)
    pixels = textures(args.batch, size=args.size, colour=True, seed=args.seed).pixels
    generator = torch.Generator().manual_seed(args.seed)
    pipeline, images = pil_pipeline(views, args.size), [T.functional.to_pil_image(x) for x in pixels]
    drawn, n = draw(Augment(), len(pixels), args.size, args.size, generator), len(pixels)
    axes = ((drawn.top, drawn.height, args.size, torch.zeros_like(drawn.flip)),
            (drawn.left, drawn.width, args.size, drawn.flip))
    rates = per_second({
        "ours": (lambda: views(pixels, generator), 2 * n),
        "torchvision, PIL": (lambda: torch.stack([pipeline(image) for image in images]), n),
        "crop + flip by points": (lambda: resample._sample(pixels.float(), *axes), n),
        "crop + flip by two matrix products": (lambda: resample._average(pixels.float(), *axes), n),
    }, args.repeats)
    print(f"recipe {args.recipe!r}, {args.size} px, batch {args.batch}, one thread, torch {torch.__version__}")
    for name, rate in rates.items():
        print(f"{name:>34}  {rate:>9,.0f} views/s")
    print(f"{'ours / PIL':>34}  {rates['ours'] / rates['torchvision, PIL']:>9.1f} ×")


if __name__ == "__main__":
    main()
