"""Device, precision and random states in raw torch: the only file that knows what hardware there is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from utils.errors import UsageError


def pick(name: str | None) -> torch.device:
    """The device named on the command line; by default CUDA where there is one, else the CPU."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: this machine shows no CUDA device; use --device cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: unknown device; use cpu, cuda or cuda:<index>") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: only cpu and cuda are supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 in convolutions too, as torch has it in products
    return device


def autocast(device: torch.device, precision: str) -> Callable[[], contextlib.AbstractContextManager]:
    """A context for forward passes: bf16 autocast for precision "bf16", nothing for "32"."""
    if precision == "32":
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype=torch.bfloat16)


def lacks_bf16(device: torch.device) -> bool:
    """Whether it is a CPU without arithmetic for bf16, on which that takes many times as long as float32."""
    has_it = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # of builds of torch that can tell
    return device.type == "cpu" and has_it is not None and not has_it()


def full_precision(tensor: torch.Tensor) -> contextlib.AbstractContextManager:
    """A context in which autocast is off for the tensor's device."""
    if tensor.device.type == "meta":  # knows no autocast
        return contextlib.nullcontext()
    return torch.autocast(tensor.device.type, enabled=False)


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """States of torch's global generators that a run on `device` draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def out_of_memory(error: Exception) -> bool:
    """Whether an error of a computation says that memory ran out, on the GPU or on the host."""
    known = ("not enough memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in known)


def reset_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory_mb` count from here on, since one process may hold several runs.

    Where the system cannot do that (CPU, not Linux) the peak stays the one of the whole process.
    """
    if device.type == "cpu":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets the peak resident set size
    elif torch.cuda.is_initialized():  # before its first use there is nothing to reset
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory in MiB since `reset_peak_memory`: allocated on the GPU, or resident in the process on the CPU.

    None if unknown.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return _peak_resident_mb()


def free_memory() -> int:
    """Bytes of host memory that a new tensor may take; 2**40 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 2**10  # given in KiB
    return 2**40


def _peak_resident_mb() -> float | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10  # given in KiB
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
