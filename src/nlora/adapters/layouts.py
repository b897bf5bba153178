"""Which vectors of a prompt are read with an input, and where: what prompt methods differ in.

    Concatenated    those of all updates that are read, before the text  (Progressive Prompts)
    Appended        those of the newest update, after the text           (LFPT5)
    Selected        of a pool those whose keys are nearest to the text   (L2P)

The text is the whole prompt of an example. In decoder-only models "after the text" is between it
and the answer, so that the last vector predicts the answer's first token.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nlora.backbones.states import masked_mean, mean_state

Update = Mapping[str, Tensor]
"""The tensors of one stage's update, by name."""


class Text(NamedTuple):
    """The texts of a batch, which may be padded on either side and followed by answers."""

    model: Any
    """The frozen Transformers model."""
    ids: Tensor
    """(B, S)"""
    embeds: Tensor
    """(B, S, d)"""
    mask: Tensor
    """(B, S), true at the text alone: neither at padding nor at an answer."""

    @property
    def start(self) -> Tensor:
        """The column of each row's first token, (B,)."""
        return self.mask.int().argmax(1)

    @property
    def stop(self) -> Tensor:
        """The column behind each row's last token, (B,)."""
        return self.start + self.mask.sum(1)


class Placed(NamedTuple):
    """Vectors (B, P, d) that stand before the columns (B,) of a batch."""

    vectors: Tensor
    column: Tensor


class Vocabulary:
    """What a model reads of its tokens: its embeddings, which some multiply (Gemma by √d).

    `factor` is what it multiplies them by outside of the module that holds them.
    """

    def __init__(self, embed: Any, factor: float = 1.0) -> None:
        self.embed = embed
        self.factor = factor

    @property
    def width(self) -> int:
        """d."""
        return self.embed.weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embed.weight.device

    def look_up(self, ids: Tensor) -> Tensor:
        """Those of tokens (B, S), (B, S, d)."""
        return self.embed(ids) * self.factor

    @torch.no_grad()
    def rows(self, ids: Tensor) -> Tensor:
        """Those of tokens (n,), (n, d) in fp32."""
        return self.look_up(ids.to(self.device)).float()

    def random(self, count: int) -> Tensor:
        """Those of random tokens, (count, d) in fp32."""
        return self.rows(torch.randint(len(self.embed.weight), (count,)))


class Layout(Protocol):
    """What a prompt method decides."""

    def fresh(self, vocabulary: Vocabulary) -> dict[str, Tensor]:
        """An update to be trained, from what the model reads of its tokens."""
        ...

    def place(self, updates: Sequence[Update], text: Text) -> Placed:
        """What is read of at least one update, the newest first."""
        ...

    def count(self, updates: int) -> int:
        """How many vectors are read beside a text when there are so many updates."""
        ...


class _Vectors:
    """`length` vectors per update, started at random rows of the vocabulary."""

    def __init__(self, length: int) -> None:
        self.length = length

    def fresh(self, vocabulary: Vocabulary) -> dict[str, Tensor]:
        """`prompt` (length, d)."""
        return {"prompt": vocabulary.random(self.length)}

    def count(self, updates: int) -> int:
        """Those of one update."""
        return self.length if updates else 0


class Concatenated(_Vectors):
    """The vectors of all updates before the text: [newest, …, oldest, text]."""

    def place(self, updates: Sequence[Update], text: Text) -> Placed:
        """All prompts, in the order given."""
        vectors = torch.cat([update["prompt"] for update in updates])
        return Placed(vectors.expand(len(text.ids), -1, -1), text.start)

    def count(self, updates: int) -> int:
        """Those of all updates."""
        return self.length * updates


class Appended(_Vectors):
    """The vectors of the newest update after the text: [text, newest]."""

    def place(self, updates: Sequence[Update], text: Text) -> Placed:
        """The first prompt given."""
        return Placed(updates[0]["prompt"].expand(len(text.ids), -1, -1), text.stop)


Query = Literal["hidden", "embedding"]


class Selected:
    """A pool of prompts with keys; each text is read behind the `top_k` whose keys are nearest.

    Nearest by cosine to the text's query: the mean of the frozen model's last hidden states
    (`hidden`), or of the tokens' embeddings (`embedding`).
    """

    def __init__(self, pool: int, length: int, top_k: int, query: Query) -> None:
        self.pool = pool
        self.length = length
        self.top_k = top_k
        self.query: Query = query
        self.chosen = torch.empty(0, top_k, dtype=torch.long)
        """Of the batch that was read last: which prompts, (B, k), the nearest first."""
        self.cosines = torch.empty(0, top_k)
        """… and the cosines of their keys with the query, (B, k), with a gradient to the keys."""

    def fresh(self, vocabulary: Vocabulary) -> dict[str, Tensor]:
        """`prompt` (pool, length, d), random rows of the vocabulary, and random `key` (pool, d)."""
        width = vocabulary.width
        prompts = vocabulary.random(self.pool * self.length)
        keys = torch.empty(self.pool, width).uniform_(-1, 1)
        return {
            "prompt": prompts.view(self.pool, self.length, width),
            "key": keys.to(vocabulary.device),
        }

    def place(self, updates: Sequence[Update], text: Text) -> Placed:
        """For each row the prompts that it selects, the nearest first."""
        pool = updates[0]
        keys = normalize(pool["key"], dim=-1)  # (N, d)
        cosines = normalize(self._queries(text), dim=-1) @ keys.T  # (B, N)
        self.cosines, self.chosen = cosines.topk(self.top_k)
        return Placed(pool["prompt"][self.chosen].flatten(1, 2), text.start)  # (B, k·L, d)

    def count(self, updates: int) -> int:
        """Those of the prompts that are selected."""
        return self.top_k * self.length if updates else 0

    def _queries(self, text: Text) -> Tensor:
        if self.query == "hidden":
            return mean_state(text.model, text.ids, text.mask)
        return masked_mean(text.embeds, text.mask)
