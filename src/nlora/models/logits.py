"""Logits where answers are, and nowhere else, for encoder-decoder and decoder-only models.

Every method's loss gets its logits here, so no method knows what kind of model it trains. In
SmolLM2-135M the vocabulary projection is 21 % of the weights; projecting the prompt's positions
too would compute about thirty times as many logits as count.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from torch import Tensor, nn

from nlora.data.batches import IGNORED


class Answers(NamedTuple):
    """Logits (n, vocabulary) at the n answer tokens of a batch, and the tokens themselves (n,)."""

    logits: Tensor
    targets: Tensor


def answer_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Answers:
    """The logits that predict each answer token of a batch (`data.batches.Collator`)."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    labels = batch["labels"]
    base = base_model(model)
    if base.config.is_encoder_decoder:
        keep = labels != IGNORED
        decoder_input_ids = base.prepare_decoder_input_ids_from_labels(labels=labels)
        logits = model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits
        return Answers(logits[keep], labels[keep])
    # Position s predicts token s + 1.
    next_labels = nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    keep = next_labels != IGNORED
    if accepts(type(base), "position_ids"):
        inputs["position_ids"] = positions(batch["attention_mask"])
    if accepts(type(base), "logits_to_keep"):
        logits = model(**inputs, logits_to_keep=keep, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -keep.shape[1] :][keep]
    return Answers(logits, next_labels[keep])


def positions(attention_mask: Tensor) -> Tensor:
    """Position of each token (B, S), counted from the first that is not padding."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


def base_model(model: nn.Module) -> nn.Module:
    """The Transformers model inside whatever wraps it (DDP, PEFT, soft prompts)."""
    while True:
        if hasattr(model, "module"):
            model = model.module  # type: ignore[assignment]
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()  # type: ignore[operator]
        else:
            return model


@cache
def accepts(kind: type[nn.Module], argument: str) -> bool:
    """Whether models of this class take the argument by name."""
    return argument in inspect.signature(kind.forward).parameters
