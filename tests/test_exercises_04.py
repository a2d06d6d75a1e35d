"""The solutions of chapter 04 pass its checkers; the usual mistakes do not."""
import pytest
import torch
from torch.nn import functional as F

from exercises import check, namespace


def test_solutions_of_04_pass():
    check("04_probes", at_least=4)


@pytest.fixture(scope="module")
def names():
    return namespace("04_probes")


def second_neighbour(x, labels, k):
    """Return the accuracy of columns 2… of the sorted similarities: the published mistake."""
    s = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    nearest = s.topk(k + 2, dim=1).indices[:, 2:]
    return (labels[nearest].mode(dim=1).values == labels).double().mean().item()


def itself_included(x, labels, k):
    s = F.normalize(x, dim=1) @ F.normalize(x, dim=1).T
    return (labels[s.topk(k, dim=1).indices].mode(dim=1).values == labels).double().mean().item()


@pytest.mark.parametrize("checker, wrong", [
    ("check_vote", lambda similarity, labels, tau: labels.mode().values),            # unweighted
    ("check_leave_one_out", second_neighbour),
    ("check_leave_one_out", itself_included),
    ("check_honest_k", lambda x, y, candidates: candidates[0]),
    ("check_honest_k", lambda x, y, candidates: candidates[-1]),
    ("check_grid_target", lambda angle: torch.stack([(2 * angle).sin(), (2 * angle).cos()], 1)),
    ("check_grid_target", lambda angle: torch.stack([(8 * angle).sin(), (8 * angle).cos()], 1)),
])
def test_wrong_answers_of_04_fail(names, checker, wrong):
    with pytest.raises(AssertionError):
        names[checker](wrong)
