"""From encoded examples to padded tensors, in an order that a resumed run repeats."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from nlora.data.encode import IGNORED, Encoded


def pad(rows: Sequence[Sequence[int]], value: int, left: bool) -> Tensor:
    """Rows of ids as one (rows, longest) int64 tensor, padded on the left or on the right."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    side = "left" if left else "right"
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)


SHORTEST_PREFIX = 8
"""Tokens below which reading a shared prefix once is not worth a pass of its own."""


def common_prefix(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with, short of the last token of the shortest.

    That last token stays out because it predicts what follows it, which may differ.
    """
    first, last = min(rows), max(rows)
    shortest = min(len(row) for row in rows)
    same = 0
    while same < shortest - 1 and first[same] == last[same]:
        same += 1
    return same


Shared = tuple[list[int], int]
"""Rows of a batch, and how many tokens all their prompts begin with."""


def shared_prefixes(examples: Sequence[Encoded]) -> list[Shared]:
    """What the rows of a batch begin with, task by task; none where it is not worth a pass.

    Each row is in one of the groups, also one that shares nothing: of its prompt as much goes with
    the prefixes as makes the rest of it no longer than the others' rests. It is worth a pass where
    fewer tokens are read, padding counted.
    """
    tasks: dict[str, list[int]] = {}
    for row, example in enumerate(examples):
        tasks.setdefault(example.task, []).append(row)

    def common(rows: list[int]) -> int:
        return common_prefix([examples[row].prompt for row in rows])

    def rest(groups: Sequence[Shared]) -> int:
        return max(len(examples[row]) - length for rows, length in groups for row in rows)

    together = [(rows, common(rows)) for rows in tasks.values() if len(rows) > 1]
    together = [(rows, length) for rows, length in together if length >= SHORTEST_PREFIX]
    if not together:
        return []
    sharing = {row for rows, _ in together for row in rows}
    most = rest(together)
    alone = [
        ([row], min(max(len(example) - most, 1), common([row])))
        for row, example in enumerate(examples)
        if row not in sharing
    ]
    found = [*together, *alone]
    lengths = [length for _, length in found]
    read = len(found) * max(lengths) + len(examples) * rest(found)
    fewer = read < len(examples) * max(map(len, examples))
    return found if min(lengths) > 0 and fewer else []


def by_budget(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices of rows by length, the longest first, as many in a batch as fit padded."""
    batches: list[list[int]] = []
    widest = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if not batches or (len(batches[-1]) + 1) * widest > tokens:
            batches.append([])
            widest = max(lengths[i], 1)
        batches[-1].append(i)
    return batches


class Collator:
    """Pads encoded examples into one batch for training.

    Decoder-only: `input_ids`, `attention_mask`, `labels`, each (B, S), padded on the left; `labels`
    is IGNORED everywhere but at the answer and its end token, so that a padding token equal to the
    end token does no harm. With `share_prefix` the batch says what its prompts begin with, task by
    task (`shared_prefixes`, a list of `Shared`), so that it can be read once; with `packed` it says
    that its examples are to share rows (`packed`, True).

    Encoder-decoder: `input_ids`, `attention_mask` (B, S) hold the prompt, padded on the right, and
    `labels` (B, T) the answer. Where some of its tokens do not count, `answers` (B, T) has all of
    them, as the decoder reads them.

    Both: `index` (B,), which of its stage's examples each row is, for a method that knows more of
    an example than its tokens.
    """

    def __init__(
        self,
        pad_token_id: int,
        encoder_decoder: bool,
        share_prefix: bool = False,
        packed: bool = False,
    ) -> None:
        self.pad_token_id = pad_token_id
        self.encoder_decoder = encoder_decoder
        self.share_prefix = share_prefix and not encoder_decoder
        self.packed = packed and not encoder_decoder

    def prompts(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, (B, S), of prompts alone, as decoding needs them."""
        left = not self.encoder_decoder
        return {
            "input_ids": pad(rows, self.pad_token_id, left),
            "attention_mask": pad([[1] * len(row) for row in rows], 0, left),
        }

    def __call__(self, examples: Sequence[Encoded]) -> dict[str, Any]:
        """The batch of these examples."""
        batch: dict[str, Any]
        if self.encoder_decoder:
            batch = self.prompts([e.prompt for e in examples])
            batch["labels"] = pad([e.labels() for e in examples], IGNORED, left=False)
            if any(e.counts for e in examples):
                batch["answers"] = pad([e.answer for e in examples], IGNORED, left=False)
            batch["index"] = torch.tensor([e.index for e in examples])
            return batch
        batch = self.prompts([e.prompt + e.answer for e in examples])
        labels = [[IGNORED] * len(e.prompt) + e.labels() for e in examples]
        batch["labels"] = pad(labels, IGNORED, left=True)
        batch["index"] = torch.tensor([e.index for e in examples])
        if self.share_prefix and (shared := shared_prefixes(examples)):
            batch["shared_prefixes"] = shared
        if self.packed and len(examples) > 1:
            batch["packed"] = True
        return batch


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on a device; what is no tensor stays as it is."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


class TrainingOrder(Sampler[int]):
    """A random order of a stage's examples, the same for (seed, epoch).

    Examples of one task share a batch with others of like length. Several tasks are mixed evenly,
    batch by batch: sorted by length, the tasks of an epoch would come one after another.

    Transformers' own sampler by length draws from the global generator, so its order after a
    restart differs; this one gets the epoch from accelerate (`set_epoch`).
    """

    def __init__(self, examples: Sequence[Encoded], batch_size: int, seed: int) -> None:
        self.lengths = [len(e) for e in examples]
        self.mixed = len({e.task for e in examples}) > 1
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, 0, 1, …; accelerate calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.mixed:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
