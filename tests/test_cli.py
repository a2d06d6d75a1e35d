"""The command line, run for real at a small size, and its refusals."""
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import TINY, claims_on_tiny, record
from PIL import Image

from simsiam_explained import cli, evidence, ledger, weights
from simsiam_explained.records import read_shelf, records_dir, write_record

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


@pytest.mark.parametrize("method", ["byol", "DirectPred", "simclr", "MoCo-v2", "MoCo v3", "moco_v3", "swav", "dino"])
def test_demo_of_every_method(method, archive, tmp_path):
    runs, table = cli.demo(str(archive), steps=2, width=2, out=tmp_path / "f.png", method=method)
    assert list(table.index) == ["untrained", *cli.arms(method)] and len(runs) >= 2 and table["kNN"].notna().all()


def test_demo_on_a_folder(tmp_path):
    random = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(40):
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(
                tmp_path / "pictures" / label / f"{i}.png")
    runs, table = cli.demo(str(tmp_path / "pictures"), steps=2, width=2, out=tmp_path / "f.png")
    assert list(table.index) == ["untrained", *cli.arms()] and table["kNN"].notna().all()
    assert all(run.step == 2 for run in runs.values())


@pytest.mark.parametrize("argument, word", [
    (["--images", "texture"], "textures"), (["--images", "nowhere/mine.npz"], "nowhere"), (["--steps", "0"], "steps"),
    (["--device", "gpu"], "cpu"), (["--out", "no/such/folder/f.png"], "no/such/folder"), (["--width", "0"], "width"),
    (["--out", "."], "ending"), (["--out", "f.xyz"], "'.xyz', expected one of '.jpg'"), (["--seed", "-1"], "seed: got -1"),
    (["--method", "simclear"], "simclr"),
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
    ({"images": np.zeros((40, 8, 8), np.uint8)}, "one and the same image"),
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


# ---- claims and reproduce

@pytest.fixture
def tiny(monkeypatch, folders):
    """All claims at their smallest, in empty folders."""
    claims_on_tiny(monkeypatch)
    records_dir().mkdir(parents=True)
    return folders


def said(capsys, *words):
    """Run a command; return (its exit code, stdout, stderr)."""
    code = cli.main(list(words))
    return code, *capsys.readouterr()


def test_claims_prints_a_row_for_each_and_a_page_for_one(tiny, capsys):
    code, out, err = said(capsys, "claims")
    assert code == 0 and not err and all(name in out for name in evidence.claims())
    code, out, _ = said(capsys, "claims", "simsiam-9")
    assert code == 0 and out.startswith("simsiam-9: Removing the stop-gradient") and "small: not tested" in out
    code, out, _ = said(capsys, "claims", "simsiam-9", "simsiam-10")
    assert len(out.splitlines()) == 3 and "simsiam-10" in out


def test_claims_brings_a_readme_up_to_date(tiny, capsys):
    readme = tiny / "R.md"
    readme.write_text("".join(ledger.MARKS), encoding="utf-8")
    write_record(record())
    assert said(capsys, "claims", "--readme", str(readme))[1] == f"{readme}: brought up to date\n"
    assert said(capsys, "claims", "--readme", str(readme))[1] == f"{readme}: as it was\n"


@pytest.mark.parametrize("spoil, word", [
    (lambda folder: folder.rmdir(), "0 records and 1 problems"), (lambda folder: None, "0 records and 0 problems"),
    (lambda folder: (write_record(record()), (folder / "x-s0.json").write_text("{")), "1 records and 1 problems"),
], ids=["no folder", "empty", "damaged"])
def test_no_readme_is_written_from_records_that_are_not_there_or_not_whole(tiny, capsys, spoil, word):
    readme = tiny / "R.md"
    readme.write_text("what is known".join(ledger.MARKS), encoding="utf-8")
    spoil(records_dir())
    code, out, err = said(capsys, "claims", "--readme", str(readme))
    assert code == 2 and not out and f"--readme: {readme} stays as it is, for {records_dir()} gives {word}" in err
    assert "what is known" in readme.read_text(encoding="utf-8")


def test_options_that_would_be_passed_over_are_refused(tiny, capsys):
    (tiny / "R.md").write_text("".join(ledger.MARKS), encoding="utf-8")
    code, _, err = said(capsys, "claims", "simsiam-9", "byol", "--readme", str(tiny / "R.md"))
    assert code == 2 and "takes the results of all claims; leave out simsiam-9, byol" in err
    write_record(record())
    code, out, err = said(capsys, "reproduce", "--verify", TINY.key, "--dry-run")
    assert code == 2 and not out and "--dry-run: it runs nothing, and --verify makes a run" in err


def test_reproduce_says_which_claims_have_nothing_to_run(tiny, capsys):
    code, out, _ = said(capsys, "reproduce", "simsiam-1", "simsiam-21", "--dry-run", "--device", "cpu")
    exact, absent, queue = out.splitlines()
    assert code == 0 and exact.startswith("simsiam-1: exact, held by test_simsiam.py::") and queue.startswith("0 runs")
    assert absent == "simsiam-21: has no runs at scale small"


def test_dry_run_prints_the_queue_and_runs_nothing(tiny, capsys):
    code, out, _ = said(capsys, "reproduce", "simsiam-9", "--seeds", "2", "--dry-run", "--device", "cpu")
    lines = out.splitlines()
    assert code == 0 and lines[-1].startswith("4 runs, about 0 min of training, and the probes, on ")
    assert len(lines) == 5 and lines[0].startswith(f"{TINY.key}-s0") and " min  SimSiam  (simsiam-9, " in lines[0]
    assert "no stop-gradient" in lines[1]
    assert not list(tiny.rglob("*.json"))
    write_record(record())
    assert "3 runs, " in said(capsys, "reproduce", "simsiam-9", "--seeds", "2", "--dry-run", "--device", "cpu")[1]
    out = said(capsys, "reproduce", "simsiam-21", "--scale", "full", "--seeds", "1", "--dry-run", "--device", "cpu")[1]
    assert "only above 30,000 images/s, or with --long" in out


def test_reproduce_makes_records_and_verify_makes_one_again(tiny, capsys):
    code, out, _ = said(capsys, "reproduce", "simsiam-9", "--seeds", "1", "--keep", "simsiam-9", "--device", "cpu")
    assert code == 0 and out.endswith("2 records made\n") and len(list(weights.weights_dir().glob("*.npz"))) == 2
    assert "backbone kept in 8 bits a weight: kNN 0." in out
    made = read_shelf().of(TINY.key)[0]
    code, out, _ = said(capsys, "reproduce", "--verify", TINY.key, "--device", "cpu")
    assert code == 0 and out.endswith(f"{made.name}: the same to the bit\n")
    write_record(replace(made, digest="0"))
    code, out, _ = said(capsys, "reproduce", "--verify", made.name)
    assert code == 1 and "not the same bits" in out


@pytest.mark.parametrize("argument, word", [
    (["simsiam-99"], "'simsiam-99', expected one of"), (["--scale", "big"], "'live', 'small', 'full'"),
    (["--seeds", "0"], "seeds: got 0"), (["--jobs", "0"], "--jobs: got 0"), (["--device", "gpu"], "'gpu'"), (["--keep", "simsiam9"], "'simsiam9'"),
    (["--verify", "abc"], "none of the 0 records"),
])
def test_what_reproduce_refuses_is_one_line(tiny, capsys, argument, word):
    code, _, err = said(capsys, "reproduce", *argument)
    assert code == 2 and word in err and err.count("\n") == 1 and not list(tiny.rglob("*.json"))


def test_a_failed_run_is_an_exit_code(tiny, capsys, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no memory")
    monkeypatch.setattr("simsiam_explained.reproduce.run_recipe", fails)
    code, out, err = said(capsys, "reproduce", "simsiam-9", "--seeds", "1", "--device", "cpu")
    assert code == 2 and out.count("failed: no memory") == 2 and err.startswith("simsiam-explained: 2 runs failed")


def test_jobs_get_the_same_command(tiny, monkeypatch):
    calls = []
    monkeypatch.setattr("simsiam_explained.reproduce.in_processes", lambda *given: (calls.append(given), 3)[1])
    words = ["simsiam-9", "--jobs", "2", "--budget", "9m", "--keep", "a", "--compile", "--long"]
    assert cli.main(["reproduce", *words]) == 3
    jobs, command = calls[0]
    again = vars(cli.parser().parse_args(command))
    assert jobs == 2 and again["ids"] == ["simsiam-9"] and again["keep"] == ["a"] and again["compile"] and again["long"]
    assert 500 < again["budget"] <= 540 and again["jobs"] == 1 and again["scale"] == "small"


@pytest.mark.parametrize("text, seconds", [("90", 90), ("90s", 90), ("9m", 540), ("1.5h", 5400), (" 2 m ", 120)])
def test_a_duration_has_a_unit(text, seconds):
    assert cli.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "9 minutes", "-1", "1e3", "nan"])
def test_what_is_no_duration_is_refused(text, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["reproduce", f"--budget={text}"])
    assert left.value.code == 2 and "as in 9m" in capsys.readouterr().err
