"""The solutions of chapter 02, run against its checkers; and wrong answers, which the checkers refuse."""
import pytest

from exercises import check, refused


def test_solutions():
    check("02_views")


@pytest.mark.parametrize("wrong", [
    "check_mirrored(lambda drawn: drawn)",
    "check_mirrored(lambda drawn: drawn._replace(flip=torch.ones_like(drawn.flip)))",
    "check_overlap(lambda a, b: torch.minimum(a.height * a.width, b.height * b.width) / (a.height * a.width))",
    "check_colour_proof(lambda: make_views('textures'))",
    "check_colour_proof(lambda: make_views('textures', grey_p=0.2))",
    "check_colour_proof(lambda: make_views('textures', crop_scale=(0.05, 0.1)))",
])
def test_checkers_refuse_wrong_answers(wrong):
    refused("02_views", wrong)
