"""Sinkhorn's sums and limit, the swapped loss against a naive loop, gradients, queue, centre, teacher, refusals."""
import copy
import math

import pytest
import torch
from nets import Pixels, two_views
from torch.nn import functional as F

from simsiam_explained.codes import DINO, Prototypes, SwAV, entropies, sinkhorn, swapped_loss, use_of
from simsiam_explained.encoders import resnet
from simsiam_explained.images import textures
from simsiam_explained.training import fit
from simsiam_explained.views import make_views


SMALL = dict(prototypes=7, dim=8, hidden=10, shape=(3, 4, 4))


def swav(device="cpu", **switches):
    return SwAV(Pixels(), **SMALL | {"frozen": 0} | switches).double().to(device)


def dino(device="cpu", **switches):
    return DINO(Pixels(), **SMALL | switches).double().to(device)


def cosines(*shape, seed=0):
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def step(method, xs, lr=0.1, number=0):
    optimiser = torch.optim.SGD(method.param_groups(), lr=lr, momentum=0.9, weight_decay=0.1)
    out = method(*xs)
    out.loss.backward()
    optimiser.step()
    method.zero_grad()
    method.after_step(number, 10)
    return out


# ---- Sinkhorn ----

def as_the_paper_writes_it(scores, eps, rounds):
    """SwAV's algorithm, entry by entry: Q is prototypes × samples, rows to 1/K, columns to 1/B, in the end times B."""
    n, k = scores.shape
    Q = [[math.exp(scores[j, i] / eps) for j in range(n)] for i in range(k)]
    total = sum(map(sum, Q))
    Q = [[q / total for q in row] for row in Q]
    for _ in range(rounds):
        Q = [[q / sum(row) / k for q in row] for row in Q]
        columns = [sum(row[j] for row in Q) for j in range(n)]
        Q = [[row[j] / columns[j] / n for j in range(n)] for row in Q]
    return torch.tensor(Q, dtype=torch.float64).T * n


@pytest.mark.parametrize("rounds", [1, 2, 3, 10])
def test_sinkhorn_is_the_papers_algorithm(device, rounds):
    scores = cosines(6, 4)
    ours = sinkhorn(scores.to(device), 0.05, rounds).cpu()
    assert torch.allclose(ours, as_the_paper_writes_it(scores, 0.05, rounds), atol=1e-12)


def test_rows_sum_to_one_and_columns_come_to_equal_shares():
    scores, lopsided = cosines(24, 6, seed=2), []
    scores[:, 0] += 0.5                                        # everybody's favourite
    for rounds in (0, 1, 3, 10, 400):
        q = sinkhorn(scores, 0.1, rounds)
        assert torch.allclose(q.sum(1), torch.ones(24, dtype=torch.float64), atol=1e-12)
        lopsided.append(float((q.sum(0) - 24 / 6).abs().max()))
    assert lopsided == sorted(lopsided, reverse=True) and lopsided[0] > 5 and lopsided[-1] < 1e-9


def test_the_limit_is_the_scores_scaled_by_rows_and_columns():
    scores = cosines(9, 5, seed=3)
    ratio = sinkhorn(scores, 0.2, 500).log() - scores / 0.2    # u_i + v_j, nothing else
    assert (ratio - ratio[:1] - ratio[:, :1] + ratio[0, 0]).abs().max() < 1e-9


def test_without_rounds_it_is_a_softmax_and_one_round_is_a_softmax_over_the_batch():
    scores = cosines(10, 4)
    assert torch.allclose(sinkhorn(scores, 0.05, 0), (scores / 0.05).softmax(1))
    one = (scores / 0.05).softmax(0)                           # DINO App. B: two lines
    assert torch.allclose(sinkhorn(scores, 0.05, 1), one / one.sum(1, keepdim=True))


def test_sinkhorn_takes_leading_dimensions_and_does_not_overflow():
    scores = cosines(3, 8, 4)
    assert torch.allclose(sinkhorn(scores)[1], sinkhorn(scores[1]))
    assert torch.isfinite(sinkhorn(1e4 * scores.float(), 0.01)).all()


