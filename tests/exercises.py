"""Run the folded solutions of a chapter against the chapter's own checkers.

A chapter's exercise is a starter cell (`#| eval: false`, `raise NotImplementedError`, then a line `check_name(name)`),
a solution in a ```python block inside <details>, and a normal cell with `def check_name`. They pair up in order."""
import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).resolve().parent.parent / "nbs"


def _is_imports(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:                        # a cell with a magic
        return False
    return bool(body) and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)


def _cells(notebook: str) -> list:
    """Return the cells of `nbs/<notebook>.ipynb`."""
    return nbformat.read(NBS / f"{notebook}.ipynb", as_version=4).cells


def namespace(notebook: str) -> dict:
    """Return what a reader has at the exercises: the chapter's module, its imports and its checkers."""
    code = [c.source for c in _cells(notebook) if c.cell_type == "code"]
    module = next((m[1] for source in code if (m := re.search(r"^#\| *default_exp +(\S+)", source, re.M))), None)
    names = dict(vars(importlib.import_module(f"simsiam_explained.{module}"))) if module else {}
    for source in code:
        if "eval: false" not in source and (_is_imports(source) or re.search(r"^def check_", source, re.M)):
            exec(source, names)
    return names


def check(notebook: str, at_least: int = 3) -> None:
    """Run every exercise of `nbs/<notebook>.ipynb`: the starter fails as not done, the solution passes its checker."""
    cells = _cells(notebook)
    starters = [c.source for c in cells if c.cell_type == "code" and "raise NotImplementedError" in c.source]
    solutions = [s for c in cells if c.cell_type == "markdown" and "<details>" in c.source
                 for s in re.findall(r"```python\n(.*?)```", c.source, re.S)]
    assert len(starters) == len(solutions) >= at_least, (len(starters), len(solutions))
    names = namespace(notebook)
    for starter, solution in zip(starters, solutions):
        assert "eval: false" in starter, "a starter cell must not run with the chapter"
        call = "\n".join(line for line in starter.splitlines() if line.startswith("check_"))
        assert call, f"this starter calls no checker:\n{starter}"
        with pytest.raises(NotImplementedError):
            exec(starter, dict(names))
        answer = dict(names)
        exec(solution, answer)
        exec(call, answer)


def refused(notebook: str, call: str) -> None:
    """Run one `check_…(wrong answer)` in the chapter's namespace: its checker must refuse it."""
    names = namespace(notebook)
    with pytest.raises(AssertionError):
        exec(call, names)
