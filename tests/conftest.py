"""Fixtures shared by all tests: the devices at hand, and matplotlib without a window."""
import matplotlib
import pytest
import torch

matplotlib.use("agg")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no CUDA device"))])
def device(request, monkeypatch):
    """Each numeric test runs on the CPU, and again on the GPU where there is one, there in full float32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)   # convolutions keep 10 bits of 23 otherwise
    return torch.device(request.param)
