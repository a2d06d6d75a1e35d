"""The loop: its rates, its groups, its order, its memory, and what it refuses."""
import math
import pickle
import signal
import threading
import time
import zipfile
from collections import namedtuple
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simsiam_explained import checks, memory, training
from simsiam_explained.encoders import resnet
from simsiam_explained.images import Images, textures
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import (Diverged, Plan, fit, load_checkpoint, lr_at, make_optimiser, save_checkpoint,
                                        set_lr, shuffled)
from simsiam_explained.views import make_views

Out = namedtuple("Out", "loss z1 z2")


class Noisy:
    """The smallest views: two noisy copies."""

    def __call__(self, pixels, generator):
        x = self.clean(pixels)
        return tuple(x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device) for _ in range(2))

    def clean(self, pixels):
        return pixels.float() / 128 - 1


class Tiny(nn.Module):
    """A siamese net with all that a memory can lose: BN buffers, dropout, a group of its own."""

    def __init__(self, pairs=1, dropout=0.2, bad_at=None):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(dropout),
                                          nn.ReLU())
            self.projector, self.predictor = nn.Linear(8, 6), nn.Linear(6, 6)
        self.views_per_image, self.bad_at, self.seen, self.after = 2 * pairs, bad_at, [], []

    def param_groups(self):
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        return [{"params": encoder, "constant_lr": False}, {"params": self.predictor.parameters(), "constant_lr": True}]

    def forward(self, *xs):
        self.seen.append(len(xs))
        z = [self.projector(self.backbone(x)) for x in xs]
        loss = -F.cosine_similarity(self.predictor(z[0]), z[1].detach()).mean()
        if self.bad_at is not None and len(self.seen) >= self.bad_at:
            loss = loss * math.inf
        return Out(loss, z[0], z[1])

    def after_step(self, step, steps):
        self.after.append((step, steps))


