"""Names on the Hugging Face Hub, whether it answers, and what to do without it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

HUB_SECONDS = 5.0
"""How long the Hub may take to say that it is there."""


def hub_name(text: str) -> tuple[str, str | None] | None:
    """Repository and revision of `[OWNER/]NAME[@REVISION]`; None for what is no such name.

    >>> hub_name("a/b@refs/pr/1"), hub_name("gpt2"), hub_name("a/b@../c")
    (('a/b', 'refs/pr/1'), ('gpt2', None), None)
    """
    name = r"([A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?:@(\w[\w./-]*))?"
    found = re.fullmatch(name, text, re.ASCII)
    return None if found is None or ".." in text else (found[1], found[2])


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
