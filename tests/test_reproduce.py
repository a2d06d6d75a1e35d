"""Making records: one run, the queue that stops and goes on, two processes at one queue, and proof by repeating."""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from evidence_kit import TINY, record
from filelock import FileLock

from simsiam_explained import evidence, records, reproduce, runs
from simsiam_explained.evidence import Claim, Lower, claims
from simsiam_explained.images import from_tensor, load_images
from simsiam_explained.memory import load_checkpoint, save_checkpoint
from simsiam_explained.moco_v3 import stability
from simsiam_explained.origin import code_version, digest
from simsiam_explained.records import Shelf, read_record, read_shelf, records_dir, write_record
from simsiam_explained.reproduce import in_processes, missing, queue, verify
from simsiam_explained.runs import run_recipe
from simsiam_explained.training import fit, shuffled
from simsiam_explained.views import make_views


@pytest.fixture
def tiny(monkeypatch, folders):
    """All claims of the chapters at their smallest, in empty folders."""
    monkeypatch.setattr(evidence, "base", lambda scale: TINY)
    return folders


@pytest.fixture(scope="module")
def made():
    """(record, method) of one tiny run."""
    return run_recipe(TINY, 0, device="cpu", claims_of=claims(["simsiam-9"]).values())


def files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def go(**more):
    return reproduce.reproduce("small", ["simsiam-9"], **{"seeds": 1, "device": "cpu"} | more)


def cut(*given, **more):
    """run_recipe, when the time is up as soon as it begins: it takes one step, and stops."""
    return run_recipe(*given, **more | {"limit": 0.0})


# ---- one run

def test_a_run_becomes_a_whole_record(made, folders):
    made, method = made
    assert made.key == TINY.key and made.status in ("ok", "collapsed") and made.rules == {
        "simsiam-9": claims(["simsiam-9"])["simsiam-9"].rule_hash}
    assert set(made.final) == set(made.untrained) == {
        "loss", "std", "AUC", "rank", "kNN", "linear", "projector kNN", "rankme", "alpha", "uniformity", "m_o",
        "layers"}
    assert [step for step, _ in made.curves["loss"]] == [1, 2, 3, 4]
    assert {"kNN", "AUC", "rank", "std", "images/s", "lr"} <= set(made.curves)
    assert set(made.spectra) == {"backbone", "projector", "untrained backbone", "untrained projector"}
    assert len(made.spectra["backbone"]) == method.backbone.dim and made.code == code_version()
    assert made.images_per_second == pytest.approx(4 * 16 / made.wall) and 50 < made.peak_memory < 20_000
    back = read_record(write_record(made))
    assert back.final["kNN"] == pytest.approx(made.final["kNN"], rel=1e-5) and back.digest == made.digest


def test_the_figures_are_of_the_last_step_and_of_before_the_first(made):
    made, method = made
    train, test, _ = runs._data(TINY.images, TINY.n, TINY.size, "cpu")
    views = TINY.make_views()
    last, _ = runs._figures(method, train, test, views)
    assert last["kNN"] == made.final["kNN"] and last["std"] == made.final["std"]
    start, _ = runs._figures(runs.untrained(TINY.build(0), train, views), train, test, views)
    assert start["kNN"] == made.untrained["kNN"] and start["std"] == made.untrained["std"] != last["std"]
    losses = [loss for _, loss in made.curves["loss"]]
    assert made.final["loss"] == pytest.approx(sum(losses) / 4) and made.untrained["loss"] == losses[0]


def test_a_run_is_the_same_each_time_and_its_seed_and_recipe_matter(made):
    again = run_recipe(TINY, 0, device="cpu")[0]
    assert again.digest == made[0].digest and again.final == made[0].final and again.untrained == made[0].untrained
    assert run_recipe(TINY, 1, device="cpu")[0].digest != again.digest
    assert run_recipe(TINY.but(weight_decay=0.1), 0, device="cpu")[0].digest != again.digest


def test_a_run_on_any_device(device):
    made, _ = run_recipe(TINY.but(autocast="bfloat16"), 0, device=str(device))
    assert made.machine["device"] == device.type and math.isfinite(made.final["kNN"])
    assert made.peak_memory > 0 and made.flops == run_recipe(TINY, 0, device=str(device))[0].flops


