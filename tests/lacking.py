"""What this machine lacks is not looked for again at every step of a training."""

import functools
import gc
import os
from types import SimpleNamespace


def remember() -> None:
    """Let libraries that are imported remember what is missing. Not for tests on a GPU.

    PyTorch keeps each seed for a device that may come, with the stack of whoever set it;
    accelerate searches all of `sys.path` for an optimiser's package before each step, and all of
    memory for garbage before each stage, since a device's would be scarce.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES"):
        return
    import accelerate.utils.imports as looked_up
    import accelerate.utils.memory as memory
    import torch

    for device in (torch.cuda, torch.xpu, torch.mtia):
        device.manual_seed_all = lambda seed: None
    looked_up._is_package_available = functools.cache(looked_up._is_package_available)
    memory.gc = SimpleNamespace(collect=lambda: gc.collect(1))  # what is young, in a tenth
