"""Images per second of `fit`, beside an equal loop with torchvision's PIL transforms in a DataLoader, in the same run.

    python tools/bench_fit.py [--threads 1] [--workers 2] [--steps 20] [--repeats 3] [--width 16] [--stem cifar]

Same network (ResNet, one block per stage), same SGD, same number of steps, same recipe of views, both from uint8 images
in memory. The two take turns. The threads are the main process's; the DataLoader's workers come on top of them: with
fewer than threads + workers free cores they fight for the same ones, with more the DataLoader has cores that `fit` lacks.
"""
from __future__ import annotations

import argparse
import statistics
import time

import torch
import torchvision.transforms as T
from bench_views import pil_pipeline
from torch.utils.data import DataLoader, Dataset

from simsiam_explained.checks import usable_cores
from simsiam_explained.encoders import resnet
from simsiam_explained.images import Images, textures
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import Plan, fit, make_optimiser, set_lr
from simsiam_explained.views import Views, make_views


class Pairs(Dataset):
    """Two PIL views of each image, as the usual SimSiam loaders make them."""

    def __init__(self, images: Images, views: Views):
        self.images = [T.functional.to_pil_image(x) for x in images.pixels]
        self.transform = pil_pipeline(views, images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.transform(self.images[i]), self.transform(self.images[i])


def the_usual_loop(method: SimSiam, pairs: Pairs, plan: Plan, workers: int) -> float:
    """Train like `fit`, fed by a DataLoader; return images per second after the first batch."""
    optimiser, step = make_optimiser(method.train(), plan), 0
    loader = DataLoader(pairs, plan.batch, shuffle=True, drop_last=True, num_workers=workers,
                        persistent_workers=workers > 0, generator=torch.Generator().manual_seed(plan.seed))
    start = None
    while step <= plan.steps:
        for x1, x2 in loader:
            if step == 1:
                start = time.perf_counter()
            set_lr(optimiser, plan, min(step, plan.steps - 1))
            loss = method(x1, x2).loss
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            loss.item()
            step += 1
            if step > plan.steps:
                break
    return plan.steps * plan.batch / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("--threads", 1), ("--workers", 2), ("--steps", 20), ("--repeats", 3), ("--width", 16),
                            ("--batch", 256), ("--size", 32), ("--seed", 0)):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--stem", default="cifar", help="cifar, or stride2 as in the chapters: a quarter of the work")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    # one epoch holds all steps and what is fetched ahead: the DataLoader neither starts anew nor gains by its start
    images = textures((args.steps + 1 + 2 * args.workers) * args.batch, size=args.size, colour=True, seed=args.seed)
    views, plan = make_views("cifar"), Plan(args.steps, args.batch, seed=args.seed)
    pairs = Pairs(images, views)

    def method() -> SimSiam:
        return SimSiam(resnet(args.width, (1, 1, 1, 1), stem=args.stem, seed=args.seed), dim=512, layers=2, hidden=512)

    ours, theirs = [], []
    for _ in range(args.repeats):
        run = fit(method(), images, views, steps=args.steps, batch=args.batch, device="cpu", progress=False)
        ours.append(run.images_per_second)
        theirs.append(the_usual_loop(method(), pairs, plan, args.workers))
    print(f"width {args.width}, {args.stem} stem, {args.size} px, batch {args.batch}, {args.steps} steps, median of "
          f"{args.repeats}; {args.threads} threads, {args.workers} workers, {usable_cores()} cores, "
          f"torch {torch.__version__}")
    for name, rates in (("fit", ours), ("PIL + DataLoader", theirs)):
        print(f"{name:>18}  {statistics.median(rates):>7,.0f} images/s  (from {min(rates):,.0f} to {max(rates):,.0f})")
    print(f"{'ratio':>18}  {statistics.median(ours) / statistics.median(theirs):>7.2f} ×")


if __name__ == "__main__":
    main()
