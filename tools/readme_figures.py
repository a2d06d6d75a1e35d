"""Copy the figures that README.md shows out of the executed chapters: python tools/readme_figures.py"""
from base64 import b64decode
from pathlib import Path

import nbformat

NBS = Path(__file__).resolve().parent.parent / "nbs"
FIGURES = {"collapse.png": ("08_stop_gradient", 1), "portrait.png": ("13_predictor_dynamics", 1)}   # the how many-th, from 0


def figures(chapter: str) -> list[bytes]:
    """Return the PNGs that a chapter is stored with, in their order."""
    cells = nbformat.read(NBS / f"{chapter}.ipynb", as_version=4).cells
    stored = [output.get("data", {}) for cell in cells for output in cell.get("outputs", ())]
    return [b64decode(data["image/png"]) for data in stored if "image/png" in data]


if __name__ == "__main__":
    (NBS / "images").mkdir(exist_ok=True)
    for name, (chapter, k) in FIGURES.items():
        (NBS / "images" / name).write_bytes(figures(chapter)[k])
