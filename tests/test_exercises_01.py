"""The solutions of chapter 01 pass its checkers; wrong answers do not."""
import math
from dataclasses import replace

import pytest
import torch

from exercises import check, namespace


def test_solutions_of_01_pass():
    check("01_images")


@pytest.fixture(scope="module")
def names():
    return namespace("01_images")


def test_angles_that_do_not_wrap_round_fail(names):
    with pytest.raises(AssertionError, match="around 0.0"):
        names["check_at_angle"](lambda images, angle, width: images[(images.factors["angle"] - angle).abs() <= width])


def test_levels_that_clip_fail(names):
    def clipped(images):
        x = images.pixels.float()
        x = 128 + 1.5 * (x - x.mean((1, 2, 3), keepdim=True))
        return replace(images, pixels=x.round().clamp(0, 255).to(torch.uint8))
    with pytest.raises(AssertionError, match="means run from"):
        names["check_levelled"](clipped)
    with pytest.raises(AssertionError, match="patterns are gone"):
        names["check_levelled"](lambda images: replace(images, pixels=torch.full_like(images.pixels, 128)))


@pytest.mark.parametrize("wrong, says", [
    (lambda u, v: torch.sin(2 * math.pi * u), "not alike"), (lambda u, v: torch.sin(math.pi * (u + v)), "period"),
    (lambda u, v: torch.sin(2 * math.pi * u) * torch.sin(2 * math.pi * v), "these are the checks"),
    (lambda u, v: 1.9 + torch.sin(2 * math.pi * u) + torch.sin(2 * math.pi * v), "too dark or too light")])
def test_wrong_plaids_fail(names, wrong, says):
    with pytest.raises(AssertionError, match=says):
        names["check_plaid"](wrong)
