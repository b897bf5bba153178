"""Greedy decoding of one batch of prompts that were read, with drafts.

While an answer is the beginning of a label, the rest of that label is read along as a draft, and
what greedy decoding says at each of its tokens tells how much of it stands (speculative decoding):
a trained model's answers take two passes however long they are. A row leaves the batch when it is
done.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nlora.backbones.structure import accepts, base_model
from nlora.data.batches import pad
from nlora.data.encode import Encoder
from nlora.evaluation.expected import Expected
from nlora.evaluation.reading import EncoderRead, Read
from nlora.fast.prefix import continuing


class Decoding(ABC):
    """One batch. Rows are numbered as they came; `alive` are those still in it, in order."""

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        first: Tensor,
        expected: Sequence[Expected],
        max_new_tokens: int,
        ends: Sequence[int],
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.first = first
        """The logits that say each row's first token, (rows, 1, vocabulary)."""
        self.expected = expected
        self.max_new_tokens = max_new_tokens
        self.ends = set(ends)
        self.new: list[list[int]] = [[] for _ in expected]
        self.alive = list(range(len(expected)))

    def run(self) -> list[str]:
        """The texts that follow the prompts."""
        going = self._take(self.first.argmax(-1).tolist(), [[] for _ in self.alive])
        self.stay([position for position, _ in going])
        while self.alive:
            drafts = [self.expected[row].draft(self.new[row]) for row in self.alive]
            going = self._take(self.read(drafts), drafts)
            self.stand([count for _, count in going], [position for position, _ in going])
        return [self.encoder.text(ids).strip() for ids in self.new]

    @abstractmethod
    def read(self, drafts: list[list[int]]) -> list[list[int]]:
        """What greedy decoding says after the last token of each row and after those of its draft;
        what else it says is of no account."""

    @abstractmethod
    def stay(self, positions: list[int]) -> None:
        """Let the rows at these positions of the batch alone go on; all of them may."""

    @abstractmethod
    def stand(self, counts: list[int], positions: list[int]) -> None:
        """Likewise after a pass in which so many tokens of each row that goes on were taken."""

    def padded(self, blocks: Sequence[Sequence[int]]) -> Tensor:
        """(rows, longest), padded on the right."""
        ids = pad(blocks, self.encoder.tokenizer.pad_token_id, left=False)
        return ids.to(self.model.device)

    def _take(self, says: list[list[int]], drafts: list[list[int]]) -> list[tuple[int, int]]:
        """Add to every row what is said as far as its draft agrees.

        Of each row that goes on its position among those alive, and how many tokens it got.
        """
        going = []
        for position, (said, draft) in enumerate(zip(says, drafts, strict=True)):
            stands = next((i for i, token in enumerate(draft) if said[i] != token), len(draft))
            if self._add(self.alive[position], said[: stands + 1]):
                going.append((position, stands + 1))
        self.alive = [self.alive[position] for position, _ in going]
        return going

    def _add(self, row: int, tokens: list[int]) -> bool:
        """Add tokens to a row until it is done; whether it goes on."""
        new = self.new[row]
        for token in tokens:
            if token in self.ends:
                return False
            new.append(token)
            reachable = self.expected[row].reachable(self.encoder.text(new))
            if not reachable or len(new) == self.max_new_tokens:
                return False
        return True


class AfterPrompt(Decoding):
    """Decoder-only models with a plain cache: tokens of drafts that do not stand are masked."""

    def __init__(self, model: Any, encoder: Encoder, batch: Read, *rest: Any) -> None:
        super().__init__(model, encoder, batch.logits, *rest)
        self.cache = batch.cache
        self.mask = batch.inputs["attention_mask"]
        """Which positions of the cache count, (alive, S)."""
        self.place = batch.inputs["position_ids"][:, -1:]
        """The position of each row's last token that was read, (alive, 1)."""

    def read(self, drafts: list[list[int]]) -> list[list[int]]:
        rows = zip(self.alive, drafts, strict=True)
        ids = self.padded([[self.new[row][-1], *draft] for row, draft in rows])
        self._width = ids.shape[1]
        self.mask = torch.nn.functional.pad(self.mask, (0, self._width), value=1)
        ahead = torch.arange(1, self._width + 1, device=ids.device)
        kind = type(base_model(self.model))
        more = {"position_ids": self.place + ahead} if accepts(kind, "position_ids") else {}
        going_on = continuing(self.model, self.cache)
        logits = self.model(input_ids=ids, attention_mask=self.mask, **more, **going_on).logits
        return logits.argmax(-1).tolist()

    def stay(self, positions: list[int]) -> None:
        if len(positions) < len(self.mask):
            index = torch.tensor(positions, dtype=torch.long, device=self.mask.device)
            self.cache.batch_select_indices(index)
            self.mask, self.place = self.mask[index], self.place[index]

    def stand(self, counts: list[int], positions: list[int]) -> None:
        self.stay(positions)
        if not counts:
            return
        count = torch.tensor(counts, device=self.mask.device)[:, None]
        order = torch.arange(self._width, device=self.mask.device)
        self.mask[:, -self._width :] = order < count
        self.place = self.place + count


class AfterEncoder(Decoding):
    """Models of T5's kind, which count positions in their cache.

    So it keeps as many tokens as all rows have, and those that have more read the rest again.
    """

    def __init__(self, model: Any, encoder: Encoder, batch: EncoderRead, *rest: Any) -> None:
        super().__init__(model, encoder, batch.logits, *rest)
        self.batch = batch
        self.known = 0
        """How many tokens of each answer the cache holds."""

    def read(self, drafts: list[list[int]]) -> list[list[int]]:
        rows = list(zip(self.alive, drafts, strict=True))
        ids = self.padded([self.new[row][self.known :] + draft for row, draft in rows])
        says = self.batch.follow(self.model, ids).argmax(-1).tolist()
        self._read = self.known + ids.shape[1]
        last = [len(self.new[row]) - 1 - self.known for row in self.alive]
        return [said[start:] for said, start in zip(says, last, strict=True)]

    def stay(self, positions: list[int]) -> None:
        if len(positions) < len(self.batch.mask):
            index = torch.tensor(positions, dtype=torch.long, device=self.batch.mask.device)
            self.batch = self.batch.of(index)

    def stand(self, counts: list[int], positions: list[int]) -> None:
        self.stay(positions)
        if counts:
            # The last token of a row was said and not yet read.
            self.known = min(len(self.new[row]) for row in self.alive) - 1
            self.batch.cache.crop(self.known - self._read)
