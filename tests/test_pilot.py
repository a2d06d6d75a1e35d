"""The pilot: its table on a tiny recipe, its memory, and what the command does with its speed."""
import json
import math

import pandas as pd
import pytest
from evidence_kit import TINY, claims_on_tiny

from simsiam_explained import cli, pilot
from simsiam_explained.pilot import CASES, gains, pilot_of
from simsiam_explained.records import records_dir

FEW = ((16, "bfloat16", False), (16, "float32", False), (8, "float32", False))


def table(best=20_000.0):
    """The pilot's table of a machine that is fastest when compiled."""
    speeds = [best / 2, best / 4, best / 2.2, best / 4.4, best]
    seen = {"TFLOP/s": 1.0, "views' share": 0.1, "failed": ""}
    return pd.DataFrame([{"batch": b, "autocast": a, "compile": c, "images/s": s} | seen
                         for (b, a, c), s in zip(CASES, speeds)])


def test_the_pilot_measures_each_case(device):
    found = pilot.pilot(str(device), FEW, TINY, steps=4)
    assert [tuple(row) for row in found[["batch", "autocast", "compile"]].itertuples(index=False)] == list(FEW)
    assert (found["images/s"] > 0).all() and (found["TFLOP/s"] > 0).all() and (found["failed"] == "").all()
    assert found["views' share"].between(0, 3).all()
    assert (found["TFLOP/s"] / found["images/s"]).round(15).nunique() == 1          # one net


def test_the_cases_are_those_of_the_plan():
    assert {batch for batch, *_ in CASES} == {256, 512} and {a for _, a, _ in CASES} == {"bfloat16", "float32"}
    assert {c for *_, c in CASES} == {True, False} and len(set(CASES)) == len(CASES)


def test_a_case_that_cannot_run_is_a_row_that_says_why(monkeypatch):
    fit = pilot.fit

    def no_compiler(*given, compile, **more):
        if compile:
            raise RuntimeError("no C++ compiler")
        return fit(*given, compile=compile, **more)
    monkeypatch.setattr(pilot, "fit", no_compiler)
    found = pilot.pilot("cpu", ((8, "float32", True), (8, "float32", False)), TINY, steps=2)
    assert math.isnan(found["images/s"][0]) and found["images/s"].idxmax() == 1
    assert list(found["failed"]) == ["no C++ compiler", ""]


def test_the_gains_say_what_bounds_the_speed():
    said = gains(table())
    assert [line.split()[0] for line in said.splitlines()] == ["×2.00", "×2.00", "×1.10"]
    assert "×nan" in gains(table().assign(**{"images/s": float("nan")}))


def test_a_pilot_is_made_once_for_a_machine(folders, monkeypatch):
    made = []
    monkeypatch.setattr(pilot, "pilot", lambda device: (made.append(device), table())[1])
    first, second = pilot_of("cpu"), pilot_of("cpu")
    assert len(made) == 1 and list(first["images/s"].round()) == list(second["images/s"].round())
    here = pilot.machine
    monkeypatch.setattr(pilot, "machine", lambda place: here(place) | {"threads": 77})         # a process of --jobs
    pilot_of("cpu")
    assert len(made) == 1
    monkeypatch.setattr(pilot, "machine", lambda place: here(place) | {"name": "another GPU"})
    pilot_of("cpu")
    known = json.loads((records_dir().parent / "pilot.json").read_text())
    assert len(made) == 2 == len(known) and known[1]["machine"]["name"] == "another GPU"


@pytest.mark.parametrize("text", ["{", "[1]", '{"machine": 1}'])
def test_a_damaged_pilot_is_named(folders, monkeypatch, text):
    monkeypatch.setattr(pilot, "pilot", lambda device: table())
    records_dir().mkdir(parents=True)
    (records_dir().parent / "pilot.json").write_text(text)
    with pytest.raises(ValueError, match="pilot.json: is damaged .*; remove it"):
        pilot_of("cpu")


# ---- what the command does with it

@pytest.fixture
def asked(monkeypatch, folders):
    """What `reproduce --scale full` asks of the queue, on a machine whose GPU is pretended."""
    calls = []
    monkeypatch.setattr("simsiam_explained.checks.pick_device", lambda name="auto": type("D", (), {"type": "cuda"})())
    monkeypatch.setattr("simsiam_explained.reproduce.reproduce", lambda *given: (calls.append(given), [])[1])
    return calls


@pytest.mark.parametrize("best, long, speed", [
    (20_000.0, [], 20_000.0), (40_000.0, [], 40_000.0), (20_000.0, ["--long"], math.inf)])
def test_the_pilot_chooses_compile_and_whether_the_longest_runs_are_due(asked, monkeypatch, capsys, best, long, speed):
    monkeypatch.setattr(pilot, "pilot", lambda device: table(best))
    assert cli.main(["reproduce", "--scale", "full", "--budget", "9m", *long]) == 0
    scale, ids, seeds, left, device, compile, keep, fast = asked[0]
    assert (scale, ids, seeds, compile, fast) == ("full", [], 3, True, speed) and 500 < left <= 540
    assert "images/s" in capsys.readouterr().out


def test_a_pilot_is_paid_from_the_budget(asked, monkeypatch):
    clock = iter([0.0, 500.0])
    monkeypatch.setattr(pilot, "pilot", lambda device: table())
    monkeypatch.setattr(cli.time, "monotonic", lambda: next(clock))
    assert cli.main(["reproduce", "--scale", "full", "--budget", "540"]) == 0 and asked[0][3] == 40.0


def test_the_small_scale_needs_no_pilot(asked, monkeypatch):
    monkeypatch.setattr(pilot, "pilot", lambda device: pytest.fail("a pilot"))
    assert cli.main(["reproduce", "--scale", "small"]) == 0 and asked[0][5] is False


def test_the_full_scale_runs_on_a_cpu_with_tiny_recipes(monkeypatch, folders, capsys):
    """The whole way but for its size: no pilot is due there, the longest runs wait, the rest becomes records."""
    claims_on_tiny(monkeypatch)
    assert cli.main(["reproduce", "simsiam-9", "simsiam-19", "--scale", "full", "--seeds", "1", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.endswith("3 records made\n") and len(list(records_dir().glob("*.json"))) == 3
