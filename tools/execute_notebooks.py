"""Execute chapters in a fresh kernel, store clean outputs, and note the source they came from.

    python tools/execute_notebooks.py                  # every chapter
    python tools/execute_notebooks.py nbs/08_*.ipynb   # some
    python tools/execute_notebooks.py --check          # are all stored outputs made from the present sources?

Outputs are made by this tool alone. A warning on stderr, an error or a traceback in any output stops it, and the
file stays as it was. Widget views and their state are left out: a chapter draws its key states as static figures.
The source hash of every chapter is kept in nbs/executed.json; wall times are printed, never stored.
"""
from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import sys
import time
from datetime import datetime
from io import BytesIO
from pathlib import Path

import nbformat
from PIL import Image, ImageChops, ImageStat

ROOT = Path(__file__).resolve().parent.parent
LEDGER = ROOT / "nbs" / "executed.json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def source_hash(nb) -> str:
    """Return a hash of the kinds and sources of all cells: what an execution depends on in this file."""
    text = json.dumps([[cell.cell_type, cell.source] for cell in nb.cells])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def chapters() -> list[Path]:
    return sorted(p for p in (ROOT / "nbs").glob("[0-9]*.ipynb"))


def ledger() -> dict:
    return json.loads(LEDGER.read_text()) if LEDGER.exists() else {}


def kept(output) -> bool:
    """Whether an output is stored: no widget views, no stderr (it was judged before)."""
    return not (output.output_type == "stream" and output.name == "stderr"
                or WIDGET_VIEW in output.get("data", {}))


def complaint(nb) -> str:
    """Return what is wrong with the outputs: an error, a warning or a traceback; '' if nothing."""
    for i, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            text = output.get("text", "")
            if output.output_type == "error" or "Traceback (most recent" in text:
                return f"cell {i}: an error is in its output"
            if output.output_type == "stream" and output.name == "stderr" and "Warning" in text:
                return f"cell {i}: {text.strip()[:300]}"
    return ""


def slim(output) -> None:
    """Store a figure with a palette of 256 colours, a third of the size, unless that would change its colours."""
    if "image/png" in output.get("data", {}):
        figure = Image.open(BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
        small, page = figure.quantize(256, dither=Image.Dither.NONE), BytesIO()
        if max(ImageStat.Stat(ImageChops.difference(figure, small.convert("RGB"))).mean) < 4:   # of 255 levels: unseen
            small.save(page, format="PNG", optimize=True)
            output.data["image/png"] = base64.b64encode(page.getvalue()).decode()


def slow_cells(nb, limit: float = 3.0) -> list[str]:
    """Return 'seconds: first line' of the cells that took longer than `limit` seconds."""
    rows = []
    for cell in nb.cells:
        times = cell.metadata.get("execution", {})
        if {"iopub.execute_input", "shell.execute_reply"} <= set(times):
            began, ended = (datetime.fromisoformat(times[key].replace("Z", "+00:00"))
                            for key in ("iopub.execute_input", "shell.execute_reply"))
            seconds = (ended - began).total_seconds()
            if seconds > limit:
                rows.append(f"   {seconds:5.1f} s: {cell.source.splitlines()[0]}")
    return rows


def execute(path: Path) -> None:
    """Run one chapter in a fresh kernel and store its clean outputs and its source hash."""
    import fcntl   # here, because Windows has none: there `--check` must do

    from nbclient import NotebookClient
    from nbdev.clean import nbdev_clean

    nb = nbformat.read(path, as_version=4)
    os.environ.setdefault("OMP_NUM_THREADS", "2")   # choice: the last digits depend on it, so it is the same everywhere
    holes = [cell for cell in nb.cells if re.search(r"^#\|\s*eval:\s*false", cell.source, re.M)]
    for cell in holes:   # exercises and downloads are for the reader
        cell.metadata["tags"] = ["skip-execution"]
    began = time.perf_counter()
    NotebookClient(nb, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    fault = complaint(nb)
    if fault:
        raise SystemExit(f"{path.name}: {fault}; the stored file is unchanged.")
    slow = slow_cells(nb)
    for cell in holes:   # so that "Run All Cells" goes on behind an exercise that is not solved yet
        cell.metadata["tags"] = ["raises-exception"]
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if kept(o)]
            for output in cell.outputs:
                slim(output)
    nb.metadata.pop("widgets", None)
    nbformat.write(nb, path)
    nbdev_clean(str(path))
    with open(LEDGER, "a+") as file:   # one writer at a time
        fcntl.flock(file, fcntl.LOCK_EX)
        known = ledger() if LEDGER.stat().st_size else {}
        LEDGER.write_text(json.dumps({**known, path.name: source_hash(nb)}, indent=1, sort_keys=True) + "\n")
    print(f"{path.name}: {time.perf_counter() - began:.0f} s, {path.stat().st_size // 1000} kB", *slow, sep="\n")


def check() -> int:
    """Return 1 and say which, if a chapter's stored outputs were not made from its present source."""
    known, names = ledger(), [p.name for p in chapters()]
    stale = [p.name for p in chapters() if known.get(p.name) != source_hash(nbformat.read(p, as_version=4))]
    gone = sorted(set(known) - set(names))
    for name in stale:
        print(f"{name}: not executed from its present source; run python tools/execute_notebooks.py nbs/{name}")
    for name in gone:
        print(f"{name}: in nbs/executed.json, but there is no such chapter")
    print(f"{len(names) - len(stale)} of {len(names)} chapters executed from their present sources")
    return 1 if stale or gone or not names else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="only compare sources with nbs/executed.json")
    options = parser.parse_args()
    if options.check:
        return check()
    for path in options.notebooks or chapters():
        execute(path.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
