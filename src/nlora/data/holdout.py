"""Part of a task's examples kept for testing, where there is no test file."""

import hashlib
from collections.abc import Sequence

from nlora.data.task import Example


def hold_out(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples to train on and those held out, each in their order; the same for the same seed.

    Examples of one text stay together, and every label that has two texts or more keeps its share
    (largest remainders), and at least one text to train on. Which text is held out depends on the
    seed and on the text alone, so that rows that are added later move few. At least one text stays
    on either side if there are two.
    """
    by_text: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        by_text.setdefault(" ".join(example.text.lower().split()), []).append(i)
    strata: dict[str, list[str]] = {}
    for text, rows in by_text.items():
        strata.setdefault(examples[rows[0]].label, []).append(text)
    rare = [text for texts in strata.values() if len(texts) == 1 for text in texts]
    groups = [texts for _, texts in sorted(strata.items()) if len(texts) > 1]
    groups += [rare] if rare else []
    most = [len(texts) - (texts is not rare) for texts in groups]
    exact = [share * len(texts) for texts in groups]
    take = [min(int(part), bound) for part, bound in zip(exact, most, strict=True)]
    total = min(max(round(share * len(by_text)), 1), len(by_text) - 1)
    by_remainder = sorted(range(len(groups)), key=lambda i: take[i] - exact[i])
    for i in by_remainder[: max(total - sum(take), 0)]:
        take[i] = min(take[i] + 1, most[i])
    held: set[int] = set()
    for texts, count in zip(groups, take, strict=True):
        for text in sorted(texts, key=lambda text: _order(text, seed))[:count]:
            held.update(by_text[text])
    train = tuple(e for i, e in enumerate(examples) if i not in held)
    return train, tuple(e for i, e in enumerate(examples) if i in held)


def _order(text: str, seed: int) -> str:
    # Half a character, which a later check refuses, must not end this one.
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "replace")).hexdigest()