def test_sinkhorn_refuses_what_would_be_nan():
    for wrong in (0, -0.05, math.nan):
        with pytest.raises(ValueError, match=f"eps: got {wrong}, expected a number from 1e-06"):
            sinkhorn(cosines(4, 3), wrong)


def test_equal_scores_give_uniform_codes_whatever_the_rounds():
    for rounds in (0, 1, 3):
        assert torch.allclose(sinkhorn(torch.ones(5, 4), 0.05, rounds), torch.full((5, 4), 0.25))


def test_a_constant_network_cannot_tell_by_its_codes():
    """All images alike: equal shares force uniform codes, though one prototype is everybody's nearest."""
    alike = cosines(1, 6).expand(12, 6)
    assert torch.allclose(sinkhorn(alike, 0.05, 1), torch.full((12, 6), 1 / 6, dtype=torch.float64))
    assert sinkhorn(alike, 0.05, 0).max() > 0.8


# ---- the loss and its two parts ----

def test_the_loss_is_that_of_a_naive_loop(device):
    s1, s2 = cosines(5, 4), cosines(5, 4, seed=1)
    q1, q2 = sinkhorn(s1), sinkhorn(s2)
    naive = 0.0
    for q, s in ((q1, s2), (q2, s1)):
        for i in range(5):
            total = sum(math.exp(v / 0.1) for v in s[i])
            naive -= sum(float(q[i, k]) * math.log(math.exp(s[i, k] / 0.1) / total) for k in range(4)) / 5 / 2
    ours = swapped_loss([q1.to(device), q2.to(device)], [s1.to(device), s2.to(device)], 0.1)
    assert float(ours) == pytest.approx(naive, rel=1e-12)


def test_cross_entropy_is_entropy_plus_divergence():
    q, log_p = sinkhorn(cosines(6, 5)), (cosines(6, 5, seed=4) / 0.1).log_softmax(1)
    seen = entropies(q, log_p)
    by_hand = sum(float(q[i, k] * (q[i, k].log() - log_p[i, k])) for i in range(6) for k in range(5)) / 6
    assert float(seen.kl) == pytest.approx(by_hand, rel=1e-9) and by_hand > 0
    assert float(seen.cross) == pytest.approx(float(seen.own + seen.kl), rel=1e-12)
    assert float(entropies(q, q.log()).kl) == pytest.approx(0, abs=1e-12)


def test_entropies_of_one_hot_and_uniform_codes():
    hot, flat = F.one_hot(torch.tensor([0, 2, 2]), 4).double(), torch.full((3, 4), 0.25, dtype=torch.float64)
    assert float(entropies(hot, flat.log()).own) == 0
    assert float(entropies(flat, flat.log()).own) == pytest.approx(math.log(4))
    assert float(entropies(hot, flat.log()).cross) == pytest.approx(math.log(4))


def test_use_of_codes_in_the_three_states():
    k = 8
    healthy = use_of(torch.eye(k, dtype=torch.float64).repeat(3, 1))
    one_hot = use_of(F.one_hot(torch.zeros(9, dtype=torch.long), k).double())
    uniform = use_of(torch.full((9, k), 1 / k))
    assert [float(v) for v in healthy] == pytest.approx([0, 1, 1])
    assert [float(v) for v in one_hot] == pytest.approx([0, 0, 0], abs=1e-9)
    assert [float(v) for v in uniform] == pytest.approx([1, 1, 0], abs=1e-6)


# ---- the methods ----

@pytest.mark.parametrize("target", ["online", "ema"])
def test_a_predictor_stands_before_the_students_scores_only(target):
    method, xs = swav(predictor="linear", target=target), two_views()
    out = method(*xs)
    w = method.prototypes.weight
    plain, predicted = (F.normalize(v, dim=1) @ w.T for v in (out.z1, method.predictor(out.z1)))
    assert torch.allclose(out.q1, sinkhorn(plain.detach())) and torch.allclose(out.p1, (predicted / 0.1).log_softmax(1))