def test_what_was_compiled_before_is_forgotten_first(monkeypatch):
    """torch compiles eight nets of a class and runs the ninth as it is: the arms of one queue are more."""
    did = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: did.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda net: did.append("compile") or net)
    made, _ = run_recipe(TINY, 0, device="cpu", compile=True)
    assert did == ["reset", "compile"] and made.machine["compile"]


def test_long_curves_are_thinned_to_their_ends(monkeypatch):
    monkeypatch.setattr(runs, "thin", partial(records.thin, points=3))
    made = run_recipe(TINY.but(steps=9), 0, device="cpu")[0]
    assert [step for step, _ in made.curves["loss"]] == [1, 5, 9] == [step for step, _ in made.curves["kNN"]]


def test_a_run_that_diverges_is_a_record_without_final_figures(tiny):
    made, _ = run_recipe(TINY.but(base_lr=1e30, bn="none", steps=8), 0, device="cpu")
    assert made.status == "diverged" and math.isnan(made.final["kNN"]) and math.isfinite(made.untrained["kNN"])
    assert set(made.spectra) == {"untrained backbone", "untrained projector"} and set(made.final) == set(made.untrained)
    back = read_record(write_record(made))
    assert math.isnan(back.final["loss"]) and back.row["status"] == "diverged"
    assert read_shelf().of(made.key) == {0: back}                   # whole: it is not run again


def test_weights_that_overflow_at_the_very_last_step_are_seen(monkeypatch):
    fit = runs.fit

    def broken(*given, **more):
        run = fit(*given, **more)
        with torch.no_grad():
            next(run.method.parameters()).view(-1)[0] = math.inf
        return run
    monkeypatch.setattr(runs, "fit", broken)
    assert run_recipe(TINY, 0, device="cpu")[0].status == "diverged"


def test_a_look_at_a_net_that_has_overflowed_does_not_raise():
    train, test, _ = runs._data(TINY.images, TINY.n, TINY.size, "cpu")
    net = TINY.build()
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)
    assert all(math.isnan(v) for v in runs._watch(train, test, TINY.make_views())(net).values())


def test_a_watched_run_is_the_same_run_and_tells_of_its_stability(made, tmp_path):
    recipe, at = TINY.but(steps=90), tmp_path / "run.ckpt"
    plain, (watched, _) = run_recipe(recipe, 0, device="cpu")[0], run_recipe(recipe.but(watch=10), 0, device="cpu", checkpoint=at)
    assert watched.digest == plain.digest and watched.key != plain.key and not at.exists()
    told = {name: watched.final.pop(name) for name in watched.final.keys() - plain.final.keys()}
    assert watched.final == plain.final and told.keys() == stability([0.5], [0.5], [], []).keys()
    assert [step for step, _ in watched.curves["bank kNN"]] == [80] and 0 <= told["bank fall"] < 1
    assert [step for step, _ in watched.curves["gradient, first layer"]] == list(range(1, 91))
    assert read_record(write_record(watched, tmp_path)).curves["renewed kNN"][0] == pytest.approx(watched.curves["renewed kNN"][0])
    with pytest.raises(ValueError, match="watch: its kNN needs the labels"):
        recipe.but(watch=10, images="cifar10", unlabelled="cifar100")


def test_a_watched_run_that_was_cut_is_said_to_begin_again(folders, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "run_recipe", cut)
    for recipe, told in ((TINY, "the same command goes on"), (TINY.but(watch=10), "begins it again: give more time")):
        job = reproduce.Job(recipe, 0, ("simsiam-9",), 1.0)
        assert reproduce._make(job, 1.0, "cpu", False, ()).status == "stopped"
        assert told in capsys.readouterr().out


