"""Hidden states where an answer begins: what the output layer reads to say its first token."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nlora.backbones.structure import base_model
from nlora.data.batches import Collator, by_budget, on_device
from nlora.data.encode import Encoded, Encoder
from nlora.data.task import Example
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits


def answer_states(
    model: Any,
    encoder: Encoder,
    examples: Sequence[Example],
    batch_tokens: int = 2048,
    advance: Callable[[int], None] = lambda count: None,
) -> Tensor:
    """The state from which the model says the first token of its answer to each example, (n, d).

    In fp32, on the CPU: the last hidden state of the prompt's last token after the final norm, of
    an encoder-decoder the decoder's first. `batch_tokens` bounds rows × longest row. The model is
    put into evaluation mode. Raises NloraError if it has no output layer to be looked at.
    """
    model.eval()
    end = encoder.tokenizer.eos_token_id
    rows = [Encoded(ids, [end], False) for ids, _ in encoder.prompts(examples)]
    collate = Collator(encoder.tokenizer.pad_token_id, encoder.encoder_decoder, share_prefix=True)
    found: dict[int, Tensor] = {}
    with torch.inference_mode(), _read_by_output(model) as seen:
        for chosen in by_budget([len(row) for row in rows], batch_tokens):
            answer_logits(model, on_device(collate([rows[i] for i in chosen]), model.device))
            found.update(zip(chosen, _last_but_end(seen[-1], len(chosen)), strict=True))
            seen.clear()
            advance(len(chosen))
    return torch.stack([found[i] for i in range(len(rows))])


@contextmanager
def _read_by_output(model: Any) -> Iterator[list[Tensor]]:
    """What the output layer has read, call by call."""
    layer = base_model(model).get_output_embeddings()
    if layer is None:
        raise NloraError(f"{type(base_model(model)).__name__} has no output layer to look at")
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _last_but_end(states: Tensor, rows: int) -> Tensor:
    """Of each row the state that predicts its one answer token, which ends it.

    Where the output layer reads answers alone these are all it read; else every position, and the
    last one of each row is the answer token itself.
    """
    if states.numel() == rows * states.shape[-1]:
        return states.reshape(rows, -1).float().cpu()
    return states[:, -2].float().cpu()
