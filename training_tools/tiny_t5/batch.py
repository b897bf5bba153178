"""From prompts to tensors: ids, segments of text and options, and spans to restore."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training_tools.tiny_t5.options import Prompt


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    `segments` marks tokens of the text with 1 and of option j with j + 2, others with 0;
    `labels` are the answer's ids, −100 after their end.
    """

    prompts: tuple[Prompt, ...]
    ids: Tensor
    segments: Tensor
    labels: Tensor

    @property
    def mask(self) -> Tensor:
        """1 where there is a token."""
        return (self.ids != 0).long()


def padded(rows: Sequence[Any], value: int = 0) -> Tensor:
    """Rows of ids as one tensor, padded at the right."""
    width = max(len(row) for row in rows)
    out = torch.full((len(rows), width), value)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.as_tensor(row)
    return out


def encode(
    tokenizer: Any, prompts: Sequence[Prompt], parts: int, longest: int = 256
) -> list[Batch]:
    """The prompts as `parts` batches of like length; what is longer than `longest` is cut."""
    found = tokenizer(
        [p.prompt for p in prompts],
        return_offsets_mapping=True,
        truncation=True,
        max_length=longest,
    )
    answers = tokenizer([p.answer for p in prompts]).input_ids
    segments = [
        _segments(np.array(offsets), prompt)
        for offsets, prompt in zip(found.offset_mapping, prompts, strict=True)
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(found.input_ids[i]))
    size = -(-len(order) // parts)
    return [
        Batch(
            tuple(prompts[i] for i in part),
            padded([found.input_ids[i] for i in part]),
            padded([segments[i] for i in part]),
            padded([answers[i] for i in part], -100),
        )
        for part in (order[start : start + size] for start in range(0, len(order), size))
    ]


def _segments(offsets: np.ndarray, prompt: Prompt) -> np.ndarray:
    marks = np.zeros(len(offsets), dtype=np.int64)
    for number, (start, end) in enumerate([prompt.text, *prompt.options], start=1):
        # A mark of punctuation may take the space before it: its end says where it is.
        inside = (offsets[:, 1] > start) & (offsets[:, 0] < end) & (offsets[:, 1] > offsets[:, 0])
        marks[inside & (marks == 0)] = number
    return marks


def corrupted(tokenizer: Any, texts: Sequence[str], rng: random.Random) -> tuple[Tensor, Tensor]:
    """Texts with short spans replaced by sentinels, and the spans to restore (T5's way)."""
    first = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    inputs, targets = [], []
    for ids in tokenizer(list(texts), truncation=True, max_length=64).input_ids:
        ids, source, target, place = ids[:-1], [], [], 0
        spans = min(8, max(1, len(ids) // 8))
        starts = sorted(rng.sample(range(len(ids)), spans))
        for number, start in enumerate(starts):
            if start < place:
                continue
            source += [*ids[place:start], first + number]
            place = min(len(ids), start + rng.randint(1, 2))
            target += [first + number, *ids[start:place]]
        inputs.append([*source, *ids[place:], tokenizer.eos_token_id])
        targets.append([*target, tokenizer.eos_token_id])
    return padded(inputs), padded(targets, -100)
