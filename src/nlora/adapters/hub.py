"""Adapters by their Hub name: two files each, into Hugging Face's own cache."""

from pathlib import Path

from nlora.adapters.peft_config import CONFIG
from nlora.data.hub import hub_name, hub_reachable
from nlora.errors import NloraError, first_line


def download(name: str, weights: str) -> Path:
    """The folder with configuration and weights of an adapter on the Hub, `OWNER/NAME[@REVISION]`.

    What is in the cache serves where the Hub cannot be reached. Raises NloraError.
    """
    repository, revision = hub_name(name) or ("", None)
    if "/" not in repository:
        raise NloraError(f"'{name}' is neither a folder that exists nor a Hub name (owner/name)")
    from huggingface_hub import hf_hub_download

    reachable = hub_reachable(repository, CONFIG)
    try:
        files = [
            hf_hub_download(repository, file, revision=revision, local_files_only=not reachable)
            for file in (CONFIG, weights)
        ]
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the network
        where = "got from the Hub" if reachable else "found: the Hub cannot be reached"
        raise NloraError(
            f"'{name}' is no folder here, and could not be {where} ({first_line(error)})"
        ) from error
    return Path(files[0]).parent