def test_unlabelled_images_are_trained_on_and_seen_by_no_probe(made):
    """The weights are those of a plain fit on all pixels; what is probed, settled and measured is what it was before."""
    recipe, views = TINY.but(unlabelled="digits"), make_views("textures")
    joined, method = run_recipe(recipe, 0, device="cpu")
    train, test = load_images("textures", n=TINY.n, size=TINY.size)
    pixels = torch.cat([train.pixels, load_images("digits", size=TINY.size)[0].pixels])
    plain = fit(recipe.build(0), from_tensor(pixels), views, order=shuffled(96 + 1438, 16, 0), device="cpu",
                autocast="float32", progress=False, **{name: getattr(recipe, name) for name in runs.PLAN})
    assert joined.digest == digest(plain.method) != made[0].digest and joined.data == digest(pixels)
    assert {k: v for k, v in joined.untrained.items() if k != "loss"} == {
        k: v for k, v in made[0].untrained.items() if k != "loss"}
    row, _ = runs._figures(plain.method, train, test, views)
    assert {k: joined.final[k] for k in row} == row
    last = runs._watch(train, test, views)(method)
    assert {name: joined.curves[name][-1][1] for name in last} == last


# ---- the queue

def test_the_queue_goes_by_priority_and_brings_all_arms_of_a_seed_together(tiny):
    jobs = queue("small", seeds=2)
    order = [min(claims()[name].priority for name in job.claims) for job in jobs]
    assert order == sorted(order) and len({job.name for job in jobs}) == len(jobs)
    first = queue("small", ["simsiam-9"], seeds=3)
    on, off = (recipe.key for recipe in claims()["simsiam-9"].recipes("small").values())
    assert [job.name for job in first] == [f"{key}-s{seed}" for seed in range(3) for key in (on, off)]
    assert "simsiam-10" not in first[0].claims and {"simsiam-9", "simsiam-9-chance"} <= set(first[0].claims)
    assert all(job.seconds > 0 for job in jobs)


def test_what_is_on_the_shelf_is_not_in_the_queue(tiny):
    on, off = claims()["simsiam-9"].recipes("small").values()
    runs_there = record(on, 0), record(off, 1), record(on, 1, status="stopped")
    there = Shelf({(r.key, r.seed): r for r in runs_there})
    assert [job.name for job in queue("small", ["simsiam-9"], 2, there)] == [f"{off.key}-s0", f"{on.key}-s1"]


def test_long_claims_wait_for_a_fast_machine():
    slow, fast = (queue("full", ["simsiam-21"], 1, speed=speed) for speed in (29_999, 30_000))
    assert slow == [] and [job.claims for job in fast] == [("simsiam-21",)]


@pytest.mark.parametrize("given, word", [
    (("tiny",), "'live', 'small', 'full'"), (("small", ["simsiam-99"]), "simsiam-9"),
    (("small", [], 0), "seeds: got 0")])
def test_a_queue_that_cannot_be_is_refused(given, word):
    with pytest.raises(ValueError, match=word):
        queue(*given)


def test_records_are_made_once(tiny, capsys):
    made = go()
    assert len(made) == 2 and len(read_shelf().records) == 2 and not read_shelf().problems
    assert files(tiny / "data") == sorted(f"{r.name}.json" for r in made) and not files(tiny / "cache")
    assert made[0].rules["simsiam-9"] == claims()["simsiam-9"].rule_hash and "simsiam-9-chance" in made[0].rules
    said = capsys.readouterr().out
    assert all(f"{r.name} {r.status}: loss" in said for r in made)
    assert go() == [] and len(go(seeds=2)) == 2


def test_an_unsound_record_is_neither_made_again_nor_in_the_way(tiny, capsys):
    on, off = claims()["simsiam-9"].recipes("small").values()
    path = write_record(record(on))
    path.write_text("{")
    assert [r.key for r in go()] == [off.key]
    assert path.read_text() == "{" and f"left out: {path} is no sound record" in capsys.readouterr().out


def test_a_budget_that_is_spent_begins_nothing(tiny, capsys):
    assert go(budget=0) == [] and "the budget is spent; the same command goes on" in capsys.readouterr().out


