"""Records: whole or absent on disk, strict JSON, damaged and foreign files named; and those of the repository."""
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evidence_kit import TINY, figures, record

from simsiam_explained import cli, ledger, records
from simsiam_explained.evidence import claims
from simsiam_explained.memory import whole_file
from simsiam_explained.recipe import SCALES, SCHEMA, Recipe
from simsiam_explained.records import POINTS, plain, read_record, read_shelf, records_dir, thin, write_record

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "data" / "records"


# ---- there and back

def test_a_record_comes_back(folders):
    made = record(seed=2, rules={"simsiam-9": "abc"}, kNN=0.123456789)
    path = write_record(made)
    assert path == records_dir() / f"{TINY.key}-s2.json" and [p.name for p in path.parent.iterdir()] == [path.name]
    back = read_record(path)
    assert back.final["kNN"] == 0.123457 and back.spectra == {"backbone": [2.0, 1.0]}       # six digits are kept
    assert Recipe(**back.recipe) == TINY and back.rules == made.rules
    assert replace(back, final=made.final, spectra=made.spectra, recipe=made.recipe) == made


def test_a_number_that_is_none_is_null_in_the_file_and_nan_in_the_record(folders):
    made = replace(record(status="diverged", kNN=math.nan, loss=math.inf), images_per_second=math.nan, commit=None)
    text = write_record(made).read_text()
    assert "NaN" not in text and "Infinity" not in text
    back = read_record(records_dir() / f"{made.name}.json")
    assert math.isnan(back.final["kNN"]) and math.isnan(back.final["loss"]) and math.isnan(back.images_per_second)
    assert back.commit is None and math.isnan(back.row["gain"])


def test_the_row_of_a_record():
    row = record(kNN=0.7, AUC=0.75, status="collapsed").row
    assert row["gain"] == pytest.approx(0.2) and row["untrained kNN"] == 0.5 and row["status"] == "collapsed"
    assert row["AUC rise"] == pytest.approx(-0.05) and row["untrained AUC"] == 0.8
    assert {"loss", "std", "AUC", "rank", "kNN", "linear", "images/s", "untrained std"} <= set(row)


@pytest.mark.parametrize("curve, drift", [
    ([[50 * k, 0.9 - 0.01 * k] for k in range(1, 21)], -0.16),       # from step 200 of 1,000 to the last
    ([[75, 0.5], [300, 0.8], [1500, 0.7]], -0.1), ([[1, 0.5]], 0.0), ([], math.nan), ([[1, 0.5], [2, None]], math.nan)])
def test_the_drift_of_auc_is_that_since_a_fifth_of_the_steps(curve, drift):
    row = replace(record(), curves={"AUC": curve}).row
    assert row["AUC drift"] == pytest.approx(drift, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("n", [1, 2, POINTS, POINTS + 1, 777, 9700])
def test_a_thinned_curve_keeps_its_ends_and_order(n):
    curve = thin([[step, 0.5] for step in range(n)])
    steps = [step for step, _ in curve]
    assert len(curve) == min(n, POINTS) and steps[0] == 0 and steps[-1] == n - 1
    gaps = np.diff(steps)
    assert n <= POINTS or (gaps > 0).all() and gaps.max() - gaps.min() <= 1


def test_plain_is_strict_json():
    value = {"a": (1, 2.123456789, torch.tensor([1.5, math.nan])), 3: {"b": -math.inf, "c": None, "d": True, "e": "é"}}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "a": [1, 2.12346, [1.5, None]], "3": {"b": None, "c": None, "d": True, "e": "é"}}
    assert plain(0.1 + 0.2, digits=17) == 0.1 + 0.2


# ---- whole or absent

def test_a_write_that_fails_leaves_the_old_record_and_no_rubbish(folders, monkeypatch):
    old = write_record(record()).read_bytes()
    with pytest.raises(TypeError):                              # before a byte is written
        write_record(replace(record(), digest=object()))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write_record(record(kNN=0.1))
    assert [(p.name, p.read_bytes()) for p in records_dir().iterdir()] == [(f"{TINY.key}-s0.json", old)]


def test_whole_file_shows_nothing_before_its_end(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    with pytest.raises(RuntimeError), whole_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


def test_a_stopped_run_becomes_no_record(folders):
    with pytest.raises(ValueError, match="only whole runs"):
        write_record(record(status="stopped"))
    assert not records_dir().exists()


# ---- what is no record

def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def drop(path, name):
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != name}))


