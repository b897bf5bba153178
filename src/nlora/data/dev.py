"""Data sets that are tested on their dev examples, so that nothing is chosen on test."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from nlora.data.copies import copied
from nlora.data.task import TaskData, sample


def on_dev(data: TaskData, seed: int) -> TaskData:
    """A task that is tested on its dev examples.

    Examples that are in test too are left out of dev (the published benchmark's dev is its test)
    and of training. If no dev is left, a fifth of the training examples is held out instead.
    """
    tested = {example.text for example in data.test}
    train = tuple(e for e in data.train if e.text not in tested)
    dev = tuple(e for e in data.dev if e.text not in tested)
    dev = dev or sample(train, max(1, len(train) // 5), seed)
    held = {example.text for example in dev}
    return replace(data, train=tuple(e for e in train if e.text not in held), test=dev, dev=())


def copied_on_dev(stream: str, data: Path | None, out: Path, seed: int = 0) -> list[TaskData]:
    """Write the stream's data sets to the new data folder `out` with `on_dev` of each.

    No test example is in it. Returns what was written. Raises NloraError as `copied`.
    """
    return copied(stream, data, out, partial(on_dev, seed=seed))
