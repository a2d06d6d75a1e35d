"""The solutions of chapter 06 pass its checkers; wrong answers do not."""
import pytest
import torch

from exercises import check, namespace


def test_solutions_of_06_pass():
    check("06_training")


@pytest.fixture(scope="module")
def names():
    return namespace("06_training")


def test_wrong_answers_of_06_fail(names):
    with pytest.raises(AssertionError):                       # reaches 0 in the last epoch
        names["check_epoch_rate"](lambda e, E, lr0: names["lr_at"](e, E - 1, lr0))
    with pytest.raises(AssertionError):                       # shuffled, not balanced
        names["check_balanced_order"](lambda labels, batch, seed=0: list(torch.randperm(60).split(batch)))
    with pytest.raises(AssertionError):                       # forgets the buffers
        names["check_ema"](torch.no_grad()(lambda target, online, tau: [
            t.lerp_(w, 1 - tau) for t, w in zip(target.parameters(), online.parameters())]))
    with pytest.raises(AssertionError):                       # never updated
        names["check_ema"](lambda target, online, tau: None)