BAD = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:300]), "cannot be read as JSON"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read as JSON"),
    "bytes": (lambda p: p.write_bytes(b"\x93\xff\x00"), "cannot be read as JSON"),
    "NaN": (lambda p: p.write_text(p.read_text().replace('"kNN": 0.6', '"kNN": NaN')), "NaN is not JSON"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "cannot be read as JSON"),
    "deep": (lambda p: p.write_text("[" * 200_000), "cannot be read as JSON"),
    "foreign list": (lambda p: p.write_text("[1, 2]"), "no record of this project"),
    "foreign dict": (lambda p: p.write_text('{"name": "x", "schema": 1}'), "no record of this project"),
    "other schema": (lambda p: change(p, schema=SCHEMA + 1), f"schema {SCHEMA + 1}, this version reads {SCHEMA}"),
    "lacks a field": (lambda p: drop(p, "digest"), "lacks or adds digest"),
    "adds a field": (lambda p: change(p, more=1), "lacks or adds more"),
    "a field of another kind": (lambda p: change(p, final=[0.5]), "final is a list"),
    "a figure that is none": (lambda p: change(p, final=figures(kNN="high")), "kNN is 'high', no number"),
    "no figures": (lambda p: change(p, final={}), "lacks final: loss, final: std"),
    "no threads": (lambda p: change(p, machine={"device": "cpu", "name": "x"}), "lacks machine: threads"),
    "another status": (lambda p: change(p, status="fine"), "status 'fine', expected one of ok"),
    "another recipe": (lambda p: change(p, recipe=TINY.but(steps=5).whole()), f"not {TINY.key}"),
    "a recipe of no time": (lambda p: change(p, recipe=TINY.whole() | {"augmentation": 1}), "augmentation"),
    "a part that is gone": (lambda p: change(p, recipe=TINY.whole() | {"method": "simsiam.SamSim"}), "SamSim"),
    "renamed": (lambda p: p.rename(p.with_name("renamed-s0.json")), "holds the run"),
    "another seed": (lambda p: change(p, seed=7), f"holds the run {TINY.key}-s7"),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_file_that_is_no_record_is_named_and_breaks_no_table(folders, damage, capsys):
    good, path = write_record(record(seed=1)), write_record(record())
    do, word = BAD[damage]
    do(path)
    shelf = read_shelf()
    assert list(shelf.records) == [(TINY.key, 1)] and len(shelf.problems) == 1
    bad = next(p.name for p in records_dir().iterdir() if p != good)
    assert shelf.problems[0].startswith(f"{bad}: ") and word in shelf.problems[0]
    assert len(ledger.verdicts(["simsiam-9"], shelf)) == 1
    assert cli.main(["claims", "simsiam-9"]) == 0
    said = capsys.readouterr()
    assert said.err == f"left out: {shelf.problems[0]}\n" and "simsiam-9" in said.out


def test_other_files_beside_the_records_are_left_alone(folders):
    write_record(record())
    for name in ("README.md", ".x.json.7-8.part", "notes.txt"):
        (records_dir() / name).write_text("{")
    assert len(read_shelf().records) == 1 and not read_shelf().problems


def test_a_folder_that_is_not_there_is_an_empty_shelf(folders):
    assert read_shelf().records == {} and read_shelf().of(TINY.key) == {}


def test_a_folder_that_was_named_and_is_none_is_a_problem(folders, monkeypatch):
    file = folders / "file"
    file.write_text("")
    for given, path in ((None, records_dir()), (folders / "no", folders / "no"), (file, file)):
        assert read_shelf(given).problems == (f"{path}: is no folder; name the one that holds the records, or make it.",)
    monkeypatch.delenv("SIMSIAM_EXPLAINED_RECORDS")
    monkeypatch.setattr(records, "records_dir", lambda: folders / "no")      # a clone that has none yet
    assert not read_shelf().problems


def test_the_shelf_gives_the_seeds_in_order(folders):
    for seed in (10, 2, 0):
        write_record(record(seed=seed))
    write_record(record(TINY.but(steps=9)))
    assert list(read_shelf().of(TINY.key)) == [0, 2, 10]


def test_an_install_without_its_clone_asks_for_a_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("SIMSIAM_EXPLAINED_RECORDS", raising=False)
    assert records_dir() == OURS
    monkeypatch.setattr(records, "__file__", str(tmp_path / "simsiam_explained" / "records.py"))
    with pytest.raises(FileNotFoundError, match="SIMSIAM_EXPLAINED_RECORDS"):
        records_dir()


# ---- those of the repository

@pytest.mark.skipif(not OURS.is_dir(), reason="this copy of the sources has no data/records")
def test_our_records_are_readable_and_each_belongs_to_a_claim():
    shelf = read_shelf(OURS)
    assert not shelf.problems and shelf.records
    asked = {recipe.key for claim in claims().values() for scale in SCALES for recipe in claim.recipes(scale).values()}
    assert {record.name for record in shelf.records.values() if record.key not in asked} == set()
    for made in shelf.records.values():
        assert all(1 <= len(curve) <= POINTS for curve in made.curves.values()) and made.status != "stopped"
        steps = [step for step, _ in made.curves["loss"]]
        assert steps[0] == 1 and (steps[-1] == made.recipe["steps"] or made.status == "diverged")
        assert all(sigma == sorted(sigma, reverse=True) for sigma in made.spectra.values())
        assert made.rules and set(made.rules) <= set(claims())
