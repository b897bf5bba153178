"""Where nlora keeps what it can make again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """`NLORA_CACHE`, or `nlora` in the user's cache folder (`XDG_CACHE_HOME`, `~/.cache`)."""
    if own := os.environ.get("NLORA_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nlora"
