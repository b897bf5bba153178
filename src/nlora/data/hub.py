"""Whether the Hugging Face Hub answers, and what to do without it."""

from collections.abc import Iterator
from contextlib import contextmanager

HUB_SECONDS = 5.0
"""How long the Hub may take to say that it is there."""


def hub_reachable(name: str, file: str, kind: str | None = None) -> bool:
    """Whether the Hub answers for a repository (`kind` "dataset", or a model), in one short try.

    A download alone repeats a failed connection for half a minute before it looks into its cache.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import get_session

    try:
        get_session().head(hf_hub_url(name, file, repo_type=kind), timeout=HUB_SECONDS)
    except Exception:  # HTTP, offline mode and the Hub's own errors have no common class
        return False
    return True


@contextmanager
def only_cached() -> Iterator[None]:
    """Meanwhile `datasets` looks into its cache and tries no network."""
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
