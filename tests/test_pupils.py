"""Pupils in the vector world: each against BYOL itself, torch's SGD and its own loop; what is measured, by hand."""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simsiam_explained import pupils
from simsiam_explained.byol import BYOL, byol_loss
from simsiam_explained.micro import Setting, VectorWorld, encode, first_weights
from simsiam_explained.pupils import HEADS, TARGETS, Pupil, train_pupils
from simsiam_explained.training import lr_at
from simsiam_explained.world import batches

WORLD, SMALL = VectorWorld(content=3, style=5, images=60), Setting(batch=12, width=10, dim=8, lr=0.2)
PUPILS = {"BYOL": {}, "copy": {"tau": 0.0}, "random": {"target": "random"}, "none": {"predictor": "none"},
          "linear": {"predictor": "linear", "weight_decay": 0.1}, "negatives": {"beta": 1.0, "temperature": 0.3},
          "raw": {"normalise": False}, "rates": {"tau": 0.5, "predictor_factor": 3.0, "projector_factor": 0.5},
          "BN on the output": {"bn": "default"}, "SimCLR": {"target": "online", "predictor": "none", "beta": 1.0},
          "solved": {"tau": 0.0, "predictor": "optimal"},
          "solved, raw": {"tau": 0.0, "predictor": "optimal", "normalise": False}}


def load(net, w, names):
    """Give the linear layers of `net`, in their order, and the BN behind each the weights `names` of chapter 00."""
    names, name = iter(names), ""
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            name = next(names)
            layer.weight.data = w[name].float()
            if layer.bias is not None:
                layer.bias.data = w.get(f"{name}_bias", w[f"{name}_offset"])[:, 0].float()
        elif isinstance(layer, nn.BatchNorm1d):
            layer.weight.data, layer.bias.data = (w[f"{name}_{of}"][:, 0].float() for of in ("scale", "offset"))


def alone(pupil, seed, steps):
    """Return the weight of the backbone and of its target after training with torch's own parts."""
    switches = {k: getattr(pupil, k) for k in ("target", "tau", "predictor", "bn", "beta", "temperature", "normalise",
                                               "predictor_factor", "projector_factor")}
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(WORLD.size, SMALL.width, bias=False), nn.BatchNorm1d(SMALL.width), nn.ReLU())
    method = BYOL(backbone, **switches, dim=SMALL.dim, hidden=SMALL.width, predictor_hidden=SMALL.dim // 4, bias_out=True,
                  tau_schedule="constant", shape=(1, 1, WORLD.size))
    first, other = (first_weights(WORLD.size, SMALL.width, SMALL.dim, seed + more) for more in (0, 500))
    if method.target is not None:
        load(method.target, other if pupil.target == "random" else first, ("f", "g1", "g2"))
    load(method.online, first, ("f", "g1", "g2"))
    load(method.predictor, first, ("h1", "h2") if pupil.predictor == "mlp" else ("hl",))
    groups = [g | {"lr": SMALL.lr * g["lr_factor"]} for g in method.param_groups()]
    optimiser = torch.optim.SGD(groups, momentum=SMALL.momentum, weight_decay=pupil.weight_decay, lr=SMALL.lr)
    for step, x in zip(range(steps), batches(WORLD, [seed], SMALL.batch)):
        for group in optimiser.param_groups:
            group["lr"] = SMALL.lr * group["lr_factor"] * lr_at(step, steps)
        optimiser.zero_grad()
        method(*(v[:, None, None] for v in x[0].mT.chunk(2))).loss.backward()
        optimiser.step()
        method.after_step(step, steps)
    return backbone[1].weight.detach(), None if method.target is None else method.target[0][1].weight


@pytest.fixture(scope="module")
def together():
    """Every pupil trained at once, seeds 3 and 4."""
    made = sorted((Pupil(**of) for of in PUPILS.values()), key=pupils._kind)
    runs = pupils._Runs(made, [3, 4], WORLD, SMALL)
    for step, x in zip(range(8), batches(WORLD, [3, 4], SMALL.batch, len(made))):
        runs.step(x, lr_at(step, 8))
    return runs


