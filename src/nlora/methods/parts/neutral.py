"""Texts that are no task's: a model's answers to them are its own.

Neutral texts have nothing to do with any task. They are a file's, or what the base model writes by
itself from its start token: sampled by the stage's seed at temperature 1 and top-p 0.95, 60 tokens
each. So nothing needs to be shipped. Texts by label are what it writes when it is told a task's
question and each of its labels in turn.
"""

from __future__ import annotations

import random
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

from nlora import processes
from nlora.errors import NloraError, option, setting
from nlora.progress import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlora.data.task import Task
    from nlora.methods.context import Context

TOKENS = 60
TOP_P = 0.95
TOGETHER = 128
"""Texts that are written at once."""
ROUNDS = 4
"""How many times as many texts are written, at most, as are wanted: empty and equal ones go."""


def neutral_texts(ctx: Context, file: str | None, count: int) -> list[str]:
    """So many texts, of the file if there is one, the same for the stage's seed."""
    if file is not None:
        return processes.from_main(read(file, count, ctx.stage.seed))
    return written(ctx, count)


def read(file: str, count: int, seed: int) -> list[str]:
    """So many of a file's texts. Raises NloraError for a bad file, or one with fewer."""
    from nlora.data.files import read_texts

    path = Path(file)
    if not path.exists():
        raise NloraError(f"setting 'neutral': {file} does not exist")
    texts = [text.strip() for text in dict.fromkeys(read_texts(path)) if text.strip()]
    if len(texts) < count:
        raise NloraError(
            f"{file} has {len(texts)} texts, and {count} are wanted; "
            f"give more, or {setting('neutral_texts', len(texts))}"
        )
    return random.Random(seed).sample(texts, count)


def told_by_label(task: Task, count: int) -> list[str]:
    """So many beginnings of texts about a task: its question, and one label after another."""
    return [
        "\n".join([*filter(None, [task.instruction]), f"Answer: {label}", "Text:"])
        for label in islice(cycle(task.labels or ()), count)
    ]


def written_by_label(ctx: Context, task: Task, count: int) -> list[str]:
    """What the base model writes when it is told a task's question and each of its labels.

    What is told is no example: the question and the names of the labels alone. Raises NloraError if
    it writes too little.
    """
    told = ctx.encoder.raw(told_by_label(task, min(TOGETHER, count)))
    about = f"texts by the labels of '{task.name}'"
    instead = f"take {option('replay', 'self')} and a file of texts, {option('neutral')}"
    return _written(ctx, told, count, about, instead)


def written(ctx: Context, count: int) -> list[str]:
    """What the base model writes by itself. Raises NloraError if it writes too little."""
    tokenizer = ctx.encoder.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    instead = f"give a file of texts by {option('neutral')}"
    return _written(ctx, [[start]] * min(TOGETHER, count), count, "neutral texts", instead)


def _written(
    ctx: Context, prompts: Sequence[list[int]], count: int, about: str, instead: str
) -> list[str]:
    """So many different texts that the base model writes after prompts, asked again and again.

    Raises NloraError, with what to do `instead`, if it writes too little.
    """
    import torch

    found: dict[str, None] = {}
    title = f"{ctx.stage.index} {ctx.stage.name}: {about}"
    with shown(ctx.progress, title, count), ctx.after(0), torch.random.fork_rng():
        torch.manual_seed(ctx.stage.seed)
        for _ in range(-(-ROUNDS * count // len(prompts))):
            before = len(found)
            texts = ctx.generate(
                prompts,
                max_new_tokens=TOKENS,
                do_sample=True,
                top_p=TOP_P,
            )
            found.update(dict.fromkeys(t for text in texts if (t := " ".join(text.split()))))
            if new := min(len(found), count) - before:
                ctx.progress.advance(new)
            if len(found) >= count:
                return processes.from_main(list(found)[:count])
    if not found:
        raise NloraError(f"the base model writes no texts by itself; {instead}")
    raise NloraError(
        f"the base model wrote {len(found)} different texts by itself, and {count} are wanted; "
        f"{instead}, or {setting('neutral_texts', len(found))}"
    )
