"""The command line: `demo` shows a method collapse; `claims` what we know of the papers; `reproduce` makes it again."""
from __future__ import annotations

import argparse
import math
import re
import sys
import time
from io import BytesIO
from pathlib import Path

__all__ = ["demo", "claims", "reproduce", "main"]

BANK = 10_000  # choice: at most so many images are embedded for the report
ENDINGS = (".jpg", ".pdf", ".png", ".svg")  # of the figure


def arms(method: str = "simsiam") -> dict:
    """Return {arm: recipe}: a method whole, and without a part; those of the live claims on the parts of methods."""
    from .checks import one_of
    from .evidence import claims as known
    from .recipe import base

    found = {name.removeprefix("parts-"): claim for name, claim in known(["parts"]).items()}
    if (name := one_of("--method", re.sub("[-_ ]", "", method.lower()), found)) != "simsiam":
        return found[name].recipes("live")
    # deviation: base lr 0.2, not the paper's 0.05, because 300 steps must do the work of 100 epochs
    whole = base("live").but(dim=256, batch=256, base_lr=0.2)
    return {"SimSiam": whole, "no stop-gradient": whole.but(stop_gradient=False)}


def _batch(wanted: int, n: int) -> int:
    """Return the largest of wanted, wanted/2, wanted/4 … that n images fill, 2 at the least: a queue still fits it."""
    while wanted > max(n, 2):
        wanted //= 2
    return wanted


def _check_images(what: str, train, test) -> None:
    """ValueError if there are too few images to learn from and to test on, or nothing to tell apart among them."""
    if min(len(train), len(test)) < 2:
        raise ValueError(f"--images: {what} gives {len(train)} to learn from and {len(test)} to test on, expected 2 "
                         "of each at the least; give more images.")
    if any(part.pixels.amax(0).equal(part.pixels.amin(0)) for part in (train, test)):
        raise ValueError(f"--images: {what} gives one and the same image again and again to learn from, or to test on, "
                         "expected different ones; give other images.")


def demo(images: str = "textures", steps: int = 300, width: int = 16, seed: int = 0, device: str = "auto",
         out: str = "simsiam_demo.png", method: str = "simsiam"):
    """Train a method on `images`, whole and without a part; return (runs, report) and write one figure to `out`.

    `images` is what `load_images` takes: textures, mosaics, digits, cifar10, cifar100, stl10, FILE.npz or FOLDER."""
    from .checks import check_writable, one_of, pick_device
    from .figures import draw_report
    from .images import load_images
    from .report import report, spectra
    from .training import fit
    from .views import make_views

    chosen = arms(method)
    one_of("--out: ending", Path(out).suffix, ENDINGS)
    figure_path = check_writable(out, "--out")
    pick_device(device)
    train, test = load_images(images, seed=seed, device="cpu")
    views = make_views("textures" if images in ("textures", "mosaics", "digits") else "cifar", size=train.shape[-1])
    _check_images(images, train, test)
    print(f"{train.name}: {len(train):,} images to learn from, {len(test):,} to test on, {train.shape}"
          f"{'; no labels, so no probes' if train.labels is None else ''}")
    runs = {}
    for name, recipe in chosen.items():
        print(f"\n{name}")
        recipe = recipe.but(width=width, steps=steps, batch=_batch(recipe.batch, len(train)))
        net = recipe.build(seed, channels=train.shape[0], shape=train.shape, n=len(train))
        runs[name] = fit(net, train, views, steps=steps, batch=recipe.batch, base_lr=recipe.base_lr,
                         momentum=recipe.momentum, weight_decay=recipe.weight_decay, warmup=recipe.warmup,
                         optimiser=recipe.optimiser, seed=seed, every=10, device=device)
        if runs[name].status != "done":
            raise KeyboardInterrupt
    bank, queries = train[:BANK], test[:BANK]
    table = report(runs, bank, queries, views)
    page = BytesIO()                                   # drawn whole before the file is touched
    draw_report(runs, spectra(runs, bank, queries, views)).savefig(page, format=figure_path.suffix[1:])
    figure_path.write_bytes(page.getvalue())
    return runs, table


def claims(ids: list[str], readme: str | None = None) -> int:
    """Print the table of all claims, or of those asked for; of a single one, its page. readme: bring it up to date."""
    from . import ledger
    from .evidence import claims as known
    from .records import read_shelf, records_dir

    if readme and ids:
        raise ValueError(f"--readme: {readme} takes the results of all claims; leave out {', '.join(ids)}.")
    shelf = read_shelf()
    for problem in shelf.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if readme and (shelf.problems or not shelf.records):
        raise ValueError(f"--readme: {readme} stays as it is, for {records_dir()} gives {len(shelf.records)} records "
                         f"and {len(shelf.problems)} problems; mend them, or name another folder with "
                         "SIMSIAM_EXPLAINED_RECORDS.")
    if readme:
        print(f"{readme}: {'brought up to date' if ledger.write_results(readme, shelf) else 'as it was'}")
    elif len(found := known(ids)) == 1:
        print(ledger.page(*found.values(), shelf))
    else:
        table = ledger.verdicts(ids, shelf)
        print(table.drop(columns="source").to_string(max_colwidth=60, justify="left"))
    return 0