@pytest.mark.parametrize("name", PUPILS)
def test_a_pupil_is_byol_with_these_switches_under_torchs_sgd(name, together):
    pupil = Pupil(**PUPILS[name])
    i = together.runs.index(pupil) + 1                 # seed 4
    weight, target = alone(pupil, 4, 8)
    assert torch.allclose(together.weights["f"][i], weight, atol=2e-4)
    assert not torch.allclose(first_weights(WORLD.size, SMALL.width, SMALL.dim, 4)["f"].float(), weight, atol=1e-2)
    if target is not None:
        assert torch.allclose(together.slow["f"][i], target, atol=2e-4)


def test_with_the_same_view_the_target_sees_what_the_pupil_sees():
    runs = pupils._Runs([Pupil("random", same_view=True)], [0], WORLD, SMALL)
    x = next(batches(WORLD, [0], SMALL.batch))
    p, t = (side[0] for side in runs.sides(x))
    own = encode(runs.slow, x, runs.switches)[1][0].mT
    decay = 5e-4 / 2 * sum(w.square().sum() for w in runs.weights.values())
    by_hand = 2 * (2 - 2 * F.cosine_similarity(p, own).mean()) + decay
    assert runs.loss(x)[0].item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert torch.allclose(t.roll(SMALL.batch, 0), own, atol=1e-6)
    assert byol_loss(p, own).item() != pytest.approx(by_hand.item(), rel=1e-3)         # that crosses the views


def test_cosines_by_hand():
    e = torch.eye(3)
    views = torch.stack([torch.cat([2 * e[:2], e[[0, 2]]]),                # a = (e1, e2), b = (e1, e3)
                         torch.ones(4, 3)])
    own, others = pupils._cosines(views)
    assert own.tolist() == pytest.approx([0.5, 1.0]) and others.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    g = torch.randn(1, 12, 5, generator=torch.Generator().manual_seed(0))
    u = F.normalize(g[0], dim=1)
    among = [float(u[i] @ u[6 + j]) for i in range(6) for j in range(6) if i != j]
    assert float(pupils._cosines(g)[1]) == pytest.approx(sum(among) / 30, abs=1e-6)


def test_rows_come_in_the_order_asked_for_and_do_not_depend_on_each_other():
    asked = {"SimCLR": Pupil("online", predictor="none", beta=1.0), "BYOL": Pupil(), "linear": Pupil(predictor="linear"),
             "BYOL again": Pupil()}
    table = train_pupils(asked, [5, 2], 6, WORLD, SMALL)
    assert table["pupil"].tolist() == [name for name in asked for _ in range(2)] and table["seed"].tolist() == [5, 2] * 4
    for name, pupil in asked.items():
        one = train_pupils({name: pupil}, [2], 6, WORLD, SMALL)
        row = table[(table["pupil"] == name) & (table["seed"] == 2)]
        assert row.iloc[0, 2:].tolist() == pytest.approx(one.iloc[0, 2:].tolist(), rel=2e-3, abs=2e-3)
    assert table.iloc[2:4, 2:].to_numpy().tolist() == table.iloc[6:, 2:].to_numpy().tolist()      # equal pupils are one


def test_a_random_teacher_stays_and_without_one_the_pupil_is_its_own():
    table = train_pupils({"random": Pupil("random"), "online": Pupil("online")}, 1, 6, WORLD, SMALL).set_index("pupil")
    start = train_pupils({"random": Pupil("random", weight_decay=0.0)}, 1, 1, WORLD, SMALL)
    assert table.loc["random", "teacher"] == pytest.approx(start["teacher"][0], abs=1e-6)
    assert table.loc["online", "teacher"] == pytest.approx(table.loc["online", "content"], abs=1e-6)


@pytest.mark.parametrize("wrong, told", [({"target": "copy"}, "target: got 'copy'"), ({"predictor": "fixed"}, "predictor: got")])
def test_what_is_no_pupil_is_refused(wrong, told):
    assert TARGETS == ("ema", "random", "online") and "mlp" in HEADS
    with pytest.raises(ValueError, match=told):
        Pupil(**wrong)
