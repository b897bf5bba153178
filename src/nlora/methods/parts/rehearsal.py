"""Rehearsal: what later stages train on beside their own examples, by the setting `replay`.

0.05       a share of a stage's examples are examples of earlier tasks, of which `reservoir` each
           are kept in the model directory (every label with its share): old data that stays
self       no old data: right after a task is learned its question is asked of neutral texts, which
           have nothing to do with any task, and the model's own answers are rehearsed later
by-label   likewise of texts that the base model writes when it is told the task's question and each
           of its labels in turn
FILE       general examples, at most `reservoir` of a file's, in every stage

Of `self`: the texts are those of the file `neutral`, or what the base model writes by itself
(`parts.neutral`); they are chosen once per model directory and kept in it, as are those by label,
once per task; a task of free text has no labels, and is asked of neutral texts. What was told for a
text is not its answer: an answer is drawn from
the probabilities of the task's labels, exact as `nlora.evaluation.among` has them; a task of free
text answers greedily. Answers drawn later, from a model that has drifted, are worth less.

Which examples are kept says `keep_by`: drawn uniformly, or by surprise, those with the largest mean
of −ln p: over the tokens that are read, by the model before the stage (`text-surprise`, as SuRe's
published code does, arXiv:2511.22367), or over those of their answers, by the model after it.

All of it works with any method, since it is no method's own: the loop asks for it beside what a
method itself mixes in (`Method.rehearsed`, `Method.keep`).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.data.encode import IGNORED
from nlora.data.task import Example, Task, sample
from nlora.errors import NloraError
from nlora.methods.base import MixedIn
from nlora.methods.settings import OWN_ANSWERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlora.data.encode import Encoded
    from nlora.methods.context import Context
    from nlora.methods.settings import Settings
    from nlora.methods.state import Rehearsal


def check(settings: Settings) -> None:
    """Raise NloraError if a file that the settings name is not there, or cannot be read."""
    if settings.replay == "self":
        if settings.neutral is not None:
            from nlora.methods.parts.neutral import read

            read(settings.neutral, settings.neutral_texts, seed=0)
    elif settings.replays_file:
        _general(settings, seed=0)


def rehearsed(settings: Settings, kept: Rehearsal, ctx: Context) -> MixedIn:
    """What this stage rehearses. What is needed of texts and files is taken now, the first time."""
    replay, instead = settings.replay, settings.replay_budget == "same"
    if replay == "none":
        return MixedIn()
    if isinstance(replay, float):
        return MixedIn(asked_as_now(kept.examples, ctx), replay, instead)
    if settings.replays_file:
        if not kept.general:
            kept.general = [e.to_json() for e in _general(settings, ctx.stage.seed)]
        general = [Example.from_json(row) for row in kept.general]
        return MixedIn(general, settings.replay_share, instead, "general examples")
    _have_texts(settings, kept, ctx)
    now = {data.name for data in ctx.stage.tasks}
    found = [
        Example(task, text, answer)
        for row in kept.answers
        if (task := Task.from_json(row["task"])).name not in now
        for text, answer in zip(kept.asked(task.name), row["answers"], strict=True)
        if answer
    ]
    about = "neutral texts" if replay == "self" else "texts by label"
    return MixedIn(found, None, instead, f"own answers to {about}")


def _have_texts(settings: Settings, kept: Rehearsal, ctx: Context) -> None:
    """Choose the texts that the stage's tasks are to be asked about, where there are none."""
    from nlora.methods.parts.neutral import neutral_texts, written_by_label

    count = settings.neutral_texts
    then = {row["task"]["name"]: row["task"] for row in kept.answers}
    for data in ctx.stage.tasks:
        if settings.replay == "by-label" and data.task.labels is not None:
            now = data.task.to_json()  # with other labels, perhaps, if it was learned before
            if data.name not in kept.written or then.get(data.name, now) != now:
                kept.written[data.name] = written_by_label(ctx, data.task, count)
            continue
        kept.written.pop(data.name, None)
        if not kept.texts:
            kept.texts = neutral_texts(ctx, settings.neutral, count)


def keep(settings: Settings, kept: Rehearsal, ctx: Context) -> None:
    """Keep of the stage that was just trained what later ones are to rehearse."""
    tasks = ctx.stage.tasks
    if isinstance(settings.replay, float):
        for data in tasks:
            new = chosen(ctx, data.train, settings.reservoir, settings.keep_by)
            others, mine = taken_up(kept.examples, ctx, data.name, new, settings.reservoir)
            kept.examples = [*others, *mine]
    elif settings.replay in OWN_ANSWERS:
        _have_texts(settings, kept, ctx)  # there already, unless the update was trained elsewhere
        for data in tasks:
            answers = _answered(ctx, data.task, kept)
            row = {"task": data.task.to_json(), "answers": processes.from_main(answers)}
            others = [known for known in kept.answers if known["task"]["name"] != data.name]
            kept.answers = [*others, row]


