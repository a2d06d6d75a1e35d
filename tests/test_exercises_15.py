"""The solutions of chapter 15 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_15_pass():
    check("15_codes")


@pytest.mark.parametrize("wrong", [
    "check_shares(lambda s, eps, rounds: (s / eps).softmax(1))",
    "check_shares(lambda s, eps, rounds: sinkhorn(s, eps, 3))",                                        # always three rounds
    "check_shares(lambda s, eps, rounds: (q := (s / eps).exp()) / q.sum())",
    "check_shares(lambda s, eps, rounds: sinkhorn(s.T, eps, rounds).T)",                               # the wrong way round
    "check_diagnosis(lambda own, kl, k: 'one-hot' if own < 0.5 * math.log(k) else 'uniform')",         # KL not asked
    "check_diagnosis(lambda own, kl, k: 'alive' if kl > 0.1 else 'one-hot')",
    "check_neighbours(lambda methods: [])",
    "check_neighbours(lambda methods: [(a, b) for a in methods for b in methods if a != b])",
    "check_neighbours(lambda methods: [('SimSiam', 'BYOL'), ('BYOL', 'MoCo v3')])",                    # the other way
])
def test_wrong_answers_of_15_fail(wrong):
    refused("15_codes", wrong)
