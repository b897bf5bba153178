"""`nlora env`: versions and hardware for a bug report."""

import os
import platform

from nlora.cli import options as o
from nlora.cli.console import print_json, show


def env(json: o.Json = False) -> None:
    """Print versions and hardware, for a bug report."""
    import psutil
    import torch

    from nlora.folders import cache_dir
    from nlora.models.backbone import bf16_is_faster
    from nlora.training.learner import versions

    cuda = torch.cuda.is_available()
    found = {
        **versions(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory (GB)": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "bf16 is faster": bf16_is_faster(),
        "model cache": str(cache_dir()),
        "NLORA_DATA": os.environ.get("NLORA_DATA"),
    }
    if json:
        print_json(found)
    else:
        show("", ["what", "value"], [[k, None if v is None else str(v)] for k, v in found.items()])
