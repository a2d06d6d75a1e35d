"""Lint of every chapter: form, size, what may be stored, and that its outputs come from its present source."""
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(params=CHAPTERS, ids=[p.stem for p in CHAPTERS])
def chapter(request):
    return request.param


@pytest.fixture
def cells(chapter):
    return nbformat.read(chapter, as_version=4).cells


def outputs(cells):
    return [o for c in cells if c.cell_type == "code" for o in c.outputs]


def test_there_are_chapters():
    assert len(CHAPTERS) >= 8


def test_opens_with_a_title_and_a_summary(cells):
    assert re.match(r"# \S.*\n\n> \S", cells[0].source), "the first cell is '# title', an empty line, '> summary'"


def test_exports_one_module_that_no_other_chapter_exports(cells):
    mine = [m for c in cells for m in re.findall(r"^#\| *default_exp +(\S+)", c.source, re.M)]
    everyone = [m for p in CHAPTERS for m in re.findall(r"#\| *default_exp +([\w.]+)", p.read_text(encoding="utf-8"))]
    assert len(mine) <= 1 and all(everyone.count(m) == 1 for m in mine)


def test_no_cell_is_longer_than_25_lines(cells):
    for cell in cells:
        lines = [line for line in cell.source.splitlines() if not line.startswith("#|")]
        assert cell.cell_type != "code" or len(lines) <= 25, f"{len(lines)} lines: {lines[0]}"


def test_is_small_enough_to_render(chapter):
    assert chapter.stat().st_size <= 400_000


def test_stores_no_widget_no_error_no_traceback_no_stderr(chapter, cells):
    assert "widgets" not in nbformat.read(chapter, as_version=4).metadata
    for o in outputs(cells):
        assert o.output_type != "error"
        assert WIDGET_VIEW not in o.get("data", {})
        assert "Traceback (most recent" not in str(o.get("text", ""))
        assert o.get("name") != "stderr"


def test_holds_outputs_and_figures(cells):
    assert any("image/png" in o.get("data", {}) for o in outputs(cells)), "a chapter shows at least one figure"


def test_every_figure_is_followed_by_its_caption(cells):
    for cell, after in zip(cells, [*cells[1:], None]):
        if cell.cell_type == "code" and any("image/png" in o.get("data", {}) for o in cell.outputs):
            assert after is not None and after.cell_type == "markdown", f"no caption after: {cell.source[:80]}"


def test_names_no_path_of_a_machine(chapter):
    assert not re.search(r"(/(home|Users|root|mnt|opt|tmp)/|site-packages|C:\\\\)", chapter.read_text(encoding="utf-8"))


def test_has_assertions_that_run(cells):
    code = "\n".join(c.source for c in cells if c.cell_type == "code" and "eval: false" not in c.source)
    assert len(re.findall(r"^\s*assert ", code, re.M)) >= 6


def test_outputs_come_from_the_present_sources():
    tool = ROOT / "tools" / "execute_notebooks.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
