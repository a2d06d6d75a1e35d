"""What trainings in the vector world share: runs side by side, data by hand, one step against torch.optim."""
import pytest
import torch

from simsiam_explained.micro import Arm, Setting, VectorWorld, draw_views, encode, factors, first_weights, mixing, train_arms
from simsiam_explained.switches import Switches
from simsiam_explained.world import (batches, descend, encode_unseen, first_runs, follow, look_steps, seed_list,
                                     side_by_side, stacked, unseen, unseen_pair)

WORLD, SMALL = VectorWorld(content=3, style=5, images=50), Setting(width=6, dim=4)


def test_seeds_are_so_many_or_those_given():
    assert seed_list(3) == [0, 1, 2] and seed_list((4, 9)) == [4, 9]
    with pytest.raises(ValueError, match="seeds: got 0"):
        seed_list(0)


def test_runs_stand_arm_after_arm_each_with_every_seed():
    runs = first_runs(WORLD, SMALL, [7, 2], arms=3)
    for i in range(6):
        for name, w in first_weights(WORLD.size, SMALL.width, SMALL.dim, (7, 2)[i % 2]).items():
            assert torch.equal(runs[name][i], w.float())
    assert all(w.is_leaf and w.requires_grad and w.dtype == torch.float32 for w in runs.values())
    with torch.no_grad():
        runs["f"][0] += 1                                                    # no two runs share their memory
    assert not torch.equal(runs["f"][0], runs["f"][2])
    one = {"a": torch.zeros(2, 1), "b": torch.ones(1, 3)}
    assert stacked([one, one])["b"].shape == (2, 1, 3) and side_by_side([one], 4)["a"].shape == (4, 2, 1)


def test_arms_share_a_seeds_batches_and_seeds_do_not():
    many, alone = batches(WORLD, [3, 4], 16, arms=2), batches(WORLD, [4], 16)
    for _ in range(3):
        x, of_four = next(many), next(alone)
        assert x.shape == (4, WORLD.size, 32) and x.dtype == torch.float32
        assert torch.equal(x[:2], x[2:]) and torch.equal(x[1], of_four[0]) and not torch.equal(x[0], x[1])


def told(x, world):
    """The content (n, content) and style of vectors x (size, n): the mixing is a rotation."""
    return (x.mT.double() @ mixing(world).mT).split((world.content, world.style), -1)


def test_views_are_of_training_images_and_unseen_vectors_of_others():
    still = VectorWorld(content=3, style=5, images=50, jitter=0.0)
    trained, others = (factors(still, n, still.seed + k)[:, :3] for n, k in ((50, 1), (1024, 2)))
    nearest = lambda content, images: torch.cdist(content, images).amin(1)  # noqa: E731
    for x, images, strangers in ((next(batches(still, [0], 16))[0], trained, others), (unseen_pair(still, 16), others, trained)):
        content, style = told(x, still)
        assert nearest(content, images).max() < 1e-5 and nearest(content, strangers).min() > 1e-4
        assert torch.allclose(*content.chunk(2), atol=1e-5) and not torch.allclose(*style.chunk(2), atol=0.1)
    x, content = unseen(still)
    assert torch.equal(content, others) and torch.allclose(told(x, still)[0], others, atol=1e-5)
    assert unseen(still, 20)[0].shape == (8, 20) and x.dtype == torch.float32


def test_batches_and_looks_are_those_of_chapter_00():
    x = draw_views(WORLD, factors(WORLD, 50, 1).float(), mixing(WORLD).float(), [torch.Generator().manual_seed(10_006)], 16)
    assert torch.equal(next(batches(WORLD, [6], 16)), x)
    assert look_steps(100, 11) == tuple(k * k for k in range(11)) and look_steps(2, 11) == (0, 1, 2)
    assert look_steps(37, 6) == train_arms({"a": Arm()}, 1, 37, WORLD, Setting(points=6, width=4, dim=4)).steps
    with pytest.raises(ValueError, match="steps: got 0"):
        look_steps(0, 11)


def test_unseen_vectors_are_encoded_by_each_run_as_if_alone():
    runs, x = first_runs(WORLD, SMALL, [1, 2]), unseen(WORLD, 30)[0]
    y, z = encode_unseen(runs, x, Switches.of([Arm()] * 2, x))
    assert y.shape == (2, 30, 6) and z.shape == (2, 30, 4) and not z.requires_grad
    for i in range(2):
        alone = encode({name: w[i:i + 1] for name, w in runs.items()}, x[None], Switches.of([Arm()], x), views=1)
        assert torch.allclose(y[i], alone[0][0].mT, atol=1e-6) and torch.allclose(z[i], alone[1][0].mT, atol=1e-6)


def test_a_step_is_torchs_sgd_for_each_run_at_its_own_rate():
    weights = side_by_side([{"a": torch.randn(3, 2, generator=torch.Generator().manual_seed(k)), "b": torch.ones(1, 1)} for k in (0, 1)])
    velocity, rates = {name: torch.zeros_like(w) for name, w in weights.items()}, (0.1, 0.7)
    rate = dict.fromkeys(weights, torch.tensor(rates).view(-1, 1, 1))
    alone = [torch.nn.Parameter(w.detach().clone()) for w in weights["a"]]
    sgd = torch.optim.SGD([{"params": [w], "lr": r} for w, r in zip(alone, rates)], momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        descend(weights["a"].pow(4).sum((1, 2)), weights, velocity, rate, 0.9, 0.01)     # the loss does not know b
        sgd.zero_grad()
        sum(w.pow(4).sum() for w in alone).backward()
        sgd.step()
    for ours, theirs in zip(weights["a"], alone):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert (weights["b"] < 1).all()                                                      # it decays all the same


def test_slow_weights_follow_those_runs_that_they_copy():
    weights = {"a": torch.tensor([1.0, 2.0, 3.0], requires_grad=True), "b": torch.zeros(3)}
    every, some = {"a": torch.zeros(3)}, {"a": torch.zeros(2)}
    follow(every, weights, 0.75)
    follow(some, weights, 0.75, torch.tensor([0, 2]))
    assert torch.allclose(every["a"], torch.tensor([0.25, 0.5, 0.75])) and torch.allclose(some["a"], torch.tensor([0.25, 0.75]))
    assert not every["a"].requires_grad and weights["a"].tolist() == [1, 2, 3]
