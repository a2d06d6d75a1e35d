"""The solutions of chapter 03, run against its checkers; and wrong answers, which the checkers refuse."""
import pytest

from exercises import check, refused


def test_solutions():
    check("03_encoders", at_least=4)


@pytest.mark.parametrize("wrong", [
    "check_byol_heads(lambda d: (mlp((d, 4096, 256)), mlp((256, 4096, 256))))",
    "check_field(lambda layers: 1 + sum(kernel - 1 for kernel, stride in layers))",
    "check_as_backbone(lambda net: nn.Sequential(net, nn.AdaptiveMaxPool2d(1), nn.Flatten()))",
    "check_without_bias(lambda fc, bn: nn.init.zeros_(fc.bias))",
])
def test_checkers_refuse_wrong_answers(wrong):
    refused("03_encoders", wrong)
