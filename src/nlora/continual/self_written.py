"""Texts that a base model writes: by itself, of no task, or as it is told a task's labels."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.data.task import Task, digest
from nlora.folders import cache_dir
from nlora.methods.parts.neutral import told_by_label
from nlora.store.kept import keep, kept

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

CACHE = "explain"
"""Below the cache folder: what is the same for all runs with a base model."""

SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "top_k": 0, "max_new_tokens": 60}
"""How the base model writes texts by itself."""

SEED = 0
"""Decides which texts are written, and which are drawn of others (`explain.texts`). The run's seed
does not: runs are compared on the same texts."""


def self_written(model: ContinualModel, count: int, place: Path | None = None) -> list[str]:
    """Texts that the base model writes by itself, from its start token on.

    Sampled at temperature 1 from the likeliest tokens that make up 95 %, 60 tokens at most. Empty
    ones are left out, so there may be fewer than `count`. They are kept in the cache folder for all
    runs with the same base model, and at `place`, too.
    """
    tokenizer = model.encoder.tokenizer
    start = tokenizer.bos_token_id
    prompts = [[tokenizer.eos_token_id if start is None else start]] * count
    return _kept(model, [], prompts, place, f"{count} texts")


def written_by_label(
    model: ContinualModel, task: Task, count: int, place: Path | None = None
) -> list[str]:
    """Likewise texts that it writes when it is told a task's question and the answer to it.

    One label after another, so that each is the answer equally often. What is told is no example:
    the question and the names of the labels alone.
    """
    told = told_by_label(task, count)
    about = f"{count} texts by the labels of '{task.name}'"
    return _kept(model, [told], model.encoder.raw(told), place, about)


def _kept(
    model: ContinualModel,
    told: list[Any],
    prompts: list[list[int]],
    place: Path | None,
    about: str,
) -> list[str]:
    """What is written after the prompts, which are made of what is `told`; as it was kept."""
    base = model.plan.base
    titles = [base.title, base.weights]
    key = digest([*titles, len(prompts), SAMPLING, SEED, *told])
    shared = cache_dir() / CACHE / f"self-written-{key}.json"
    places = [shared] if place is None else [place, shared]
    known = (texts for path in places if (texts := kept(path, key)) is not None)
    texts = processes.from_main(next(known, None))
    if texts is None:
        model.progress.message(f"the base model is asked to write {about}")
        texts = processes.from_main(_write(model, prompts))

    def keep_them() -> None:
        for new in places:
            if kept(new, key) is None:
                with suppress(OSError) if new is shared else nullcontext():
                    keep(new, key, texts)

    processes.on_main(keep_them)
    return texts


def _write(model: ContinualModel, prompts: list[list[int]]) -> list[str]:
    import torch

    devices = [model.adapter.model.device] if torch.cuda.is_available() else []
    with model.standing(0), torch.random.fork_rng(devices=devices):
        torch.manual_seed(SEED)
        texts = model.context().generate(prompts, **SAMPLING)
    return [" ".join(text.split()) for text in texts if text.strip()]