def asked_as_now(rows: Sequence[dict[str, Any]], ctx: Context) -> list[Example]:
    """Kept examples; of a task that the stage learns again as it asks them."""
    now = {data.name: data.task for data in ctx.stage.tasks}
    kept = (Example.from_json(row) for row in rows)
    return [replace(e, task=now.get(e.task.name, e.task)) for e in kept]


def taken_up(
    rows: Sequence[dict[str, Any]],
    ctx: Context,
    task: str,
    new: Sequence[Example],
    most: int | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Kept rows of the other tasks, and those of a task that the stage trained: its new examples
    with those of its earlier stages, at most so many."""
    old = [e for e in asked_as_now(rows, ctx) if e.task.name == task]
    mine = sample([*old, *new], most, ctx.stage.seed)
    others = [row for row in rows if row["task"]["name"] != task]
    return others, [example.to_json() for example in mine]


def chosen(ctx: Context, examples: Sequence[Example], count: int, by: str) -> Sequence[Example]:
    """At most so many examples to keep, in their order: uniformly, or the most surprising."""
    if by == "uniform" or count >= len(examples):
        return sample(examples, count, ctx.stage.seed)
    rows = ctx.encoder.all(examples)
    if by == "text-surprise":
        from nlora.fast.logits import HELD

        read = [_as_read(row, ctx.encoder.encoder_decoder) for row in rows]
        with ctx.after(ctx.stage.index - 1):
            scores = _mean_scores(ctx, read, HELD // (ctx.encoder.ids or 1))
    else:
        scores = _mean_scores(ctx, rows)
    ranked = sorted(range(len(examples)), key=scores.__getitem__)
    return [examples[i] for i in sorted(processes.from_main(ranked[:count]))]


def _as_read(row: Encoded, encoder_decoder: bool) -> Encoded:
    """What a model reads of an example, as what it is to write: after its first token, or again."""
    if encoder_decoder:
        return replace(row, answer=row.prompt, counts=None)
    return replace(row, prompt=row.prompt[:1], answer=row.prompt[1:], counts=None)


def _mean_scores(ctx: Context, rows: Sequence[Encoded], tokens: int | None = None) -> list[float]:
    """The mean of ln p over the tokens of each row's answer."""
    lengths = [len(row.answer) - row.labels().count(IGNORED) for row in rows]
    scores = ctx.score_rows(rows, tokens)
    return [score / max(length, 1) for score, length in zip(scores, lengths, strict=True)]


def _answered(ctx: Context, task: Task, kept: Rehearsal) -> list[str]:
    """The model's answers to its texts; what it thinks of the labels is kept, too."""
    examples = [Example(task, text, "") for text in kept.asked(task.name)]
    if task.labels is None:
        prompts = [ids for ids, _ in ctx.encoder.prompts(examples)]
        own = [len(e.answer) for e in ctx.encoded[: ctx.own] if e.task == task.name]
        answers = ctx.generate(prompts, max_new_tokens=max(own, default=1), do_sample=False)
        return [answer.strip() for answer in answers]
    import torch

    from nlora.evaluation.among import log_likelihoods

    scores = log_likelihoods(ctx.model, ctx.encoder, examples)
    likely = torch.tensor(scores, dtype=torch.float64).softmax(1)  # (texts, labels)
    kept.probabilities[task.name] = likely.float()
    chance = random.Random(ctx.stage.seed)
    return [chance.choices(task.labels, weights=row)[0] for row in likely.tolist()]


def _general(settings: Settings, seed: int) -> list[Example]:
    """At most so many examples of the general file. Raises NloraError if it cannot be read."""
    from pathlib import Path

    from nlora.data.files import read_entry, task_from_files
    from nlora.data.formats import source, title

    name = str(settings.replay)
    if name.lower().endswith((".yaml", ".yml")):
        data = read_entry(Path(name))
    else:
        file = source(name, Path())
        if isinstance(file, Path) and not file.exists():
            raise NloraError(f"setting 'replay': {name} does not exist")
        data = task_from_files(title(file), file, file)
    if not data.train:
        raise NloraError(f"setting 'replay': {name} has no examples to train on")
    return list(sample(data.train, settings.reservoir, seed))
