"""What a stranger installs: one source of metadata, an import that is light and quiet, one palette."""
import configparser
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_installed_metadata_are_those_of_settings_ini():
    config = configparser.ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    meta, installed = config["DEFAULT"], metadata.metadata("simsiam_explained")
    assert (installed["Name"], installed["Version"]) == (meta["lib_name"], meta["version"])
    assert installed["Requires-Python"] == f">={meta['min_python']}"
    assert installed["Summary"] == meta["description"]
    wanted = {re.split(r"[<>=]", r)[0] for r in meta["requirements"].split()}
    required = {re.split(r"[<>=; ]", r)[0] for r in metadata.requires("simsiam_explained") if "extra ==" not in r}
    assert required == wanted


def test_import_needs_neither_nbdev_nor_widgets_and_prints_nothing():
    modules = [p.stem for p in (ROOT / "simsiam_explained").glob("[a-z]*.py")]
    code = ("import sys, importlib\n"
            "class Block:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name.split('.')[0] in ('nbdev', 'fastcore', 'execnb', 'ipywidgets', 'IPython'): raise ImportError(name)\n"
            "sys.meta_path.insert(0, Block())\n"
            f"[importlib.import_module('simsiam_explained.' + m) for m in {modules!r}]\n")
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_no_colour_is_named_outside_the_palette():
    for path in (ROOT / "simsiam_explained").glob("*.py"):
        if path.name != "figures.py":
            assert not re.search(r"#[0-9A-Fa-f]{6}\b", path.read_text(encoding="utf-8")), f"{path.name}: take colours from figures.py"
    for path in (ROOT / "nbs").glob("[0-9]*.ipynb"):
        assert not re.search(r"['\"]#[0-9A-Fa-f]{6}\b", re.sub(r'"image/png": "[^"]*"', "", path.read_text(encoding="utf-8"))), path.name


def test_modules_stay_short():
    for path in (ROOT / "simsiam_explained").glob("[a-z]*.py"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.strip().startswith("#")]
        assert len(lines) <= 300, f"{path.name}: {len(lines)} code lines"
