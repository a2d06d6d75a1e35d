"""The solutions of chapter 11 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_11_pass():
    check("11_em")


@pytest.mark.parametrize("wrong", [
    "check_best_direction(lambda z: F.normalize(z.mean(0), dim=0))",                     # long vectors count for more
    "check_best_direction(lambda z: F.normalize(z, dim=1).mean(0))",                     # not of length 1
    "check_ages(lambda m, n: (m ** torch.arange(n), m / (1 - m)))",                      # weights without 1 − m
    "check_ages(lambda m, n: ((1 - m) * m ** torch.arange(n), 1 / (1 - m)))",            # counts the present as one visit old
    "check_ages(lambda m, n: ((1 - m) * m ** torch.arange(n).flip(0), m / (1 - m)))",    # oldest first
    "check_k_steps(lambda method, optimiser, pairs: [method(*pair).loss for pair in pairs])",   # takes no step
])
def test_wrong_answers_of_11_fail(wrong):
    refused("11_em", wrong)


def test_targets_that_are_not_kept_fail():
    refused("11_em", """
def k_steps(method, optimiser, pairs):
    losses = []
    for x1, x2 in pairs:
        loss = method(x1, x2).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses

check_k_steps(k_steps)""")
