"""The command line: `simsiam-explained demo` shows SimSiam learn, and collapse, in a minute and a half."""
from __future__ import annotations

import argparse
import sys
from io import BytesIO
from pathlib import Path

__all__ = ["demo", "main"]

ARMS = {"SimSiam": True, "no stop-gradient": False}  # name: stop_gradient
BANK = 10_000  # choice: at most so many images are embedded for the report
ENDINGS = (".jpg", ".pdf", ".png", ".svg")  # of the figure


def demo(images: str = "textures", steps: int = 300, width: int = 16, seed: int = 0, device: str = "auto",
         out: str = "simsiam_demo.png"):
    """Train SimSiam with and without stop-gradient on `images`; return (runs, report) and write one figure to `out`.

    `images` is what `load_images` takes: textures, digits, cifar10, cifar100, stl10, FILE.npz or FOLDER."""
    from .checks import check_writable, one_of, pick_device
    from .encoders import resnet
    from .figures import draw_report
    from .images import load_images
    from .report import report, spectra
    from .simsiam import SimSiam
    from .training import fit
    from .views import make_views

    one_of("--out: ending", Path(out).suffix, ENDINGS)
    figure_path = check_writable(out, "--out")
    pick_device(device)
    train, test = load_images(images, seed=seed, device="cpu")
    views = make_views("textures" if images in ("textures", "digits") else "cifar", size=train.shape[-1])
    if min(len(train), len(test)) < 2:
        raise ValueError(f"--images: {images} gives {len(train)} to learn from and {len(test)} to test on, expected 2 "
                         "of each at the least; give more images.")
    print(f"{train.name}: {len(train):,} images to learn from, {len(test):,} to test on, {train.shape}"
          f"{'; no labels, so no probes' if train.labels is None else ''}")
    runs = {}
    for name, stop_gradient in ARMS.items():
        print(f"\n{name}")
        backbone = resnet(width, (1, 1, 1), stem="stride2", channels=train.shape[0], seed=seed)
        method = SimSiam(backbone, stop_gradient=stop_gradient, dim=256, layers=2, seed=seed)
        # deviation: base lr 0.2, not the paper's 0.05, because 300 steps must do the work of 100 epochs
        runs[name] = fit(method, train, views, steps=steps, batch=min(256, len(train)), base_lr=0.2, seed=seed,
                         every=10, device=device)
        if runs[name].status != "done":
            raise KeyboardInterrupt
    bank, queries = train[:BANK], test[:BANK]
    table = report(runs, bank, queries, views)
    page = BytesIO()                                   # drawn whole before the file is touched
    draw_report(runs, spectra(runs, bank, queries, views)).savefig(page, format=figure_path.suffix[1:])
    figure_path.write_bytes(page.getvalue())
    return runs, table


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="simsiam-explained", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("demo", help="SimSiam with and without stop-gradient: a table and a figure",
                              formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    one.add_argument("--images", default="textures", metavar="WHAT",
                     help="textures, digits, cifar10, cifar100, stl10, FILE.npz or FOLDER")
    one.add_argument("--steps", type=int, default=300, help="optimiser steps of each run")
    one.add_argument("--width", type=int, default=16, help="channels of the ResNet's first stage")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--device", default="auto", help="auto, cpu or cuda")
    one.add_argument("--out", default="simsiam_demo.png", metavar="FILE",
                     help=f"where the figure goes ({', '.join(ENDINGS)})")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; return 0, 2 for a refused input (one line on stderr), or 130 when interrupted."""
    options = vars(parser().parse_args(argv))
    options.pop("command")
    try:
        _, table = demo(**options)
    except (ValueError, TypeError, OSError, KeyError, FloatingPointError) as error:
        said = error.args[0] if isinstance(error, KeyError) else error     # str(KeyError) puts quotes around it
        print(f"simsiam-explained: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simsiam-explained: interrupted; no table and no figure were made", file=sys.stderr)
        return 130
    table["images/s"] = [f"{speed:,.0f}" if speed == speed else "–" for speed in table["images/s"]]
    print(f"\n{table.rename(columns={'std': 'std·√d'}).round(3).to_string(na_rep='–')}\n\nfigure: {options['out']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
