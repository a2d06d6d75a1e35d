"""Where a run comes from: the code, the machine with its packages, the memory that it took, the bits that it left."""
from __future__ import annotations

import hashlib
import math
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["MACHINE", "code_version", "commit", "machine", "forget_peak", "peak_memory", "digest"]

MACHINE = ("device", "name", "threads", "platform", "python", "packages")       # what `machine` tells, at least
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow")


@cache
def code_version() -> str:
    """Return a hash of the package's sources: equal versions, equal code."""
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(p.read_bytes().replace(b"\r\n", b"\n") for p in sources)).hexdigest()[:12]


@cache
def commit() -> str | None:
    """Return the commit that the sources stand at ("+" for changes since), or None outside this project's clone."""
    root = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)   # or it is another project's clone
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(device: torch.device) -> dict:
    """Return what the bits of a run depend on besides its recipe: device, threads, platform, packages."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {"device": device.type, "name": name, "threads": torch.get_num_threads(),
            "platform": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
            "packages": {p: metadata.version(p) for p in PACKAGES}}


def forget_peak(device: torch.device) -> None:
    """Begin to measure `peak_memory` anew, where the system can (CUDA, Linux)."""
    if device.type == "cuda":
        torch.cuda.init()                   # before that its allocator refuses "cuda:0"
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory(device: torch.device) -> float:
    """Return the most memory, in MiB, that this process has held: on the GPU, or resident (NaN if unknown)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:                                    # Linux; its rusage does not forget what a thread that ended had seen
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**10
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:                     # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def digest(net: nn.Module | Tensor) -> str:
    """Return a hash of all weights and buffers, or of one tensor, to the bit."""
    state = {"": net} if isinstance(net, Tensor) else net.state_dict()
    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
