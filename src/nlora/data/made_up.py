"""Labels without meaning: copies of data sets whose labels are made-up words.

A control for what a model learns of a task. Where labels say what they mean, a model that was never
trained on the task knows much of it, and most of what it learns may be which labels to prefer; of
made-up words it knows nothing, so whatever it answers better than chance it has learned.
"""

import random
from dataclasses import replace
from pathlib import Path

from nlora.data.copies import copied
from nlora.data.task import TaskData

CONSONANTS, VOWELS, SYLLABLES = "bdfgklmnprstvz", "aeiou", 3


def made_up(count: int, name: str, seed: int = 0) -> tuple[str, ...]:
    """So many distinct words of three syllables, always the same for a data set and a seed.

    >>> made_up(2, "yelp") == made_up(2, "yelp"), len(set(made_up(100, "yelp")))
    (True, 100)
    """
    draw = random.Random(f"{name} {seed}")
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = (draw.choice(CONSONANTS) + draw.choice(VOWELS) for _ in range(SYLLABLES))
        words["".join(syllables)] = None
    return tuple(words)


def relabel(stream: str, data: Path | None, out: Path, seed: int = 0) -> dict[str, dict[str, str]]:
    """Write the stream's data sets to the new data folder `out` with made-up words for labels.

    Texts, groups, splits and the order of labels are as they were. What each label became is
    returned, by data set. Raises NloraError as `copied`.
    """
    found: dict[str, dict[str, str]] = {}

    def relabelled(known: TaskData) -> TaskData:
        labels = known.task.labels or ()
        words = dict(zip(labels, made_up(len(labels), known.name, seed), strict=True))
        found[known.name] = words
        splits = {
            split: tuple(replace(e, label=words[e.label]) for e in getattr(known, split))
            for split in ("train", "dev", "test")
        }
        return replace(known, task=replace(known.task, labels=tuple(words.values())), **splits)

    copied(stream, data, out, relabelled)
    return found