def duration(text: str) -> float:
    """Return the seconds in "90s", "9m", "2h" or "540"."""
    if not (found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number with s, m or h, as in 9m")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def _without_runs(ids: list[str], scale: str) -> list[str]:
    """Return a sentence for each claim named in `ids` that has nothing to run at `scale`."""
    from .checks import one_of
    from .evidence import claims as known
    from .recipe import SCALES

    none = [c for c in known(ids).values() if c.id in ids and not c.recipes(one_of("scale", scale, SCALES))]
    return [f"{c.id}: {f'exact, held by {c.test}' if c.test else f'has no runs at scale {scale}'}" for c in none]


def reproduce(ids: list[str], scale: str, seeds: int, budget: float | None, jobs: int, dry_run: bool,
              verify: str | None, device: str, compile: bool, keep: list[str], long: bool) -> int:
    """Make the records that are missing, print what is missing (dry_run), or make one again and compare (verify).

    The full scale on a GPU begins with the pilot, which chooses compile and says whether the longest runs are due."""
    began = time.monotonic()
    from . import reproduce as work
    from .checks import pick_device, positive
    from .pilot import gains, pilot_of

    if verify and dry_run:
        raise ValueError("--dry-run: it runs nothing, and --verify makes a run; choose one of them.")
    if verify:
        agrees, told = work.verify(verify, device)
        print(told)
        return 0 if agrees else 1
    for told in _without_runs(ids, scale):
        print(told, flush=True)
    if dry_run:
        print(work.missing(scale, ids, seeds, device))
        return 0
    speed = math.inf
    if scale == "full" and pick_device(device).type == "cuda":
        table = pilot_of(device)
        print(f"{table.round(3).to_string(index=False)}\n{gains(table)}", flush=True)
        best = table.loc[table["images/s"].idxmax()]
        compile, speed = bool(best["compile"]), math.inf if long else best["images/s"]
    left = None if budget is None else max(0.0, budget - (time.monotonic() - began))
    if positive("--jobs", jobs) > 1:
        words = [*ids, "--scale", scale, "--seeds", seeds, "--device", device, *(f"--keep={name}" for name in keep),
                 *([] if left is None else ["--budget", f"{left:.1f}"]), *["--compile"] * compile, *["--long"] * long]
        return work.in_processes(jobs, ["reproduce", *map(str, words)])
    made = work.reproduce(scale, ids, seeds, left, device, compile, keep, speed)
    print(f"{len(made)} records made")
    return 0


def _parse_demo(one: argparse.ArgumentParser) -> None:
    one.add_argument("--method", default="simsiam",
                     help="simsiam, byol, directpred, simclr, mocov2, mocov3, swav or dino")
    one.add_argument("--images", default="textures", metavar="WHAT",
                     help="textures, mosaics, digits, cifar10, cifar100, stl10, FILE.npz or FOLDER")
    one.add_argument("--steps", type=int, default=300, help="optimiser steps of each run")
    one.add_argument("--width", type=int, default=16, help="channels of the ResNet's first stage")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--device", default="auto", help="auto, cpu or cuda")
    one.add_argument("--out", default="simsiam_demo.png", metavar="FILE",
                     help=f"where the figure goes ({', '.join(ENDINGS)})")


def _parse_claims(one: argparse.ArgumentParser) -> None:
    one.add_argument("ids", nargs="*", metavar="ID", help="as in simsiam-9, or simsiam for all of one paper; none: all")
    one.add_argument("--readme", metavar="FILE", help="bring the results in this file up to date instead")


def _parse_reproduce(one: argparse.ArgumentParser) -> None:
    one.add_argument("ids", nargs="*", metavar="ID", help="claims; none: all")
    one.add_argument("--scale", default="small", help="live, small (CPU) or full (a big GPU)")
    one.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, …")
    one.add_argument("--budget", type=duration, metavar="TIME", help="stop in time, as in 9m; the next call goes on")
    one.add_argument("--jobs", type=int, default=1, help="processes that share the cores and the queue")
    one.add_argument("--dry-run", action="store_true", help="print the queue with its times, and run nothing")
    one.add_argument("--verify", metavar="KEY", help="make this record again and compare")
    one.add_argument("--device", default="auto", help="auto, cpu or cuda")
    one.add_argument("--compile", action="store_true", help="torch.compile the method")
    one.add_argument("--long", action="store_true", help="the 800-epoch runs too, whatever the pilot says of the speed")
    one.add_argument("--keep", action="append", default=[], metavar="ID",
                     help="keep the backbones of this claim's runs with seed 0, 8 bits a weight")


COMMANDS = {"demo": (_parse_demo, "a method whole, and without a part that it needs: a table and a figure"),
            "claims": (_parse_claims, "the papers' claims, and what our records say of them"),
            "reproduce": (_parse_reproduce, "make the records that the claims ask for")}


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(prog="simsiam-explained", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    for name, (fill, told) in COMMANDS.items():
        fill(commands.add_parser(name, help=told, formatter_class=argparse.ArgumentDefaultsHelpFormatter))
    return top


def _show_demo(**options) -> int:
    """Run the demo and print its table."""
    _, table = demo(**options)
    table["images/s"] = [f"{speed:,.0f}" if speed == speed else "–" for speed in table["images/s"]]
    print(f"\n{table.rename(columns={'std': 'std·√d'}).round(3).to_string(na_rep='–')}\n\nfigure: {options['out']}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code, 2 for a refused input (one line on stderr), or 130 when interrupted."""
    options = vars(parser().parse_args(argv))
    run = {"demo": _show_demo, "claims": claims, "reproduce": reproduce}[options.pop("command")]
    try:
        return run(**options)
    except (ValueError, TypeError, OSError, KeyError, FloatingPointError) as error:
        said = error.args[0] if isinstance(error, KeyError) else error     # str(KeyError) puts quotes around it
        print(f"simsiam-explained: {said}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simsiam-explained: interrupted; no file is half written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
