"""What was exported, put on the Hugging Face Hub: only where that is asked for."""

import os
import re
from pathlib import Path

from nlora.errors import NloraError, first_line, option
from nlora.progress import Progress


def check_name(name: str) -> None:
    """Raise NloraError, before anything is written, for what cannot name a repository."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name, re.ASCII) or ".." in name:
        raise NloraError(f"{option('push')} takes OWNER/NAME, not '{name}'")


def push(folder: Path, name: str, progress: Progress) -> str:
    """Upload a folder to a repository, which is made, private, where there is none; its address.

    The token is the one that `hf auth login` keeps, or HF_TOKEN. Raises NloraError where the Hub
    refuses; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        made = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Exported by nlora")
    except Exception as error:  # of the network, or what the Hub says
        raise NloraError(
            f"{folder} is written, and could not be pushed to {name}: {first_line(error)}; `hf "
            f"upload {name} {folder}` tries again"
        ) from error
    progress.message(f"pushed to {made}, which is private where it was new")
    return str(made)
