"""The command line, run for real at a small size, and its refusals."""
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from simsiam_explained import cli

SMALL = ["demo", "--steps", "3", "--width", "2"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Noise with labels, too small to learn from and large enough to run on."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("npz") / "noise.npz"
    images = lambda n: random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)  # noqa: E731
    np.savez(path, train_images=images(96), train_labels=np.arange(96) % 3, test_images=images(48),
             test_labels=np.arange(48) % 3, classes=np.array(["a", "b", "c"]))
    return path


def test_demo_on_an_archive_prints_the_table_and_writes_the_figure(archive, tmp_path, capsys):
    out = tmp_path / "figure.png"
    assert cli.main([*SMALL, "--images", str(archive), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for word in ("loss", "std", "AUC", "kNN", "linear", "images/s", "collapsed", "no stop-gradient", "untrained"):
        assert word in printed
    with Image.open(out) as figure:
        assert figure.size[0] > 500


def test_demo_on_a_folder(tmp_path):
    random = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
                tmp_path / "pictures" / label / f"{i}.png")
    runs, table = cli.demo(str(tmp_path / "pictures"), steps=2, width=2, out=tmp_path / "f.png")
    assert list(table.index) == ["untrained", *cli.ARMS] and table["kNN"].notna().all()
    assert all(run.step == 2 for run in runs.values())


@pytest.mark.parametrize("argument, word", [
    (["--images", "texture"], "textures"), (["--images", "nowhere/mine.npz"], "nowhere"), (["--steps", "0"], "steps"),
    (["--device", "gpu"], "cpu"), (["--out", "no/such/folder/f.png"], "no/such/folder"), (["--width", "0"], "width"),
])
def test_a_bad_argument_is_one_line_that_names_it(argument, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*SMALL, *argument]) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1 and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_it_is_installed_as_a_command():
    done = subprocess.run([sys.executable, "-m", "simsiam_explained.cli", "demo", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--images" in done.stdout and "--device" in done.stdout