def test_swavs_loss_from_its_parts(device):
    method, xs = swav(device), two_views(device)
    out = method(*xs)
    w = method.prototypes.weight
    s = [F.normalize(method.projector(method.backbone(x)), dim=1) @ w.T for x in xs]
    expected = -sum((sinkhorn(a.detach()) * (b / 0.1).log_softmax(1)).sum(1).mean() for a, b in (s, s[::-1])) / 2
    assert float(out.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert torch.allclose(out.q1, sinkhorn(s[0].detach())) and torch.allclose(out.p2, (s[1] / 0.1).log_softmax(1))


def test_no_gradient_passes_the_codes(device):
    method, xs = swav(device), two_views(device)
    out = method(*xs)
    assert not out.q1.requires_grad and not out.q2.requires_grad
    loose = swav(device, stop_gradient=False)
    assert loose(*xs).q1.requires_grad
    gradients = []
    for m in (method, loose):
        m(*xs).loss.backward()
        gradients.append(m.backbone.layer.weight.grad)
    assert not torch.allclose(*gradients)


def test_no_gradient_reaches_the_teacher_and_no_optimiser_holds_it(device):
    method, xs = dino(device), two_views(device)
    method(*xs).loss.backward()
    assert all(w.grad is None and not w.requires_grad for w in method.target.parameters())
    held = {id(w) for group in method.param_groups() for w in group["params"]}
    assert not held & {id(w) for w in method.target.parameters()} and id(method.prototypes.weight) in held


def test_the_teacher_follows_with_its_prototypes(device):
    method, xs = dino(device, tau=0.75, tau_schedule="constant"), two_views(device)
    before = copy.deepcopy(method.target)
    step(method, xs)
    weights = (net.parameters() for net in (before, method.target, method.online))
    for old, now, online in zip(*weights, strict=True):
        assert torch.allclose(now, 0.75 * old + 0.25 * online)
    assert len(method.target) == 3 and not torch.equal(method.target[2].weight, before[2].weight)


def test_dinos_codes_come_from_the_teacher_less_the_centre(device):
    method, xs = dino(device), two_views(device)
    step(method, xs, lr=1.0)
    with torch.no_grad():
        q = ((method.target(xs[0]) - method.centre) / 0.04).softmax(1)
    assert method.centre.abs().max() > 0 and torch.allclose(method(*xs).q1, q)


def test_the_centre_is_a_running_mean_of_raw_scores(device):
    method, xs = dino(device, centre_momentum=0.9, tau=1.0), two_views(device)
    for k in range(3):
        step(method, xs, lr=0.0, number=k)
    with torch.no_grad():
        mean = torch.cat([method.target(x) for x in xs]).mean(0)
    assert torch.allclose(method.centre, (1 - 0.9**3) * mean, atol=1e-10)
    off = dino(device, centring=False)
    step(off, xs)
    assert not off.centre.any()


def test_prototypes_stay_frozen_at_first_then_move_on_the_sphere(device):
    method, xs = swav(device, frozen=2), two_views(device)
    start = method.prototypes.weight.detach().clone()
    optimiser = torch.optim.SGD(method.param_groups(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for k in range(4):
        optimiser.zero_grad()
        method(*xs).loss.backward()
        optimiser.step()
        method.after_step(k, 4)
        w = method.prototypes.weight
        assert torch.allclose(w, start, atol=1e-6) == (k < 2), "frozen for two steps, decay and momentum included"
        assert torch.allclose(w.norm(dim=1), w.new_ones(7))


def test_the_queue_keeps_the_newest_first_and_drops_the_oldest(device):
    method, seen = swav(device, queue=10), []
    for k in range(4):
        xs = two_views(device, batch=4, seed=k)
        seen.insert(0, torch.stack([F.normalize(z.detach(), dim=1) for z in step(method, xs, lr=0.0, number=k)[1:3]]))
        expected = torch.cat(seen, 1)[:, :10]
        filled, empty = method.queue.tensor_split([expected.shape[1]], 1)
        assert torch.allclose(filled, expected) and not empty.any()


def test_a_queue_shares_the_prototypes_only_when_it_is_full_and_due():
    plain, early, late = swav(), swav(queue=8), swav(queue=8, queue_from=3)
    for k in range(4):
        xs = two_views(batch=4, seed=k)
        q = [step(m, xs, lr=0.0, number=k).q1 for m in (plain, early, late)]
        assert all(v.shape == (4, 7) for v in q)
        assert torch.allclose(q[0], q[1]) == (k < 2) and torch.allclose(q[0], q[2]) == (k < 3)
    with torch.no_grad():                                     # by hand: the queue's scores first, its rows dropped
        z = [F.normalize(early.projector(early.backbone(two_views(batch=4, seed=k)[0])), dim=1) for k in (3, 2, 1)]
        together = sinkhorn(torch.cat([z[1], z[2], z[0]]) @ early.prototypes.weight.T)[-4:]
    assert torch.allclose(q[1], together)


def test_the_memory_of_a_method_is_in_its_state():
    method, xs = swav(queue=16, centring=True), two_views()
    step(method, xs)
    other = swav(queue=16, centring=True)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(*xs).loss, other(*xs).loss) and int(other.steps_done) == 1


def test_swav_and_dino_differ_by_arguments_alone():
    xs = two_views()
    as_dino = swav(rounds=0, centring=True, eps=0.04, target="ema", layers=3, bn="none")
    assert torch.equal(as_dino(*xs).loss, dino()(*xs).loss)


@pytest.mark.parametrize("make, switches", [(swav, {"queue": 16}), (swav, {"target": "ema"}), (dino, {})])
def test_under_autocast_all_scores_are_those_of_float32_from_the_same_outputs(make, switches):
    method, xs, outputs = make(**switches).float(), [x.float() for x in two_views()], []
    step(method, xs, lr=0.0)                                  # now the queue is full, or the centre has moved
    teacher = method.online if method.target is None else method.target
    teacher[1].register_forward_hook(lambda *seen: outputs.append(seen[-1]))
    with torch.autocast("cpu", torch.bfloat16):
        out = method(*xs)
    assert out.z1.dtype == outputs[0].dtype == torch.bfloat16
    assert {v.dtype for v in (out.loss, *out[3:])} == {torch.float32}
    for q, z, past in zip(out[5:], outputs, method.queue):
        scores = torch.cat([past, F.normalize(z.float(), dim=1)]) @ teacher[2].weight.T
        assert torch.allclose(q, sinkhorn(scores - method.centre, method.eps, method.rounds)[-16:], atol=1e-5)
    for p, z in zip(out[3:5], out[1:3]):
        scores = F.normalize(z.float(), dim=1) @ method.prototypes.weight.T
        assert torch.allclose(p, (scores / 0.1).log_softmax(1), atol=1e-5)


def test_a_predictor_of_codes_runs_under_autocast():
    method, xs = swav(predictor="linear").float(), [x.float() for x in two_views()]
    with torch.autocast("cpu", torch.bfloat16):
        out = method(*xs)
    assert out.p1.dtype == out.q1.dtype == torch.float32 and torch.allclose(out.loss, method(*xs).loss, rtol=0.02)


def test_scores_that_no_code_needs_are_not_made():
    method, made = swav(predictor="linear", target="ema"), []
    method.prototypes.register_forward_hook(lambda *seen: made.append(seen))
    method(*two_views())
    assert len(made) == 2                                     # of the predictions; the codes are the teacher's


def test_with_free_prototypes_and_no_queue_nobody_reads_the_count_of_steps():
    """To read a number of the device is to wait for all its work, in each step."""
    for method in (swav(), dino()):
        method.steps_done = method.steps_done.to("meta")      # what it holds cannot be read
        assert torch.isfinite(method(*two_views()).loss)


@pytest.mark.parametrize("method, switches", [("SwAV", {"queue": 96}), ("DINO", {"bn": "hidden"})])
def test_fit_trains_it_and_goes_on_to_the_bit(tmp_path, device, method, switches):
    images, views = textures(96, size=16), make_views("textures")

    def fresh():
        backbone = resnet(4, (1,), stem="stride2", channels=1, seed=0)
        return {"SwAV": SwAV, "DINO": DINO}[method](backbone, prototypes=6, dim=8, hidden=8, frozen=1, **switches)

    plan = dict(steps=6, batch=32, base_lr=0.2, every=3, device=device, autocast="float32", progress=False)
    whole = fit(fresh(), images, views, **plan)
    half = tmp_path / "half.pt"

    class Stop(Exception):
        pass

    def look(_, calls=[]):
        calls.append(0)
        if len(calls) == 2:
            raise Stop
        return {}

    with pytest.raises(Stop):
        fit(fresh(), images, views, checkpoint=str(half), save_every=3, evaluate=look, **plan)
    again = fit(fresh(), images, views, resume=str(half), evaluate=lambda _: {}, **plan)
    near = 0 if device.type == "cpu" else 1e-3         # a GPU adds in any order
    assert again.curve("loss")[1][-3:] == pytest.approx(whole.curve("loss")[1][-3:], abs=near)


@pytest.mark.parametrize("switches, told", [
    ({"target": "random"}, "expected one of 'ema', 'copy', 'online'"),
    ({"target": "ema", "stop_gradient": False}, "use target='online'"),
    ({"target": "ema", "queue": 8}, "use target='online'"),
    ({"eps": 0}, "eps: got 0"), ({"temperature": -1}, "temperature: got -1"), ({"prototypes": 0}, "prototypes: got 0"),
    ({"rounds": -1}, "rounds: got -1"), ({"queue": -8}, "queue: got -8"),
    ({"stop_gradient": "no"}, "stop_gradient: got 'no'"), ({"centre_momentum": 5.0}, "centre_momentum: got 5.0")])
def test_what_cannot_be_is_refused(switches, told):
    with pytest.raises((TypeError, ValueError), match=told):
        swav(**switches)


def test_prototypes_are_their_seeds():
    assert torch.equal(Prototypes(4, 3, 5).weight, Prototypes(4, 3, 5).weight)
    assert not torch.equal(Prototypes(4, 3, 5).weight, Prototypes(4, 3, 6).weight)


# ---- another library, where it is installed: no extra of ours, as it brings Lightning and hydra ----

def test_swav_against_lightly():
    lightly = pytest.importorskip("lightly.loss.swav_loss")
    s, past = [cosines(12, 5, seed=k).float() for k in (0, 1)], [cosines(9, 5, seed=k).float() for k in (2, 3)]
    assert torch.allclose(lightly.sinkhorn(s[0], 3, 0.05, False), sinkhorn(s[0]), atol=1e-5)
    theirs = lightly.SwaVLoss(temperature=0.1)(s, [])
    assert torch.allclose(theirs, swapped_loss([sinkhorn(v) for v in s], s), atol=1e-5)


def test_dino_against_lightly():
    lightly = pytest.importorskip("lightly.loss")
    student, teacher = ([cosines(12, 5, seed=k).float() for k in pair] for pair in ((0, 1), (2, 3)))
    loss = lightly.DINOLoss(5, warmup_teacher_temp=0.04, teacher_temp=0.04, student_temp=0.1, center_momentum=0.9)
    centre = torch.zeros(5)
    for _ in range(3):
        ours = swapped_loss([sinkhorn(t - centre, 0.04, 0) for t in teacher], student, 0.1)
        assert torch.allclose(loss(teacher, student), ours, atol=1e-5)
        centre = centre.lerp(torch.cat(teacher).mean(0), 0.1)
