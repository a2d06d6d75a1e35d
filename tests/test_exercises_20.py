"""The solutions of chapter 20 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_20_pass():
    check("20_continual")


@pytest.mark.parametrize("wrong", [
    "check_hybrid_counts(lambda s: (1.0, 1.0))", "check_hybrid_counts(lambda s: (1 + s, 1 - s))",
    "check_replay(lambda n, batch, steps, chunks: list(single_pass(n, batch, steps, chunks=chunks)))",
    "check_replay(lambda n, batch, steps, chunks: list(cumulative(n, batch, steps, chunks=chunks)))",
    "check_replay(lambda n, batch, steps, chunks: iter(list(single_pass(n, batch, steps, chunks=chunks))))",
    "check_power(lambda n, ratio: 0.05)", "check_power(lambda n, ratio: min(1.0, ratio / 2))",
])
def test_wrong_answers_of_20_fail(wrong):
    refused("20_continual", wrong)
