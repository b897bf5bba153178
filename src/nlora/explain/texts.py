"""The texts that a task's question is asked about, kind by kind (`sources.KINDS`)."""

import random
from collections.abc import Sequence
from pathlib import Path

from nlora.continual.self_written import SEED
from nlora.data.files import read_texts
from nlora.errors import NloraError

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The prompts without content of contextual calibration (arXiv 2102.09690)."""

WORDS = 50
"""Of a line of a file of neutral texts, so many are taken."""


def drawn(texts: Sequence[str], count: int, name: str) -> list[str]:
    """`count` of the texts, or all, the same for the same name."""
    rng = random.Random(f"{SEED} {name}")
    return rng.sample(list(texts), count) if count < len(texts) else list(texts)


def neutral_texts(path: Path, count: int) -> list[str]:
    """The first words of `count` texts of a file, as `nlora predict` reads it.

    Raises NloraError if it cannot be read or has too few.
    """
    if not path.is_file():
        raise NloraError(f"--neutral {path}: no such file")
    texts = read_texts(path)
    found = list(dict.fromkeys(" ".join(text.split()[:WORDS]) for text in texts if text.strip()))
    if len(found) < count:
        raise NloraError(
            f"--neutral {path} has {len(found)} different texts and {count} are asked for; "
            "give a longer file, or fewer --texts"
        )
    return drawn(found, count, "neutral")
