"""Labels without meaning: copies of data sets whose labels are made-up words.

A control for what a model learns of a task. Where labels say what they mean, a model that was never
trained on the task knows much of it, and most of what it learns may be which labels to prefer; of
made-up words it knows nothing, so whatever it answers better than chance it has learned.
"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from nlora.data.benchmark import find_datasets, read_task
from nlora.data.messages import plain
from nlora.data.streams import load_stream
from nlora.data.task import TaskData
from nlora.data.writing import write_rows, writing
from nlora.errors import NloraError

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
    returned, by data set. The folder appears by one rename. Raises NloraError when it exists
    already, and for a task that has no labels or is not of a data folder.
    """
    tasks = load_stream(stream, data)
    folders = find_datasets(data) if data is not None else {}
    out = out.expanduser()
    if os.path.lexists(out):
        raise NloraError(f"{out} exists already; choose another folder")
    found = {}
    with writing(out) as work:
        for known in tasks:
            task = known.task
            own = folders.get(task.name)
            if task.labels is None or own is None or read_task(task.name, own[0]) != task:
                raise NloraError(
                    f"'{task.name}' has no labels, or is of no data folder; name data sets of one"
                )
            words = made_up(len(task.labels), task.name, seed)
            found[task.name] = dict(zip(task.labels, words, strict=True))
            folder = work / task.group / task.dataset
            write_rows(folder / "labels.json", words)
            for split, rows in _rows(known, found[task.name]).items():
                write_rows(folder / f"{split}.json", rows)
    return found


def _rows(data: TaskData, words: dict[str, str]) -> dict[str, Sequence[dict[str, str]]]:
    splits = {"train": data.train, "dev": data.dev, "test": data.test}
    return {
        split: [{"label": words[e.label], "sentence": plain(e.text)} for e in examples]
        for split, examples in splits.items()
        if examples
    }
