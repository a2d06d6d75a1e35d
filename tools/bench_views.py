"""Views per second on one core, ours beside torchvision's PIL pipeline, in the same run.

    OMP_NUM_THREADS=1 python tools/bench_views.py [--recipe cifar] [--size 32] [--batch 256] [--repeats 7] [--seed 0]

Both start from uint8 images in memory and end with a normalised float batch. The two take turns, so that whatever else
the machine does meets both; the median of the repeats counts. Also timed: grid_sample against our two matrix products.
"""
from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision.transforms as T

from simsiam_explained.images import textures
from simsiam_explained.views import Augment, Views, apply, draw, kernel_size, make_views


def pil_pipeline(views: Views, size: int) -> T.Compose:
    """Return what a DataLoader's worker does to one PIL image for the first view of `views`."""
    a = views.first
    steps = [T.RandomResizedCrop(size, scale=a.crop_scale, ratio=a.crop_ratio),
             T.RandomApply([T.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue)], p=a.jitter_p),
             T.RandomGrayscale(a.grey_p)]
    if a.blur_p:
        steps.append(T.RandomApply([T.GaussianBlur(kernel_size(a.blur_kernel, size), a.blur_sigma)], p=a.blur_p))
    if a.solarise_p:
        steps.append(T.RandomSolarize(128, a.solarise_p))
    return T.Compose([*steps, T.RandomHorizontalFlip(a.flip_p), T.ToTensor(), T.Normalize(views.mean, views.std)])


def grid_sampled(pixels: torch.Tensor, drawn) -> torch.Tensor:
    """Return crop and flip by grid_sample, the usual road, to compare with."""
    n, _, height, width = pixels.shape
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = drawn.width / width * (1 - 2 * drawn.flip.float())
    theta[:, 1, 1] = drawn.height / height
    theta[:, 0, 2] = (2 * drawn.left + drawn.width) / width - 1
    theta[:, 1, 2] = (2 * drawn.top + drawn.height) / height - 1
    grid = torch.nn.functional.affine_grid(theta, list(pixels.shape), align_corners=False)
    return torch.nn.functional.grid_sample(pixels.float().div_(255), grid, align_corners=False, padding_mode="border")


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
    drawn = draw(Augment(jitter_p=0, grey_p=0, blur_p=0), len(pixels), args.size, args.size, generator)
    n = len(pixels)
    rates = per_second({
        "ours": (lambda: views(pixels, generator), 2 * n),
        "torchvision, PIL": (lambda: torch.stack([pipeline(image) for image in images]), n),
        "crop + flip, two matrix products": (lambda: apply(pixels, drawn), n),
        "crop + flip, grid_sample": (lambda: grid_sampled(pixels, drawn), n),
    }, args.repeats)
    print(f"recipe {args.recipe!r}, {args.size} px, batch {args.batch}, one thread, torch {torch.__version__}")
    for name, rate in rates.items():
        print(f"{name:>34}  {rate:>9,.0f} views/s")
    print(f"{'ours / PIL':>34}  {rates['ours'] / rates['torchvision, PIL']:>9.1f} ×")


if __name__ == "__main__":
    main()
