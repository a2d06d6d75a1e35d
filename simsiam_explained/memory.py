"""What a run remembers (curves, checkpoints), and what it must leave undisturbed (modes, buffers, random states)."""
from __future__ import annotations

import copy
import hashlib
import math
import os
import re
import signal
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import BinaryIO

import torch
from torch import Tensor, nn

from .checks import number, one_of, whole
from .origin import digest

__all__ = ["Run", "Diverged", "whole_file", "save_checkpoint", "load_checkpoint", "described", "snapshot", "restore",
           "rescued", "interruptible", "own_randomness", "in_eval", "undisturbed"]

KIND, SCHEMA = "simsiam_explained.fit", 2      # 2: tells layers and pixels apart


@dataclass
class Run:
    """One training run. `history` is {name: [(steps taken, value), …]}; the loss is there for every step."""

    method: nn.Module            # trained in place
    initial: nn.Module           # a copy from before the first step, on the CPU
    config: dict                 # everything that decided the run
    steps: int                   # asked for
    step: int = 0                # taken
    images: int = 0              # seen
    seconds: float = 0.0         # spent training: evaluation and saving are not counted
    status: str = "running"      # then "done", "stopped" or "diverged"
    history: dict = field(default_factory=dict, repr=False)
    checkpoint: dict | None = field(default=None, repr=False)   # where to go on from, if stopped or diverged

    @property
    def images_per_second(self) -> float:
        """Images seen per second of training."""
        return self.images / self.seconds if self.seconds else math.nan

    def add(self, values: dict, step: int) -> None:
        """Append each value to its curve."""
        for name, value in values.items():
            self.history.setdefault(name, []).append((step, value))

    def curve(self, name: str) -> tuple[list[int], list]:
        """Return (steps taken, values) of one curve; ValueError names the curves that there are."""
        steps, values = zip(*self.history[one_of("curve", name, self.history)])
        return list(steps), list(values)

    def last(self, name: str):
        """Return the latest value of one curve."""
        return self.curve(name)[1][-1]


