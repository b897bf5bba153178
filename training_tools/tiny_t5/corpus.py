"""Text for training: windows of a few sentences, from the four files whose terms allow it."""

import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

SHARES = {"books": 0.30, "documentation": 0.40, "dialogue": 0.15, "wiki_news": 0.15}
"""The files that may be read, and their share of the windows. No other file of the corpus is."""

_SENTENCE = re.compile(r"(?<=[.!?])[\"')]?\s+(?=[A-Z\"'(])")


def path(corpus: Path, name: str) -> Path:
    """The file of that name. Raises ValueError for one whose terms or contents forbid training."""
    if name not in SHARES:
        raise ValueError(f"'{name}' may not be trained on; allowed are {', '.join(SHARES)}")
    return corpus / f"{name}.txt.gz"


def windows(corpus: Path, count: int, seed: int) -> list[dict[str, str]]:
    """`count` windows {"text", "other"} in random order; `other` is from the same document.

    `other` is the first words of what follows the window, or empty.
    """
    rng = random.Random(seed)
    found = []
    for name, share in SHARES.items():
        with gzip.open(path(corpus, name), "rt", encoding="utf-8") as lines:
            documents = lines.read().splitlines()
        rng.shuffle(documents)
        wanted, source = round(count * share), _forever(documents, rng)
        while wanted > 0:
            cut = _cut(next(source), rng)
            if cut is not None:
                found.append(cut)
                wanted -= 1
    rng.shuffle(found)
    return found


def _forever(documents: list[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from documents
        rng.shuffle(documents)


def _cut(document: str, rng: random.Random) -> dict[str, str] | None:
    sentences = _SENTENCE.split(document)
    start = rng.randrange(len(sentences))
    goal, text, end = rng.choice((6, 12, 20, 30, 45, 60)), [], start
    while end < len(sentences) and len(text) < goal:
        text += sentences[end].split()
        end += 1
    if len(text) < 5:
        return None
    other = sentences[end].split()[: rng.randint(4, 8)] if end < len(sentences) else []
    return {"text": " ".join(text[:70]), "other": " ".join(other).rstrip(".,;:")}
