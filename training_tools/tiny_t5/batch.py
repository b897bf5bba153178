"""From prompts to tensors: ids, segments of text and options, and texts to repeat."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training_tools.tiny_t5.options import Prompt

LONGEST_PIECE = 40


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass.

    `segments` marks tokens of the text with 1 and of option j with j + 2, others with 0; `labels`
    are the answer's ids, −100 after their end; `copied` tells where in the prompt each of them
    stands, −1 for the end and where the answer is tokenised otherwise than the option.
    """

    prompts: tuple[Prompt, ...]
    ids: Tensor
    segments: Tensor
    labels: Tensor
    copied: Tensor

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
    copied = [
        _copied(answer, marks, prompt.right)
        for answer, marks, prompt in zip(answers, segments, prompts, strict=True)
    ]
    order = sorted(range(len(prompts)), key=lambda i: len(found.input_ids[i]))
    size = -(-len(order) // parts)
    return [
        Batch(
            tuple(prompts[i] for i in part),
            padded([found.input_ids[i] for i in part]),
            padded([segments[i] for i in part]),
            padded([answers[i] for i in part], -100),
            padded([copied[i] for i in part], -1),
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


def _copied(answer: Sequence[int], segments: np.ndarray, right: int) -> list[int]:
    places = np.flatnonzero(segments == right + 2)
    same = len(places) == len(answer) - 1
    return [*(places.tolist() if same else [-1] * (len(answer) - 1)), -1]


def repeated(
    tokenizer: Any, texts: Sequence[str], wordings: Sequence[str], rng: random.Random
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts to repeat a piece of each text: ids, labels, and where each label stands."""
    inputs, targets, copied = [], [], []
    for text in texts:
        before, after = (
            tokenizer(part, add_special_tokens=False).input_ids if part else []
            for part in rng.choice(wordings).split("{text}")
        )
        ids = tokenizer(text, add_special_tokens=False).input_ids
        start = rng.randrange(max(1, len(ids) - LONGEST_PIECE))
        ids = ids[start : start + rng.randint(2, LONGEST_PIECE)]
        inputs.append([*before, *ids, *after, tokenizer.eos_token_id])
        targets.append([*ids, tokenizer.eos_token_id])
        copied.append([*range(len(before), len(before) + len(ids)), -1])
    return padded(inputs), padded(targets, -100), padded(copied, -1)