def made(n=40, labels=None):
    pixels = torch.randint(256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Images(pixels, labels, name="noise")


def go(method=None, images=None, **change):
    """A run of 12 steps of 8: an epoch is 5 steps, so that 7 lies in the middle of one."""
    settings = {"steps": 12, "batch": 8, "base_lr": 1.0, "every": 4, "device": "cpu", "progress": False} | change
    return fit(method or Tiny(), made() if images is None else images, Noisy(), **settings)


def same(a, b):
    """True if two runs agree to the bit: weights, buffers and every curve that is not a time."""
    one, two = a.method.state_dict(), b.method.state_dict()
    curves = (set(a.history) | set(b.history)) - {"images/s"}
    return all(torch.equal(one[k], two[k]) for k in one) and all(a.history[c] == b.history[c] for c in curves)


def stopping(order, after, times=1):
    """The order, and Ctrl-C while the batch of step `after` is drawn."""
    for step, batch in enumerate(order, 1):
        for _ in range(times if step == after else 0):
            signal.raise_signal(signal.SIGINT)
        yield batch


def stopped_at(after, **change):
    return go(order=stopping(shuffled(40, 8), after), **change)


# rates

def test_the_cosine_is_the_papers():
    assert lr_at(0, 10) == 1 and lr_at(5, 10) == pytest.approx(0.5) and lr_at(10, 10) == pytest.approx(0, abs=1e-12)
    assert lr_at(4, 10) == pytest.approx(0.6545, abs=5e-5)         # claim 7: at 0.4 of the run
    assert lr_at(7, 20, 0.3) == pytest.approx(0.15 * (1 + math.cos(math.pi * 7 / 20)))


def test_per_epoch_the_rate_moves_once_an_epoch_and_never_reaches_zero():
    rates = [lr_at(s, 100 * 97, 0.1, hold=97) for s in range(100 * 97)]
    for e in range(100):
        assert rates[e * 97:(e + 1) * 97] == pytest.approx([0.05 * (1 + math.cos(math.pi * e / 100))] * 97)
    assert rates[-1] > 0


def test_warm_up_is_a_straight_ramp_then_the_schedule_begins():
    rates = [lr_at(s, 30, warmup=10) for s in range(30)]
    assert rates[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert rates[10:] == pytest.approx([lr_at(s, 20) for s in range(20)])
    assert [lr_at(s, 30, warmup=10, schedule="constant") for s in (9, 10, 29)] == [1, 1, 1]
    assert lr_at(0, 30, warmup=10, hold=5) == lr_at(4, 30, warmup=10, hold=5) == 0.5


def test_the_rate_scales_with_the_batch():
    assert Plan(1).lr0 == 0.05 and Plan(1, batch=512).lr0 == 0.1
    assert Plan(1, batch=512, base_lr=0.03).lr0 == pytest.approx(0.06)    # SimSiam App. D


def test_the_constant_group_keeps_lr0_while_the_encoder_follows_the_cosine():
    run = go(every=1, warmup=2)
    lr0 = 8 / 256
    assert run.curve("constant_lr") == (list(range(1, 13)), [lr0] * 12)
    assert run.curve("lr")[1] == pytest.approx([lr_at(s, 12, lr0, 2) for s in range(12)])


def test_the_groups_of_the_optimiser_get_those_rates():
    optimiser = make_optimiser(Tiny(), Plan(10, 256))
    rates = set_lr(optimiser, Plan(10, 256), 4)
    assert [g["lr"] for g in optimiser.param_groups] == [pytest.approx(0.6545 * 0.05, abs=5e-6), 0.05]
    assert rates == {"lr": optimiser.param_groups[0]["lr"], "constant_lr": 0.05}
    held = set_lr(optimiser, Plan(10, 256, per="epoch"), 4, epoch=3)
    assert held["lr"] == pytest.approx(lr_at(3, 10, 0.05))


def test_weight_decay_spares_vectors_only_if_asked():
    both = [g["weight_decay"] for g in make_optimiser(Tiny(), Plan(1)).param_groups]
    assert both == [1e-4, 1e-4]
    for group in make_optimiser(Tiny(), Plan(1, decay="no_norm_bias")).param_groups:
        assert group["params"] and all((w.ndim < 2) == (group["weight_decay"] == 0) for w in group["params"])
    count = sum(len(g["params"]) for g in make_optimiser(Tiny(), Plan(1, decay="no_norm_bias")).param_groups)
    assert count == len(list(Tiny().parameters()))


def test_a_group_may_have_its_own_weight_decay():
    method, weight = nn.Linear(2, 2), nn.Parameter(torch.ones(2))
    method.param_groups = lambda: [{"params": [weight], "weight_decay": 0.0}, {"params": method.parameters()}]
    assert [g["weight_decay"] for g in make_optimiser(method, Plan(1, weight_decay=0.1)).param_groups] == [0.0, 0.1]


def test_a_method_without_groups_is_one_group_of_what_can_be_trained():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    (group,) = make_optimiser(net, Plan(1)).param_groups
    assert len(group["params"]) == 2 and group["constant_lr"] is False
    with pytest.raises(ValueError, match="no trainable weights"):
        make_optimiser(net.requires_grad_(False), Plan(1))


# the loop

def test_fit_equals_the_loop_written_out(device):
    run = go(steps=7, device=device.type, autocast="float32", method=Tiny(dropout=0.0))
    method, images = Tiny(dropout=0.0).to(device), made().to(device)
    groups = method.param_groups()
    sgd = torch.optim.SGD([{"params": list(g["params"])} for g in groups], lr=1, momentum=0.9, weight_decay=1e-4)
    generator, losses = torch.Generator(device).manual_seed(0), []
    for step, batch in enumerate(islice(shuffled(40, 8), 7)):
        sgd.param_groups[0]["lr"] = 8 / 256 * 0.5 * (1 + math.cos(math.pi * step / 7))
        sgd.param_groups[1]["lr"] = 8 / 256
        loss = method(*Noisy()(images.pixels[batch.to(device)], generator)).loss
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    assert run.curve("loss")[1] == pytest.approx(losses, abs=1e-7 if device.type == "cpu" else 1e-4)
    for mine, theirs in zip(method.parameters(), run.method.parameters()):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_the_loss_is_kept_for_every_step_and_the_rest_at_log_points(device):
    run = go(steps=10, device=device.type, evaluate=lambda m: {"norm": float(m.predictor.weight.detach().norm())})
    assert run.curve("loss")[0] == list(range(1, 11))
    assert [run.curve(c)[0] for c in ("lr", "std", "norm", "images/s")] == [[4, 8, 10]] * 4
    assert (run.status, run.step, run.images, run.checkpoint) == ("done", 10, 80, None)
    assert 0 < run.last("std") <= 1 and run.images_per_second == pytest.approx(80 / run.seconds)
    with pytest.raises(ValueError, match="Did you mean 'loss'"):
        run.curve("los")


def test_a_method_with_four_views_gets_four_and_hears_of_each_step():
    method = Tiny(pairs=2)
    go(method)
    assert method.seen == [4] * 12 and method.after == [(s, 12) for s in range(12)]


def test_a_seed_is_a_run_and_another_seed_another():
    assert same(go(), go())
    assert go().history["loss"] != go(seed=1).history["loss"]


def test_the_callers_random_state_is_left_alone(device):
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.cuda.get_rng_state() if device.type == "cuda" else None
    go(device=device.type)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] is None or torch.equal(before[1], torch.cuda.get_rng_state())


def test_evaluation_leaves_no_trace_in_the_training():
    method = Tiny()
    method.predictor.eval()                                        # fit puts all in train mode, once

    def rude(net):
        assert not any(m.training for m in net.modules())
        net.train()
        torch.rand(3)
        net(*Noisy()(made().pixels, torch.Generator()))            # moves BN's buffers
        net.seen.pop()
        return {"kNN": 0.5}

    looked = go(method, evaluate=rude)
    assert all(m.training for m in looked.method.modules())
    looked.history.pop("kNN")
    assert same(looked, go())


def test_a_part_that_was_put_in_eval_mode_stays_there_after_a_look():
    net = Tiny()
    net.backbone[2].eval()
    with memory.undisturbed(net, torch.device("cpu")):
        assert not net.training
    assert net.training and not net.backbone[2].training


def test_the_clock_stands_still_during_evaluation():
    start = time.perf_counter()
    run = go(evaluate=lambda m: time.sleep(0.1) or {})
    assert time.perf_counter() - start > run.seconds + 0.25


def test_evaluate_may_not_write_the_loops_own_curves():
    with pytest.raises(ValueError, match=r"\['loss'\]"):
        go(evaluate=lambda m: {"loss": 0.0})


def test_the_untrained_copy_is_from_before_the_first_step():
    run, fresh = go(), Tiny().state_dict()
    assert all(torch.equal(v, fresh[k]) for k, v in run.initial.state_dict().items())


def test_bfloat16_is_used_when_asked(device):
    kinds = []
    method = Tiny()
    method.projector.register_forward_hook(lambda m, i, out: kinds.append(out.dtype))
    go(method, steps=1, autocast="bfloat16", device=device.type)
    go(method, steps=1, autocast="float32", device=device.type)
    assert kinds == [torch.bfloat16] * 2 + [torch.float32] * 2
    assert next(method.parameters()).dtype == torch.float32


def test_compile_is_handed_to_torch(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda m: lambda *xs: m(*xs))
    assert same(go(compile=True), go())


def test_silence_and_announcement(capsys):
    go()
    assert capsys.readouterr() == ("", "")
    go(progress=True, base_lr=0.05)
    out, err = capsys.readouterr()
    assert "lr 0.001563 = 0.05 × 8/256" in out and "12 steps of 8 = 2.4 epochs of 40 images" in out and "threads" in out
    assert "12/12" in err


def test_more_threads_than_cores_is_a_warning(monkeypatch):
    monkeypatch.setattr(training, "usable_cores", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    with pytest.warns(UserWarning, match=r"4 threads.*1 cores.*set_num_threads\(1\)"):
        go(steps=1)


# the order

def test_shuffled_shows_every_image_once_an_epoch_and_the_same_each_time():
    batches = list(islice(shuffled(43, 8, seed=3), 15))
    epochs = [torch.cat(batches[i:i + 5]) for i in (0, 5, 10)]
    for epoch in epochs:
        assert len(epoch.unique()) == 40 and epoch.max() < 43      # 3 images sit out, others each time
    assert len({frozenset(e.tolist()) for e in epochs}) == 3
    assert all(torch.equal(a, b) for a, b in zip(batches, shuffled(43, 8, seed=3)))
    assert not torch.equal(batches[0], next(iter(shuffled(43, 8, seed=4))))


def test_an_order_of_ones_own_is_followed():
    assert same(go(order=[b.tolist() for b in islice(shuffled(40, 8), 12)]), go())
    assert not same(go(order=[np.arange(8)] * 12), go())


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_whole_numbers_of_any_kind_are_indices(kind):
    narrow = [b.to(kind) for b in islice(shuffled(40, 8), 12)]      # of uint8 torch would make a mask
    stopped = go(order=stopping(narrow, 7))
    assert same(go(order=narrow), go()) and same(go(resume=stopped, order=narrow), go())


@pytest.mark.parametrize("order, kind, text", [
    ((range(8) for _ in range(5)), ValueError, "ended after 5 batches, but steps=12"),
    ([[*range(7), 40]] * 12, IndexError, "asks for image 40, but the images are numbered 0 to 39"),
    ([[*range(7), -1]] * 12, IndexError, "asks for image -1"),
    ([torch.rand(8)] * 12, TypeError, "torch.float32"),
    ([torch.ones(8, dtype=torch.bool)] * 12, TypeError, "torch.bool"),
    ([[range(8)]] * 12, TypeError, r"shape \(1, 8\)"),
    ([range(16)] * 12, ValueError, "has 16 indices, but batch=8"),
])
def test_an_order_that_cannot_be_followed_is_an_error(order, kind, text):
    with pytest.raises(kind, match=text):
        go(order=order)


def test_a_method_with_a_memory_is_told_the_batch_before_each_step():
    class Told(Tiny):
        def before_step(self, batch):
            told.append((len(self.seen), batch))

    told = []
    go(Told(), steps=6)
    assert [seen for seen, _ in told] == [0, 1, 2, 3, 4, 5]
    assert all(torch.equal(batch, known) for (_, batch), known in zip(told, shuffled(40, 8), strict=False))


# what is refused before the first step

@pytest.mark.parametrize("change, kind, text", [
    ({"batch": 64}, ValueError, "only 40 images"), ({"batch": 1}, ValueError, "at least 2"),
    ({"steps": 0}, ValueError, "steps: got 0"), ({"steps": 2.5}, TypeError, "steps: got 2.5"),
    ({"base_lr": math.nan}, ValueError, "base_lr: got nan"), ({"weight_decay": -1}, ValueError, "weight_decay: got -1"),
    ({"warmup": 12}, ValueError, "warmup: got 12 of 12"), ({"schedule": "cosin"}, ValueError, "Did you mean 'cosine'"),
    ({"decay": "none"}, ValueError, "decay: got 'none'"), ({"per": "epochs"}, ValueError, "Did you mean 'epoch'"),
    ({"autocast": "bf16"}, ValueError, "Did you mean 'bfloat16'"), ({"device": "gpu"}, ValueError, "device: got 'gpu'"),
    ({"every": 0}, ValueError, "every: got 0"), ({"save_every": 5}, ValueError, "checkpoint='run.pt'"),
    ({"images": torch.zeros(40, 1, 4, 4)}, TypeError, "from_tensor"), ({"seed": -1}, ValueError, "seed: got -1"),
    ({"seed": 0.5}, ValueError, "seed: got 0.5"), ({"base_lr": "0.1"}, ValueError, "base_lr: got '0.1'"),
    ({"save_every": 0, "checkpoint": "run.pt"}, ValueError, "save_every: got 0"),
    ({"method": "simsiam"}, TypeError, "method str.*SimSiam"),
    ({"evaluate": lambda method: None}, TypeError, "evaluate: returned NoneType"),
    ({"limit": 0}, ValueError, "limit: got 0, expected seconds > 0"),
    ({"limit": math.nan}, ValueError, "limit: got nan"),
    ({"limit": "9m"}, ValueError, "limit: got '9m'"), ({"limit": True}, ValueError, "limit: got True"),
    ({"base_lr": True}, ValueError, "base_lr: got True"), ({"momentum": 1.5}, ValueError, "momentum: got 1.5.*below 1"),
    ({"momentum": 1.0, "optimiser": "adamw"}, ValueError, "momentum: got 1.0"),
    ({"method": Tiny().backbone}, TypeError, r"Sequential.forward cannot take 2 views.*SimSiam\(backbone\)"),
])
def test_a_request_that_cannot_be_met_is_an_error(change, kind, text):
    with pytest.raises(kind, match=text):
        go(**change)


@pytest.mark.parametrize("change, kind, text", [
    ({"order": [range(8)] * 11}, ValueError, "it has 11 batches, but steps=12"),
    ({"order": iter([range(8)] * 11)}, ValueError, "it has 11 batches, but steps=12"),
    ({"evaluate": "knn"}, TypeError, "evaluate: got 'knn', expected a function"),
])
def test_what_is_known_to_fail_later_is_said_before_training(change, kind, text):
    method = Tiny()
    with pytest.raises(kind, match=text):
        go(method, **change)
    assert method.seen == []


def test_a_method_that_returns_no_loss_is_told_so():
    class Bare(Tiny):
        def forward(self, *xs):
            return super().forward(*xs).loss

    with pytest.raises(TypeError, match="Bare.forward returned a Tensor, expected an object with .loss"):
        go(Bare())


def test_numbers_of_numpy_are_numbers_and_booleans_are_none(tmp_path):
    numpy = {"steps": np.int64(12), "batch": np.int32(8), "base_lr": np.float32(1), "seed": np.int64(0)}
    assert same(go(**numpy, checkpoint=tmp_path / "run.pt"), go()) and go(resume=tmp_path / "run.pt").status == "done"
    for check in (checks.positive, checks.whole):
        assert type(check("n", np.int64(2))) is int
        with pytest.raises((TypeError, ValueError), match="n: got True"):
            check("n", True)
    assert type(checks.number("x", np.float32(0.5), 0)) is float == type(checks.number("x", 1, 0))


def test_of_very_many_names_the_nearest_are_told():
    with pytest.raises(ValueError, match="of 300 names. Did you mean 'name7' or 'name.*' or 'name") as caught:
        checks.one_of("what", "nam7", [f"name{i}" for i in range(300)])
    assert len(str(caught.value)) < 120


def test_what_does_not_fit_together_is_an_error_that_says_what_to_change():
    grey, colour = (Images(torch.zeros(40, c, 8, 8, dtype=torch.uint8)) for c in (1, 3))
    method = SimSiam(resnet(2, (1,), channels=1), dim=8)
    with pytest.raises(ValueError, match="made for 1 channel.*resnet.channels="):
        fit(method, colour, make_views("cifar"), steps=1, batch=8, progress=False, device="cpu")
    with pytest.raises(ValueError, match="batch: got 256, but there are only 40 images; give a smaller batch"):
        fit(method, grey, make_views("cifar"), steps=1, progress=False, device="cpu")
    with pytest.raises(TypeError, match="views 'cifar'.*make_views"):
        fit(method, grey, "cifar", steps=1, batch=8, progress=False, device="cpu")


@pytest.mark.parametrize("where", ["", "no/such/folder/run.pt", "file/run.pt"])
def test_a_checkpoint_that_cannot_be_written_is_said_before_training(tmp_path, where):
    (tmp_path / "file").write_text("not a folder")
    method = Tiny()
    with pytest.raises(OSError, match="checkpoint: cannot write"):
        go(method, checkpoint=tmp_path / where)
    assert method.seen == []


# divergence

def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_place(tmp_path, device):
    with pytest.raises(Diverged) as caught:
        go(Tiny(bad_at=7), checkpoint=tmp_path / "run.pt", device=device.type)
    run, batch = caught.value.run, list(islice(shuffled(40, 8), 7))[-1]
    lr = lr_at(6, 12, 8 / 256)
    for part in ("inf at step 7 of 12", f"lr {lr:.4g}", str(batch.tolist()), "after step 4"):
        assert part in str(caught.value)
    assert (run.status, run.step, run.curve("loss")[0], run.checkpoint["step"]) == ("diverged", 7, [*range(1, 7)], 4)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 4
    assert all(torch.isfinite(v).all() for v in run.checkpoint["method"].values())
    if device.type == "cpu":
        assert same(go(resume=run), go())                          # from the last good state, with a net that behaves


def test_a_real_divergence_is_caught():
    with pytest.raises(FloatingPointError, match="lower base_lr"):
        go(base_lr=1e30)


# Ctrl-C

def test_ctrl_c_finishes_the_step_and_leaves_a_run_that_can_go_on(capsys):
    before = signal.getsignal(signal.SIGINT)
    run = stopped_at(7, progress=True)
    assert (run.status, run.step, run.checkpoint["step"]) == ("stopped", 7, 7)
    assert "stopped after step 7 of 12" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts_at_once():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(order=stopping(shuffled(40, 8), 7, times=2))
    assert signal.getsignal(signal.SIGINT) is before


# a limit of time

class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(training, "time", self)

    def perf_counter(self):
        return self.now


def ticking(order, clock):
    """The order, and a second more on the clock with each batch."""
    for batch in order:
        clock.now += 1
        yield batch


def test_a_limit_stops_after_the_step_in_which_it_passes_and_the_run_can_go_on(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    run = go(order=ticking(shuffled(40, 8), clock), limit=4.5, checkpoint=tmp_path / "run.pt")
    assert (run.status, run.step, load_checkpoint(tmp_path / "run.pt")["step"]) == ("stopped", 5, 5)
    run = go(order=ticking(shuffled(40, 8), clock), limit=100, resume=tmp_path / "run.pt")
    monkeypatch.undo()
    assert run.status == "done" and same(run, go())


def test_a_limit_that_passes_in_the_last_step_leaves_a_run_that_is_done(monkeypatch):
    clock = Clock(monkeypatch)
    assert go(order=ticking(shuffled(40, 8), clock), limit=11.5).status == "done"
    assert go(order=ticking(shuffled(40, 8), clock), limit=1e-9).step == 1         # never none
    assert go(order=ticking(shuffled(40, 8), clock), limit=math.inf).status == "done"


def test_a_limit_on_any_device_is_kept(device):
    run = go(steps=10**6, limit=0.3, device=device.type)
    assert run.status == "stopped" and 0 < run.step < 10**6 and run.seconds < 20


def test_fit_runs_in_a_thread_too():
    runs = []
    worker = threading.Thread(target=lambda: runs.append(go()))
    worker.start()
    worker.join()
    assert same(runs[0], go())


# memory

@pytest.mark.parametrize("after", [1, 4, 7, 11])     # first, a log point, within an epoch, the last but one
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, after):
    path = tmp_path / "run.pt"
    stopped, whole = stopped_at(after, checkpoint=path), go()
    from_file = go(resume=path)
    from_memory = go(stopped.method, resume=stopped)
    assert same(from_file, whole) and same(from_memory, whole)
    assert from_file.status == "done" and from_file.images == 96 and from_file.seconds > 0
    assert all(torch.equal(v, whole.initial.state_dict()[k]) for k, v in from_memory.initial.state_dict().items())
    assert same(go(resume=stopped), whole)                         # a checkpoint in memory serves twice


def test_a_run_on_any_device_goes_on_close_by(tmp_path, device):
    stopped_at(7, checkpoint=tmp_path / "run.pt", device=device.type)
    run, whole = go(resume=tmp_path / "run.pt", device=device.type), go(device=device.type)
    assert run.curve("loss")[1] == pytest.approx(whole.curve("loss")[1], abs=1e-3)


@pytest.mark.parametrize("lost", ["optimiser", "views_rng", "torch_rng", "method"])
def test_each_part_of_the_memory_is_needed(lost):
    stopped, fresh = stopped_at(7), stopped_at(1)
    stopped.checkpoint[lost] = fresh.checkpoint[lost]
    assert not same(go(resume=stopped), go())


def test_a_run_that_dies_is_resumed_from_its_latest_save(tmp_path):
    def dying():
        yield from islice(shuffled(40, 8), 9)
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="power"):
        go(order=dying(), checkpoint=tmp_path / "run.pt", save_every=3)
    assert load_checkpoint(tmp_path / "run.pt")["step"] == 9
    assert same(go(resume=tmp_path / "run.pt"), go())


def test_a_run_that_fails_leaves_its_last_good_state(tmp_path):
    def failing(method, after=len):
        if after(method.seen) > 8:
            raise RuntimeError("a mistake")
        return {}

    path = tmp_path / "run.pt"
    with pytest.raises(RuntimeError, match="a mistake"):
        go(evaluate=failing, checkpoint=path)
    assert load_checkpoint(path)["step"] == 8 and same(go(resume=path), go())
    with pytest.raises(RuntimeError, match="a mistake"):
        go(evaluate=lambda m: failing(m, lambda seen: 9), checkpoint=path)       # at its first look: nothing newer
    assert load_checkpoint(path)["step"] == 8


def test_a_done_run_has_nothing_left_to_do(tmp_path):
    whole = go(checkpoint=tmp_path / "run.pt")
    again = go(resume=tmp_path / "run.pt")
    assert same(again, whole) and again.method.seen == [] and again.status == "done"
    with pytest.raises(ValueError, match="this run is done at step 12 and holds no checkpoint"):
        go(resume=whole)


@pytest.mark.parametrize("change, name", [
    ({"base_lr": 0.5}, "base_lr=1.0, this call has base_lr=0.5"), ({"steps": 13}, "steps=12"), ({"seed": 1}, "seed=0"),
    ({"images": made(48)}, "images='40 noise"), ({"autocast": "bfloat16"}, "bf16=False"),
    ({"method": type("Other", (Tiny,), {})()}, "method='Tiny of"),
    ({"method": Tiny(dropout=0.3)}, "method='Tiny of 248 weights, layers "),
    ({"images": Images(255 - made().pixels, name="noise")}, r"images='40 noise \(1, 4, 4\), pixels "),
])
def test_a_checkpoint_of_another_run_is_refused_by_the_name_of_what_differs(change, name):
    with pytest.raises(ValueError, match=name):
        go(resume=stopped_at(7), **change)


def test_a_checkpoint_of_the_same_net_with_another_switch_is_refused(tmp_path):
    images, views = textures(64, size=8), make_views("textures")

    def go_on(resume=None, **switches):
        method = SimSiam(resnet(2, (1,), channels=1, seed=0), dim=8, **switches)
        return fit(method, images, views, steps=2, batch=32, progress=False, device="cpu", resume=resume,
                   checkpoint=tmp_path / "run.pt")

    go_on()
    assert go_on(resume=tmp_path / "run.pt").status == "done"
    for switch, name in [({"stop_gradient": False}, "stop_gradient='True'"), ({"similarity": "cross_entropy"}, "similarity"),
                         ({"symmetry": "asymmetric"}, "pairs"), ({"predictor_lr": "scheduled"}, "predictor_lr")]:
        with pytest.raises(ValueError, match=f"made with method.{name}"):
            go_on(resume=tmp_path / "run.pt", **switch)


def test_the_description_of_large_sets_and_of_nets_with_functions_is_quick_and_the_same_each_time(monkeypatch):
    digest, seen = memory.digest, []
    monkeypatch.setattr(memory, "digest", lambda pixels: seen.append(len(pixels)) or digest(pixels))

    class Named(Tiny):
        def extra_repr(self):
            return repr(lambda x: x)

    large = Images(torch.zeros(1, dtype=torch.uint8).expand(10**6, 1, 96, 96), name="large")   # 9 GB, were it there
    one, two = (memory.described(Plan(1), Named(), large, Noisy(), torch.device("cpu"), False) for _ in range(2))
    assert one == two and max(seen) <= 2000


def test_another_order_is_noticed():
    with pytest.raises(ValueError, match="batch 7 is not the one that the checkpoint saw"):
        go(resume=stopped_at(7), order=shuffled(40, 8, seed=9))


@pytest.fixture
def saved(tmp_path):
    stopped_at(2, checkpoint=tmp_path / "run.pt")
    return tmp_path / "run.pt"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_an_error(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ValueError, match="truncated or no PyTorch file"):
        go(resume=saved)


def test_a_byte_that_has_changed_in_a_checkpoint_is_noticed(saved):
    raw = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        weights = archive.read(next(name for name in archive.namelist() if name.endswith("data/0")))
    raw[raw.index(weights)] ^= 1
    saved.write_bytes(raw)
    with pytest.raises(ValueError, match="damaged.*data/0 has changed"):
        go(resume=saved)


@pytest.mark.parametrize("name, value", [
    ("history", None), ("config", None), ("views_rng", torch.zeros(5)), ("step", "a"), ("step", 99), ("step", -1),
    ("images", None), ("seconds", "a"), ("batch", None), ("method", None), ("optimiser", 3)])
def test_a_checkpoint_whose_parts_cannot_be_is_an_error(saved, name, value):
    save_checkpoint(load_checkpoint(saved) | {name: value}, saved)
    with pytest.raises(ValueError, match="resume: the"):
        go(resume=saved)


class Evil:
    def __reduce__(self):
        return (print, ("code of a checkpoint ran",))


def test_a_foreign_checkpoint_is_an_error_and_runs_no_code(tmp_path, capsys):
    torch.save(Tiny().state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="was not written by fit"):
        load_checkpoint(tmp_path / "weights.pt")
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "text.pt").write_text("hello")
    for name in ("evil.pt", "plain.pkl", "text.pt"):
        with pytest.raises(ValueError, match="truncated or no PyTorch file"):
            load_checkpoint(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_an_older_checkpoint_a_newer_one_and_a_missing_one_are_errors(saved):
    save_checkpoint(load_checkpoint(saved) | {"schema": memory.SCHEMA - 1}, saved)
    with pytest.raises(ValueError, match=f"schema {memory.SCHEMA - 1}.*reads {memory.SCHEMA}; go on with the version"):
        go(resume=saved)
    save_checkpoint(torch.load(saved, weights_only=True) | {"schema": memory.SCHEMA + 1}, saved)
    with pytest.raises(ValueError, match=f"schema {memory.SCHEMA + 1}.*update simsiam_explained"):
        go(resume=saved)
    save_checkpoint({k: v for k, v in torch.load(saved, weights_only=True).items() if k != "schema"}, saved)
    with pytest.raises(ValueError, match="was not written by fit"):
        go(resume=saved)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_checkpoint(saved.parent)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        go(resume=saved.with_name("none.pt"))


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_rubbish(saved, monkeypatch):
    def half(state, file):
        file.write(b"half")
        raise OSError("disk full")

    before = saved.read_bytes()
    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint({}, saved)
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == ["run.pt"]
