"""Models in a folder of the user's, told apart by what they hold and not by where they lie."""

from functools import lru_cache
from pathlib import Path

from nlora.checksum import sha256
from nlora.data.task import digest

FINGERPRINT = "sha256:"
"""What the revision of such a model begins with."""

_BESIDES = ("config.json", "tokenizer*", "*.model", "vocab*", "merges.txt")
"""What numbers depend on besides the weights."""


def fingerprint(folder: Path) -> str:
    """A hash of a model's weights, configuration and tokenizer, file by file.

    Every byte is read, at a second or less per gigabyte; a process does that once while the files'
    sizes and times stay as they are.
    """
    weights = list(folder.glob("*.safetensors")) or list(folder.glob("pytorch_model*.bin"))
    besides = [path for pattern in _BESIDES for path in folder.glob(pattern)]
    files = sorted({path for path in weights + besides if path.is_file()})
    stats = [path.stat() for path in files]
    return _fingerprint(tuple(files), tuple((s.st_size, s.st_mtime_ns) for s in stats))


@lru_cache
def _fingerprint(files: tuple[Path, ...], _state: tuple[tuple[int, int], ...]) -> str:
    return FINGERPRINT + digest({path.name: sha256(path) for path in files})
