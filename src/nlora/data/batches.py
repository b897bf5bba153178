"""From encoded examples to padded tensors, in an order that a resumed run repeats."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from nlora.data.encode import Encoded

IGNORED = -100
"""The label of a position that does not count in the loss."""


def pad(rows: Sequence[Sequence[int]], value: int, left: bool) -> Tensor:
    """Rows of ids as one (rows, longest) int64 tensor, padded on the left or on the right."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    side = "left" if left else "right"
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)


class Collator:
    """Pads encoded examples into one batch for training.

    Decoder-only: `input_ids`, `attention_mask`, `labels`, each (B, S), padded on the left; `labels`
    is IGNORED everywhere but at the answer and its end token, so that a padding token equal to the
    end token does no harm. Encoder-decoder: `input_ids`, `attention_mask` (B, S) hold the prompt,
    padded on the right, and `labels` (B, T) the answer.
    """

    def __init__(self, pad_token_id: int, encoder_decoder: bool) -> None:
        self.pad_token_id = pad_token_id
        self.encoder_decoder = encoder_decoder

    def prompts(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, (B, S), of prompts alone, as decoding needs them."""
        left = not self.encoder_decoder
        return {
            "input_ids": pad(rows, self.pad_token_id, left),
            "attention_mask": pad([[1] * len(row) for row in rows], 0, left),
        }

    def __call__(self, examples: Sequence[Encoded]) -> dict[str, Tensor]:
        """The batch of these examples."""
        if self.encoder_decoder:
            batch = self.prompts([e.prompt for e in examples])
            batch["labels"] = pad([e.answer for e in examples], IGNORED, left=False)
            return batch
        batch = self.prompts([e.prompt + e.answer for e in examples])
        labels = [[IGNORED] * len(e.prompt) + e.answer for e in examples]
        batch["labels"] = pad(labels, IGNORED, left=True)
        return batch


class LengthGrouped(Sampler[int]):
    """Random order in which examples of like length share a batch, the same for (seed, epoch).

    Transformers' own sampler of this kind draws from the global generator, so its order after a
    restart differs; this one is told the epoch by accelerate (`set_epoch`).
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))