def test_a_stopped_run_goes_on_at_the_next_call_to_the_same_bits(tiny, monkeypatch, made, capsys):
    name = f"{TINY.key}-s0"
    with monkeypatch.context() as no_time:
        no_time.setattr(reproduce, "run_recipe", cut)
        for steps in (1, 2, 3, 4, 4):                # the last step, and then no time for the probes
            assert go() == [] and files(tiny) == [f"{name}.ckpt", f"{name}.origin"]
            assert load_checkpoint(tiny / "cache" / "runs" / f"{name}.ckpt")["step"] == steps
            assert f"{name} stopped; the same command goes on" in capsys.readouterr().out
    assert "  begun" in missing("small", ["simsiam-9"], 1, "cpu")
    whole = go()
    assert whole[0].digest == made[0].digest and whole[0].final == made[0].final and not files(tiny / "cache")


def test_a_budget_leaves_time_for_the_last_probes(monkeypatch):
    """The probes before the first step tell how long those after the last will take; `fit` gets what is left."""
    figures, fit, limits = runs._figures, runs.fit, []

    def noted(*given, limit, **more):
        limits.append(limit)
        return fit(*given, limit=limit, **more)
    monkeypatch.setattr(runs, "_figures", lambda *given: (time.sleep(1.0), figures(*given))[1])
    monkeypatch.setattr(runs, "fit", noted)
    monkeypatch.setattr(runs, "_STARTS", {})
    for _ in range(2):                       # the second time the figures are known, and so is the time they take
        run_recipe(TINY, 0, device="cpu", limit=60.0)
    assert all(20 < limit < 60 - 1.3 for limit in limits) and limits[0] < 60 - 2.3


def test_the_figures_of_a_start_are_measured_once_and_only_for_the_same_weights(monkeypatch):
    figures, asked = runs._figures, []
    monkeypatch.setattr(runs, "_figures", lambda net, *given: (asked.append(1), figures(net, *given))[1])
    monkeypatch.setattr(runs, "_STARTS", {})
    one = run_recipe(TINY, 0, device="cpu")[0]
    for changes, seed, measured in (({"weight_decay": 0.1}, 0, 1), ({}, 1, 2), ({"dim": 12}, 0, 2)):
        asked.clear()
        other = run_recipe(TINY.but(**changes), seed, device="cpu")[0]
        assert len(asked) == measured and (measured == 2 or other.untrained | {"loss": 0} == one.untrained | {"loss": 0})


def test_a_failed_run_does_not_stop_the_others_and_is_named(tiny, monkeypatch, capsys):
    real = reproduce.run_recipe

    def fails(recipe, *given, **more):
        if recipe == TINY:
            raise RuntimeError("out of memory")
        return real(recipe, *given, **more)
    monkeypatch.setattr(reproduce, "run_recipe", fails)
    with pytest.raises(ValueError, match=f"1 runs failed, for the reasons above: {TINY.key}-s0; 1 made"):
        go()
    assert f"{TINY.key}-s0 failed: out of memory" in capsys.readouterr().out and len(read_shelf().records) == 1


