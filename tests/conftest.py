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


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty folders for records (data/records) and for downloads, locks and checkpoints (cache), for child processes too."""
    monkeypatch.setenv("SIMSIAM_EXPLAINED_RECORDS", str(tmp_path / "data" / "records"))
    monkeypatch.setenv("SIMSIAM_EXPLAINED_DATA", str(tmp_path / "cache"))
    return tmp_path
