"""The texts that a task's question is asked about, kind by kind (`sources.KINDS`)."""

import gzip
import random
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.explain.looks import CACHE
from nlora.folders import cache_dir
from nlora.store.atomic import write_json
from nlora.store.reading import Kind, whole

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

CONTENT_FREE = ("N/A", "[MASK]", "")
"""The prompts without content of contextual calibration (arXiv 2102.09690)."""

WORDS = 50
"""Of a line of a file of neutral texts, so many are taken."""

SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "top_k": 0, "max_new_tokens": 60}
"""How the base model writes texts by itself."""

SEED = 0
"""Decides which texts are drawn. The run's seed does not: runs are compared on the same texts."""


class SelfWritten(Kind):
    """A file of what a base model wrote by itself."""

    made_of: str
    texts: list[str]


def drawn(texts: Sequence[str], count: int, name: str) -> list[str]:
    """`count` of the texts, or all, the same for the same name."""
    rng = random.Random(f"{SEED} {name}")
    return rng.sample(list(texts), count) if count < len(texts) else list(texts)


def neutral_texts(path: Path, count: int) -> list[str]:
    """The first words of `count` lines of a text file, which may be compressed by gzip.

    Raises NloraError if it cannot be read or has too few lines.
    """
    if not path.is_file():
        raise NloraError(f"--neutral {path}: no such file")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        lines = content.decode("utf-8").splitlines()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise NloraError(f"--neutral {path}: {error}") from error
    found = list(dict.fromkeys(" ".join(line.split()[:WORDS]) for line in lines if line.strip()))
    if len(found) < count:
        raise NloraError(
            f"--neutral {path} has {len(found)} different lines and {count} texts are asked for; "
            "give a longer file, or fewer --texts"
        )
    return drawn(found, count, "neutral")


def self_written(model: "ContinualModel", count: int, place: Path) -> list[str]:
    """Texts that the base model writes by itself, from its start token on.

    Sampled at temperature 1 from the likeliest tokens that make up 95 %, 60 tokens at most. Empty
    ones are left out, so there may be fewer than `count`. They are kept at `place`, and for other
    runs with the same base model in the cache folder.
    """
    key = digest([model.plan.base.title, model.plan.base.revision, count, SAMPLING, SEED])
    shared = cache_dir() / CACHE / f"self-written-{key}.json"
    for known in (place, shared):
        if (texts := _read(known, key)) is not None:
            break
    else:
        model.progress.message(f"the base model writes {count} texts")
        texts = _write(model, count)
    for new in (place, shared):
        if _read(new, key) is None:
            with suppress(OSError) if new is shared else nullcontext():
                new.parent.mkdir(parents=True, exist_ok=True)
                write_json(new, {"made_of": key, "texts": texts})
    return texts


def _read(place: Path, key: str) -> list[str] | None:
    """The texts of a file, if they are these and it is whole."""
    found = whole(SelfWritten, place)
    return found.texts if found and found.made_of == key else None


def _write(model: "ContinualModel", count: int) -> list[str]:
    import torch

    tokenizer = model.encoder.tokenizer
    start = tokenizer.bos_token_id
    prompts = [[tokenizer.eos_token_id if start is None else start]] * count
    devices = [model.adapter.model.device] if torch.cuda.is_available() else []
    with model.standing(0), torch.random.fork_rng(devices=devices):
        torch.manual_seed(SEED)
        texts = model.context().generate(prompts, **SAMPLING)
    return [" ".join(text.split()) for text in texts if text.strip()]