def test_a_fault_of_the_disk_or_the_network_stops_the_queue(tiny, monkeypatch):
    monkeypatch.setattr(reproduce, "run_recipe", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no route")))
    with pytest.raises(ConnectionError):
        go()


# ---- what is left over from before

@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with the checkpoint of a run that has taken one step."""
    folder = tmp_path_factory.mktemp("stopped")
    assert cut(TINY, 0, device="cpu", checkpoint=folder / "run.ckpt")[0].status == "stopped"
    return folder


def rewrite(path, **fields):
    """Change a checkpoint's fields; None takes one away."""
    state = load_checkpoint(path)
    fields = {k: state[k] | v if k == "config" else v for k, v in fields.items()}
    save_checkpoint({k: v for k, v in (state | fields).items() if v is not None}, path)


@pytest.mark.parametrize("damage, word", [
    (lambda p: p.write_bytes(p.read_bytes()[:1000]), "truncated"), (lambda p: p.write_bytes(b""), "truncated"),
    (lambda p: rewrite(p, config={"base_lr": 9.0}), "base_lr=9.0"), (lambda p: rewrite(p, schema=99), "schema 99"),
    (lambda p: rewrite(p, method={"another.weight": torch.ones(1)}), "does not fit"),
    (lambda p: rewrite(p, views_rng=None), "does not fit"),
    (lambda p: torch.save([1, 2], p), "was not written by fit"),
    (lambda p: p.with_suffix(".origin").unlink(), "with which code and rules"),
    (lambda p: p.with_suffix(".origin").write_text("{"), "with which code and rules"),
    (lambda p: p.with_suffix(".origin").write_text("[]"), "with which code and rules"),
], ids=["truncated", "empty", "other settings", "newer", "other net", "lost state", "foreign", "no origin",
        "bad origin", "odd origin"])
def test_a_bad_checkpoint_is_set_aside_and_the_run_starts_afresh(tmp_path, stopped, made, capsys, damage, word):
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "run.ckpt"
    damage(path)
    afresh, _ = run_recipe(TINY, 0, device="cpu", checkpoint=path)
    said = capsys.readouterr().out
    assert word in said and f"{path}.damaged" in said and "starts afresh" in said
    assert (tmp_path / "run.ckpt.damaged").is_file()                                          # nothing is lost
    assert afresh.digest == made[0].digest and len(afresh.curves["loss"]) == 4


def test_a_fault_that_is_not_the_checkpoints_is_raised(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "fit", lambda *_, **__: (_ for _ in ()).throw(ValueError("order: it ended")))
    with pytest.raises(ValueError, match="it ended"):
        run_recipe(TINY, 0, device="cpu", checkpoint=tmp_path / "run.ckpt")
    assert not list(tmp_path.glob("*.damaged"))


def test_a_run_keeps_the_code_and_the_rules_that_it_began_with(tmp_path, monkeypatch):
    path, rule = tmp_path / "run.ckpt", Claim("simsiam-9", "It falls.", "§", rule=(Lower("kNN", "a", "b"),))
    cut(TINY, 0, device="cpu", checkpoint=path, claims_of=[rule])
    softer = replace(rule, rule=(Lower("kNN", "b", "a"),))
    assert run_recipe(TINY, 0, device="cpu", checkpoint=path, claims_of=[softer])[0].rules == {rule.id: rule.rule_hash}
    monkeypatch.setattr(runs, "code_version", lambda: "newer")
    assert run_recipe(TINY, 0, device="cpu", checkpoint=path)[0].code == f"{code_version()}, then newer"


# ---- more than one process

def test_a_run_that_another_process_is_at_is_left_to_it(tiny):
    (tiny / "cache" / "runs").mkdir(parents=True)
    with FileLock(tiny / "cache" / "runs" / f"{TINY.key}-s0.ckpt.lock"):
        assert [r.key for r in go()] != [TINY.key] and len(read_shelf().records) == 1
    assert [r.key for r in go()] == [TINY.key]


@pytest.fixture
def tiny_everywhere(tiny, monkeypatch):
    """The same for child processes: a sitecustomize makes the recipes tiny there."""
    (tiny / "site").mkdir()
    (tiny / "site" / "sitecustomize.py").write_text(
        "import sys; sys.path.insert(0, {tests!r})\nfrom evidence_kit import TINY\n"
        "from simsiam_explained import evidence\nevidence.base = lambda scale: TINY.but(steps={steps})\n".format(
            tests=os.path.dirname(__file__), steps=4))
    monkeypatch.setenv("PYTHONPATH", str(tiny / "site"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tiny


def test_two_processes_at_one_queue_never_run_the_same_recipe(tiny_everywhere, capfd):
    command = ["reproduce", "simsiam-9", "simsiam-10", "--scale", "small", "--seeds", "2", "--device", "cpu"]
    assert in_processes(2, command) == 0
    said, wanted = capfd.readouterr().out, {job.name for job in queue("small", ["simsiam-9", "simsiam-10"], 2)}
    begun = [line.split()[1] for line in said.splitlines() if "s of training" in line]
    assert sorted(begun) == sorted(wanted) and len(wanted) == 8                        # each once
    assert {r.name for r in read_shelf().records.values()} == wanted and not read_shelf().problems
    counts = [int(line.split()[0]) for line in said.splitlines() if line.endswith("records made")]
    assert len(counts) == 2 and sum(counts) == 8


def test_the_worst_exit_code_counts(tiny):
    assert in_processes(2, ["reproduce", "simsiam-99"]) == 2


def test_ctrl_c_keeps_the_state_of_the_run_and_the_same_command_goes_on(tiny_everywhere, made):
    """The signal is real, and so are the processes: a parent and the two that it starts. They hear it even where these
    tests run in the background of a shell, which has its children ignore Ctrl-C."""
    site = tiny_everywhere / "site" / "sitecustomize.py"
    site.write_text(site.read_text().replace("steps=4", "steps=20_000"))       # a minute, should the signal be lost
    command = [sys.executable, "-m", "simsiam_explained.cli", "reproduce", "simsiam-9", "--scale", "small", "--seeds",
               "1", "--jobs", "2", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    soon = time.monotonic() + 100
    try:
        while len(list(tiny_everywhere.rglob("*.origin"))) < 2 and time.monotonic() < soon:    # both begin to train
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130 and err.count("interrupted") == 3 and "Traceback" not in err, err
    assert out.count("interrupted; the same command goes on") == 2, out
    kept = sorted((tiny_everywhere / "cache" / "runs").glob("*.ckpt"))
    assert len(kept) == 2 and all(0 < load_checkpoint(p)["step"] < 20_000 for p in kept) and not records_dir().exists()


# ---- proof by repeating

def test_the_same_machine_gives_the_same_bits(tiny, made):
    write_record(made[0])
    for name in (made[0].name, made[0].key):
        assert verify(name, "cpu") == (True, f"{made[0].name}: the same to the bit")


def other(made, **final):
    """The record of `made` as of another machine, with other bits and other figures."""
    return replace(made, digest="0", machine=made.machine | {"name": "abacus"}, final=made.final | final)


def spread(made, by):
    """The same for three seeds whose figures lie `by` apart."""
    figures = [{m: made.final[m] + i * by for m in ("loss", "std", "kNN")} for i in range(3)]
    return [replace(other(made, **f), seed=i) for i, f in enumerate(figures)]


def test_other_bits_on_the_same_machine_are_no_agreement(tiny, made):
    write_record(replace(made[0], digest="0"))
    agrees, told = verify(made[0].name)
    assert not agrees and "not the same bits" in told


@pytest.mark.parametrize("change, what", [({"code": "older"}, "code"), ({"data": "others"}, "images")])
def test_what_is_other_is_said(tiny, made, change, what):
    write_record(replace(made[0], digest="0", **change))
    agrees, told = verify(made[0].name)
    assert not agrees and f"other bits (other {what})" in told and "1 seeds give no spread" in told


@pytest.mark.parametrize("far, agrees", [(0.0, True), (2.5, True), (3.5, False)])
def test_on_another_machine_three_standard_deviations_decide(tiny, made, far, agrees):
    for one in spread(made[0], by=0.01):      # a standard deviation of 0.01, all `far` of them off in kNN
        write_record(replace(one, final=one.final | {"kNN": one.final["kNN"] + far * 0.01}))
    found, told = verify(made[0].key, "cpu")
    assert found is agrees and f"kNN {far:.1f}" in told and "other name" in told


def test_divergence_agrees_with_divergence_only(tiny, made):
    nothing = dict.fromkeys(made[0].final, math.nan) | {"layers": {}}
    write_record(replace(other(made[0]), status="diverged", final=nothing))
    agrees, told = verify(made[0].name, "cpu")
    assert not agrees and f"{made[0].status} here, diverged there" in told


def test_what_is_no_record_cannot_be_verified(tiny, made):
    write_record(made[0])
    with pytest.raises(ValueError, match=f"did you mean {made[0].key}"):
        verify(made[0].key[:-1])
    with pytest.raises(ValueError, match="none of the 1 records"):
        verify("zzz")


def test_the_whole_record_is_small_json(made, folders):
    assert json.loads(write_record(made[0]).read_text())["seeds"] == {"init": 0, "order": 0, "views": 0}
    assert write_record(made[0]).stat().st_size < 60_000
