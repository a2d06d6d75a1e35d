"""The command line, run for real at a small size, and its refusals."""
import signal
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
    (["--out", "."], "ending"), (["--out", "f.xyz"], "'.xyz', expected one of '.jpg'"), (["--seed", "-1"], "seed: got -1"),
])
def test_a_bad_argument_is_one_line_that_names_it(argument, word, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*SMALL, *argument]) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1 and "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arrays, word", [
    ({"pictures": np.zeros((4, 8, 8), np.uint8)}, "among the keys pictures"),
    ({"images": np.zeros((4, 8, 8, 5), np.uint8)}, "5 channels"), ({"images": np.full((4, 8, 8), np.nan)}, "NaN"),
    ({"images": np.array([None, 1])}, "Python objects"), ({"images": np.zeros((4, 8, 8), np.uint8)}, "1 to test on"),
    ({"images": np.zeros((40, 8, 8), np.uint8), "labels": np.zeros(39, int)}, "39 for 40 images"),
])
def test_a_bad_archive_is_one_line_that_names_it(arrays, word, capsys, tmp_path):
    np.savez(tmp_path / "bad.npz", **arrays)
    assert cli.main([*SMALL, "--images", str(tmp_path / "bad.npz"), "--out", str(tmp_path / "f.png")]) == 2
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1 and not (tmp_path / "f.png").exists()


def test_a_folder_without_images_is_named(capsys, tmp_path):
    assert cli.main([*SMALL, "--images", str(tmp_path), "--out", str(tmp_path / "f.png")]) == 2
    assert f"{tmp_path}: no images there" in capsys.readouterr().err


@pytest.mark.parametrize("labels", [None, np.zeros(40, int)])
def test_the_demo_runs_where_there_is_nothing_to_probe(labels, capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, **({} if labels is None else {"labels": labels}))
    assert cli.main([*SMALL, "--images", str(tmp_path / "a.npz"), "--out", str(tmp_path / "f.svg")]) == 0
    printed = capsys.readouterr().out
    assert "–" in printed.split("\nSimSiam  ")[1] and ("no labels" in printed) == (labels is None)
    assert b"<svg" in (tmp_path / "f.svg").read_bytes()


def test_ctrl_c_ends_the_demo_with_130_and_leaves_no_figure(archive, tmp_path):
    """The signal is real, and so is the process: it comes when the first progress is seen."""
    out = tmp_path / "f.png"
    out.write_bytes(b"an older figure")
    command = [sys.executable, "-m", "simsiam_explained.cli", "demo", "--images", str(archive), "--width", "2", "--steps",
               "100000", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 130
    assert "interrupted" in said and "Traceback" not in said
    assert out.read_bytes() == b"an older figure" and [p.name for p in tmp_path.iterdir()] == ["f.png"]


def test_it_is_installed_as_a_command():
    done = subprocess.run([sys.executable, "-m", "simsiam_explained.cli", "demo", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--images" in done.stdout and "--device" in done.stdout