class Diverged(FloatingPointError):
    """The loss is no longer finite. `.run` holds the history; `.run.checkpoint` the last state known to be good."""

    def __init__(self, run: Run, loss: float, lr: float, batch: Tensor):
        self.run = run
        super().__init__(
            f"loss is {loss} at step {run.step} of {run.steps}, lr {lr:.4g}, in the batch of images "
            f"{batch[:8].tolist()} …; lower base_lr, add warmup, or look at those images. "
            f"The state after step {run.checkpoint['step']} is kept in .run.checkpoint.")


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` at the end, whole: a temporary one, flushed to disk, then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(state: dict, path: str | Path) -> None:
    """Write `state` so that `path` always holds a whole checkpoint."""
    with whole_file(path) as file:
        torch.save(state, file)


def load_checkpoint(path: str | Path) -> dict:
    """Return the state saved at `path`, on the CPU, without running any code in it (weights_only).

    FileNotFoundError, or ValueError for a damaged or truncated file, a foreign one, or one of another schema."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint: there is no file {str(path)!r}; fit(checkpoint=…) makes one.")
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")            # torch's guesses about a foreign file; ours follow
        try:
            if zipfile.is_zipfile(file) and (bad := zipfile.ZipFile(file).testzip()):     # torch compares no checksums
                raise zipfile.BadZipFile(f"{bad} has changed since it was written")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as fault:                             # of a damaged file there is no list of errors
            raise ValueError(f"checkpoint: {str(path)!r} is damaged, truncated or no PyTorch file ({fault!r:.120}); "
                             "take an earlier copy, or start again without resume.") from fault
    if not isinstance(state, dict) or state.get("kind") != KIND or not isinstance(state.get("schema"), int):
        raise ValueError(f"checkpoint: {str(path)!r} was not written by fit; "
                         "give plain weights to method.load_state_dict instead.")
    if state["schema"] != SCHEMA:
        raise ValueError(f"checkpoint: {str(path)!r} has schema {state['schema']}, this version reads {SCHEMA}; " + (
            "update simsiam_explained." if state["schema"] > SCHEMA else
            "go on with the version that wrote it, or start again without resume."))
    return state


def described(plan, method: nn.Module, images, views, device: torch.device, bf16: bool) -> dict:
    """Return everything that decides the run, as plain values: what a checkpoint must agree with."""
    switches = {f"method.{k}": getattr(v, "__name__", repr(v)) for k, v in vars(method).items()
                if not k.startswith("_") and k not in ("training", "views_per_image", "before_step")
                and isinstance(v, (bool, int, float, str, tuple, FunctionType))}
    weights = sum(w.numel() for w in method.parameters())
    layers = hashlib.sha256(re.sub(r" at 0x\w+", "", repr(method)).encode()).hexdigest()[:8]    # no places in memory
    pixels = digest(images.pixels[::max(1, len(images) // 1000)])          # choice: of large sets about every n/1000th
    return asdict(plan) | {
        "method": f"{type(method).__name__} of {weights:,} weights, layers {layers}", **switches,
        "images": f"{len(images)} {images.name} {images.shape}, pixels {pixels[:8]}",
        "device": device.type, "bf16": bf16,
        "views": repr(views) if is_dataclass(views) else getattr(views, "__name__", type(views).__name__)}


def snapshot(job) -> dict:
    """Return a copy of all that the next step of `job` depends on, and of the history: plain values and tensors."""
    run = job.run
    moving = {"method": run.method.state_dict(), "optimiser": job.optimiser.state_dict()}
    return copy.deepcopy(moving) | {
        "kind": KIND, "schema": SCHEMA, "config": run.config, "step": run.step, "images": run.images,
        "seconds": run.seconds, "history": {name: list(points) for name, points in run.history.items()},
        "batch": job.batch, "initial": run.initial.state_dict(),   # never changes: no copy
        "views_rng": job.generator.get_state(), "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(job.device) if job.device.type == "cuda" else None,
    }


def restore(job, resume: str | Path | Run) -> None:
    """Put `job` where a checkpoint stood; ValueError names the first setting that differs from it."""
    state = resume.checkpoint if isinstance(resume, Run) else load_checkpoint(resume)
    if state is None:
        raise ValueError(f"resume: this run is {resume.status} at step {resume.step} and holds no checkpoint.")
    run = job.run
    try:
        for name, here in run.config.items():
            if (there := state["config"].get(name)) != here:
                raise ValueError(f"resume: the checkpoint was made with {name}={there!r}, this call has "
                                 f"{name}={here!r}; make them equal, or start again without resume.")
        step, images, seconds, history = _told(state, run.steps)
        run.method.load_state_dict(state["method"])
        run.initial.load_state_dict(state["initial"])
        job.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))   # or it trains on the checkpoint's own
        run.step, run.images, run.seconds, run.history = step, images, seconds, history
        job.batch = state["batch"]
        job.generator.set_state(state["views_rng"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], job.device)
    except (AttributeError, KeyError, RuntimeError, TypeError) as fault:   # other names, shapes or kinds of values
        raise ValueError(f"resume: the checkpoint's state is damaged or does not fit this method ({fault}); "
                         "start again without resume.") from fault


def _told(state: dict, steps: int) -> tuple[int, int, float, dict]:
    """Return the steps taken, images seen, seconds spent and curves of a checkpoint, if they can be."""
    step = whole("resume: the steps taken", state["step"])
    if step > steps or step and not isinstance(state["batch"], Tensor):
        raise ValueError(f"resume: the checkpoint stands at step {step} of {steps}, its last batch is a "
                         f"{type(state['batch']).__name__}: it is damaged; take an earlier copy, or start again.")
    return (step, whole("resume: the images seen", state["images"]), number("resume: the seconds", state["seconds"], 0),
            {name: list(points) for name, points in state["history"].items()})


@contextmanager
def rescued(job) -> Iterator[None]:
    """Inside, an exception leaves the last good state of the loop in the checkpoint's file, if it is a newer one."""
    began = job.good["step"]
    try:
        yield
    except BaseException:
        if job.path and job.good["step"] > began:
            try:
                save_checkpoint(job.good, job.path)
            except OSError as fault:               # what went wrong first is what must be told
                warnings.warn(f"checkpoint: {str(job.path)!r} could not be written ({fault}).", stacklevel=2)
        raise


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Inside, the first Ctrl-C only sets the event that is yielded; the second one interrupts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked                                # Python delivers signals to the main thread only
        return

    def note(number, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


@contextmanager
def own_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Inside, the global generators (dropout uses them) start from `seed`; afterwards the caller has them back."""
    with torch.random.fork_rng(devices=_cuda(device)):
        torch.default_generator.manual_seed(seed)      # torch.manual_seed would also reset every GPU's generator
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def in_eval(net: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module has its own mode back."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def undisturbed(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode inside; afterwards every mode, buffer (BN) and global random state is what it was."""
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    with torch.random.fork_rng(devices=_cuda(device)), in_eval(net):
        try:
            yield
        finally:
            for buffer, kept in buffers:
                buffer.copy_(kept)
