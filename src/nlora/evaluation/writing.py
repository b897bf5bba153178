"""Texts that a model writes after prompts: greedily, or drawn at random."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from nlora.backbones.structure import PLAIN, base_model, end_tokens
from nlora.data.batches import Collator, by_budget, on_device
from nlora.data.encode import Encoder
from nlora.evaluation.greedy import until
from nlora.fast.prefix import has_cache

COLDEST = 1e-4
"""Below this temperature a draw is the most likely token, and what is divided by it overflows."""


Tell = Callable[[str], object] | None
"""Is told a text after each of its tokens, as far as it is written."""
Over = Callable[[Callable[[], str]], bool] | None
"""Is asked after each token of a text whether it is over, and may read what is written so far."""


@dataclass(frozen=True)
class Writing:
    """How texts are written."""

    max_new_tokens: int
    temperature: float = 0.0
    """0, or less than `COLDEST`: the most likely token each time."""
    top_p: float = 1.0
    seed: int | None = None
    """Of what is drawn for all prompts of a call; None: another text each time."""

    @property
    def drawn(self) -> bool:
        """Whether tokens are drawn at random."""
        return self.temperature >= COLDEST and self.top_p > 0


class Written(NamedTuple):
    """A text, and how many tokens it and its prompt have."""

    text: str
    prompt_tokens: int
    new_tokens: int
    ended: bool
    """Whether the model ended it, before it was cut at `max_new_tokens`."""


def write(
    model: Any,
    encoder: Encoder,
    prompts: Sequence[list[int]],
    how: Writing,
    batch_tokens: int,
    ends: Collection[int] = (),
    tells: Sequence[Tell] = (),
    overs: Sequence[Over] = (),
) -> list[Written]:
    """The texts that follow the prompts (token ids), in their order.

    A text ends at an end token of the model or its tokenizer, or one of `ends`. `batch_tokens`
    bounds rows × longest row; `tells` may have a listener per prompt, and `overs` who says that it
    is over before. The model is put into evaluation mode.
    """
    model.eval()
    stops = list(dict.fromkeys([*end_tokens(model, encoder.tokenizer), *ends]))
    collator = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder)
    drawn = {"do_sample": True, "temperature": how.temperature, "top_p": how.top_p, "top_k": 0}
    chosen: dict[str, Any] = drawn if how.drawn else {"do_sample": False}
    if how.drawn:
        if how.seed is None:
            torch.seed()  # it does not go on from the seed of an earlier call
        else:
            torch.manual_seed(how.seed)
    found: dict[int, Written] = {}
    with torch.inference_mode():
        for rows in by_budget([len(p) for p in prompts], batch_tokens):
            inputs = on_device(collator.prompts([prompts[i] for i in rows]), model.device)
            told = [tells[i] for i in rows] if tells else []
            start = 1 if encoder.encoder_decoder else inputs["input_ids"].shape[1]
            over = _Over(encoder, start, stops, [overs[i] for i in rows] if overs else [])
            out = model.generate(
                **inputs,
                **{**PLAIN, **chosen},
                streamer=_Telling(encoder, stops, told) if any(told) else None,
                stopping_criteria=StoppingCriteriaList([over] if any(over.overs) else []),
                max_new_tokens=how.max_new_tokens,
                use_cache=has_cache(base_model(model)),
                eos_token_id=stops,
                pad_token_id=encoder.tokenizer.pad_token_id,
            )
            for row, (i, ids) in enumerate(zip(rows, out[:, start:].tolist(), strict=True)):
                ids = ids[: over.lengths.get(row)]
                new = until(ids, stops)
                ended = len(new) < len(ids)
                text = encoder.text(new)
                found[i] = Written(text, len(prompts[i]), len(new) + ended, ended)
    return [found[i] for i in range(len(prompts))]


class _Over(StoppingCriteria):
    """Ends the rows of a batch that somebody says are over."""

    def __init__(
        self, encoder: Encoder, start: int, stops: Sequence[int], overs: Sequence[Over]
    ) -> None:
        self.overs = overs
        self.lengths: dict[int, int] = {}
        """How many new tokens the rows have that are."""
        self._encoder = encoder
        self._start = start
        self._stops = stops

    def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Tensor:
        """Which rows are over, (B,)."""
        for row, over in enumerate(self.overs):
            if over is None or row in self.lengths:
                continue
            if over(partial(self._text, input_ids[row])):  # read only if need be
                self.lengths[row] = input_ids.shape[1] - self._start
        ended = [row in self.lengths for row in range(len(input_ids))]
        return torch.tensor(ended, device=input_ids.device)

    def _text(self, ids: Tensor) -> str:
        return self._encoder.text(until(ids[self._start :].tolist(), self._stops))


class _Telling(BaseStreamer):
    """Tells the rows of a batch as their tokens come."""

    def __init__(self, encoder: Encoder, stops: Sequence[int], tells: Sequence[Tell]) -> None:
        self._encoder = encoder
        self._stops = stops
        self._rows: list[tuple[Tell, list[int]]] | None = None
        self._tells = tells

    def put(self, value: Tensor) -> None:
        """The next token of each row; first of all the prompts."""
        if self._rows is None:
            self._rows = [(tell, []) for tell in self._tells]
            return
        for (tell, ids), token in zip(self._rows, value.tolist(), strict=True):
            if tell is None or (ids and ids[-1] in self._stops):
                continue
            ids.append(token)
            if token not in self._stops:
                tell(self._encoder.text(ids))

    def end(self) -> None:
        """Nothing: the whole texts are returned."""
