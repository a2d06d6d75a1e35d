"""The solutions of chapter 07 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_07_pass():
    check("07_evidence", at_least=4)


@pytest.mark.parametrize("wrong", [
    "check_learns(lambda arm, margin: lambda rows: unanimous([g > margin for g in values(rows, arm, 'gain') if g == g]))",   # NaN dropped
    "check_learns(lambda arm, margin: lambda rows: unanimous([g >= margin for g in values(rows, arm, 'gain')]))",
    "check_learns(lambda arm, margin: lambda rows: unanimous([mean(values(rows, arm, 'gain')) > margin] * 3))",              # the mean alone
    "check_differences(lambda a, b: {k: (v, b.whole()[k]) for k, v in a.whole().items() if v != b.whole()[k]})",             # whole parts
    "check_differences(lambda a, b: {})",
    "check_seeds_needed(lambda gap, sigma: 3)",
    "check_seeds_needed(lambda gap, sigma: int(8 * (sigma / gap) ** 2) + 2)",                                                # one too many
    "check_fool_the_best_step(lambda: ([0.6] * 20, [0.6] * 20))",                                                            # no lead
    "check_fool_the_best_step(lambda: ([0.6] * 18 + [0.7, 0.6], [0.6] * 20))",                                               # a better mean
])
def test_wrong_answers_of_07_fail(wrong):
    refused("07_evidence", wrong)
