"""Where a run comes from: its code, its machine, its memory, and the bits that it left."""
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from evidence_kit import TINY

from simsiam_explained import origin
from simsiam_explained.origin import code_version, commit, digest, forget_peak, machine

ROOT = Path(__file__).resolve().parent.parent


def test_the_code_version_is_of_all_sources(monkeypatch, tmp_path):
    shutil.copytree(ROOT / "simsiam_explained", tmp_path / "p", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "p" / "origin.py"))
    there = lambda: code_version.__wrapped__()  # noqa: E731
    first = there()
    (tmp_path / "p" / "cli.py").write_bytes((tmp_path / "p" / "cli.py").read_bytes().replace(b"\n", b"\r\n"))
    assert there() == first                                     # line ends of Windows are no change
    (tmp_path / "p" / "cli.py").write_text("# another\n")
    assert there() != first


def test_the_commit_is_of_this_clone_or_none(monkeypatch, tmp_path):
    if (ROOT / ".git").exists():
        assert len(commit().rstrip("+")) == 10
    monkeypatch.setattr(origin, "__file__", str(tmp_path / "origin.py"))
    assert commit.__wrapped__() is None
    monkeypatch.setattr(origin, "__file__", str(ROOT / "data" / "origin.py"))     # in a clone, but not of it
    assert commit.__wrapped__() is None


def test_the_machine_and_its_packages(device):
    here = machine(device)
    assert here["device"] == device.type and here["threads"] == torch.get_num_threads() and here["name"]
    assert torch.__version__.startswith(here["packages"]["torch"])     # less "+cpu"


def test_the_peak_of_memory_is_seen_and_forgotten(device):
    code = f"""
import torch
from pathlib import Path
from simsiam_explained.origin import forget_peak, peak_memory
device = torch.device({str(device)!r})
forget_peak(device)
before = peak_memory(device)
held = torch.ones(256 * 2**20, dtype=torch.uint8, device=device)
with_it = peak_memory(device)
assert with_it - before > 200, (before, with_it)
del held
assert abs(peak_memory(device) - with_it) < 5
forget_peak(device)
if device.type == "cuda" or Path("/proc/self/clear_refs").exists():
    assert peak_memory(device) < with_it - 200
"""                                           # a process of its own: what other tests freed may come back uncounted
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_memory_of_a_gpu_is_asked_once_cuda_has_begun(monkeypatch):
    """Until then the allocator refuses "cuda:0"; for "cuda" torch begins by itself."""
    asked, device = [], torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", asked.append)
    forget_peak(device)
    assert asked == ["init", device]


def test_a_digest_is_to_the_bit(device):
    net = TINY.build().to(device)
    first = digest(net)
    assert first == digest(TINY.build()) != digest(TINY.build(1))
    with torch.no_grad():
        weight = next(net.parameters())
        weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], weight.new_tensor(9.0))
    assert digest(net) != first
    assert digest(torch.zeros(3, dtype=torch.uint8)) != digest(torch.zeros(4, dtype=torch.uint8))
