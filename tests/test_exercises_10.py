"""The solutions of chapter 10 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_10_pass():
    check("10_what_does_not_matter")


@pytest.mark.parametrize("wrong", [
    "check_floor(lambda z: -1.0)",                                                        # the cosine's
    "check_floor(lambda z: torch.tensor(z.shape[1]).log())",                              # of flat targets only
    "check_pairs({'one': Arm(similarity='cross_entropy', symmetry='asymmetric')})",       # one of six
    "check_pairs({str(i): Arm() for i in range(6)})",                                     # six of one kind
    "check_to_the_end(Setting(lr=0.001))",                                                # hardly moves
])
def test_wrong_answers_of_10_fail(wrong):
    refused("10_what_does_not_matter", wrong)
