"""The solutions of chapter 14 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_14_pass():
    check("14_negatives")


@pytest.mark.parametrize("wrong", [
    "check_chance(lambda kind, n, k, tau: math.log(2 * n))",
    "check_chance(lambda kind, n, k, tau: {'SimCLR': math.log(2 * n - 1), 'MoCo': math.log(k), 'MoCo v3': 4 * tau * math.log(n)}[kind])",
    "check_chance(lambda kind, n, k, tau: {'SimCLR': math.log(2 * n - 1), 'MoCo': math.log(1 + k), 'MoCo v3': math.log(n)}[kind])",
    "check_lowest(lambda n: torch.eye(n))",                                                       # right angles
    "check_ages(lambda step, K, n: [(step - place // n) % (K // n) for place in range(K)])",      # the random start forgotten
    "check_ages(lambda step, K, n: [place // n for place in range(K)])",
])
def test_wrong_answers_of_14_fail(wrong):
    refused("14_negatives", wrong)
