"""Logits where answers are, and nowhere else, for encoder-decoder and decoder-only models.

Every method's loss gets its logits here, so no method knows what kind of model it trains. In
SmolLM2-135M the vocabulary projection is 21 % of the weights; projecting the prompt's positions
too would compute about thirty times as many logits as count.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from nlora.backbones.structure import accepts, base_model, positions
from nlora.data.batches import IGNORED
from nlora.fast.packing import pack
from nlora.fast.prefix import continuing, read_prefixes, without_prefix

HELD = 2**25
"""Logits held at a time where there are many: of whole texts, or of two models in turns."""


class Answers(NamedTuple):
    """Logits (n, vocabulary) at the n answer tokens of a batch, and the tokens themselves (n,)."""

    logits: Tensor
    targets: Tensor


def answer_logits(model: nn.Module, batch: Mapping[str, Any]) -> Answers:
    """The logits that predict each answer token of a batch (`data.batches.Collator`).

    What the batch says that its rows begin with, task by task (`shared_prefixes`), is read once
    (`fast.prefix`); where it is to be `packed`, examples share rows (`fast.packing`).
    """
    base: Any = base_model(model)
    labels: Tensor = batch["labels"]
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if base.config.is_encoder_decoder:
        keep = labels != IGNORED
        read = batch.get("answers", labels)
        decoder_input_ids = decoder_inputs(base, read)
        logits = model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits
        return Answers(logits[keep], labels[keep])
    # Position s predicts token s + 1.
    targets = nn.functional.pad(labels, (0, 1), value=IGNORED)[:, 1:]
    if accepts(type(base), "position_ids"):
        inputs["position_ids"] = positions(batch["attention_mask"])
    packed = bool(batch.get("packed"))
    prefixes = order = None
    if shared := batch.get("shared_prefixes"):
        prefixes = read_prefixes(model, inputs, shared)
    if prefixes is not None:
        inputs = without_prefix(inputs, prefixes.lengths, prefixes.seen(packed))
        targets = targets[:, -inputs["input_ids"].shape[1] :]
    if packed:
        inputs, targets, order = pack(inputs, targets, base.dtype)
    past: dict[str, Any] = {"use_cache": False}
    if prefixes is not None:
        past = continuing(model, prefixes.cache(len(targets), packed))
    keep = targets != IGNORED
    if accepts(type(base), "logits_to_keep"):
        logits = model(**inputs, **past, logits_to_keep=keep).logits
    else:
        logits = model(**inputs, **past).logits[keep]
    answers = Answers(logits, targets[keep])
    return answers if order is None else Answers(*(part[order] for part in answers))


def decoder_inputs(base: Any, labels: Tensor) -> Tensor:
    """What the decoder of an encoder-decoder model reads for labels (B, T): the start token first.

    Most models have a function of their own for it.
    """
    if hasattr(base, "prepare_decoder_input_ids_from_labels"):
        return base.prepare_decoder_input_ids_from_labels(labels=labels)
    start, pad = base.config.decoder_start_token_id, base.config.pad_token_id
    shifted = nn.functional.pad(labels, (1, 0), value=start)[:, :-1]
    return shifted.masked_fill(shifted == IGNORED, pad)
