"""The machine that a process runs on: hardware, memory and versions, on any system."""

import importlib.metadata
import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nlora

_LIBRARIES = ("torch", "transformers", "peft", "accelerate")
"""What the numbers of a run depend on."""


def versions() -> dict[str, str]:
    """Versions of what numbers depend on: of this package, the libraries and Python."""
    return {
        "nlora": nlora.__version__,
        **{name: _version(name) for name in _LIBRARIES},
        "python": sys.version.split()[0],
    }


@cache
def _version(library: str) -> str:
    """What is installed; reading it anew for each stage would cost as much as a small step."""
    return importlib.metadata.version(library)


def machine() -> dict[str, Any]:
    """The hardware: `processor`, `cores`, `threads` (PyTorch's) and `gpu` (None without CUDA)."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def peak_memory() -> int:
    """Bytes at the peak: of the CUDA device where there is one, else of this process.

    0 on Windows without psutil, where nothing else tells.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")  # `getrusage` counts what ran in this process before `exec`
    for line in status.read_text("utf-8").splitlines() if status.is_file() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        psutil = _psutil()
        return psutil.Process().memory_info().peak_wset if psutil else 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory() -> int | None:
    """Bytes that the machine has; None where only psutil could tell and it is not installed."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        psutil = _psutil()
        return psutil.virtual_memory().total if psutil else None


def device_memory() -> int | None:
    """Bytes that models have: of the CUDA device where there is one, else `memory`."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    return memory()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _psutil() -> Any:
    try:
        import psutil
    except ImportError:
        return None
    return psutil
