"""`nlora env`: versions and hardware for a bug report."""

import os
import platform

from nlora.cli import options as o
from nlora.cli.console import print_json, show


def env(json: o.Json = False) -> None:
    """Print versions and hardware, for a bug report."""
    from nlora.backbones.hardware import bf16_is_faster
    from nlora.folders import cache_dir
    from nlora.machine import machine, memory, versions

    total = memory()
    found = {
        **versions(),
        "platform": platform.platform(),
        **machine(),
        "memory (GB)": None if total is None else round(total / 1e9, 1),
        "bf16 is faster": bf16_is_faster(),
        "model cache": str(cache_dir()),
        "NLORA_DATA": os.environ.get("NLORA_DATA"),
    }
    if json:
        print_json(found)
    else:
        show("", ["what", "value"], [[k, None if v is None else str(v)] for k, v in found.items()])
