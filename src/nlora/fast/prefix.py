"""A prefix that all rows of a batch share, read once.

Within a task the instruction and the option list are the same for every example. In a causal model
their keys and values depend on nothing that follows, so they are computed for one row, with
gradient, and expanded to the batch: B·(P + T) tokens become P + B·T. The result is the same to
rounding; only with LoRA dropout does one mask serve the prefix of all rows.
"""

import logging
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nlora.backbones.states import evaluating
from nlora.backbones.structure import accepts, base_model, cache_argument, wrappers

log = logging.getLogger("nlora")


def read_prefix(model: nn.Module, prefix: Tensor) -> DynamicCache | None:
    """Keys and values of a prefix (P,) of ids, for one row.

    None where that does not apply; the log says why not, once.
    """
    reason = why_not(model)
    if reason is not None:
        _say_once(reason)
        return None
    base = base_model(model)
    cache = DynamicCache(config=base.config)
    few = {}
    if accepts(type(base), "logits_to_keep"):  # an index: a slice is not contiguous, so `matmul`
        few["logits_to_keep"] = torch.zeros(1, dtype=torch.long, device=prefix.device)  # copies
    inputs = {"input_ids": prefix[None], "attention_mask": torch.ones_like(prefix)[None]}
    model(**inputs, **few, **continuing(model, cache))
    return cache


def continuing(model: nn.Module, cache: DynamicCache) -> dict[str, Any]:
    """The arguments that make a model go on from a cache, and add to it."""
    name = cache_argument(type(base_model(model)))
    assert name is not None
    return {name: cache, "use_cache": True}


def without_prefix(inputs: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    """The inputs of left-padded rows (B, S) whose first `length` tokens are in the cache already.

    The longest row starts with its prefix and is cut behind it; in shorter rows what is left of
    padding and prefix is masked. The mask (B, S) is that of prefix and rest together.
    """
    tokens = inputs["attention_mask"].sum(1, keepdim=True)  # (B, 1)
    columns = torch.arange(inputs["input_ids"].shape[1], device=tokens.device)
    rest = columns >= columns.shape[0] - (tokens - length)  # (B, S): tokens behind the prefix
    mask = (rest | (columns < length)).to(inputs["attention_mask"].dtype)
    cut = {name: value[:, length:] for name, value in inputs.items()}
    return {**cut, "attention_mask": mask}


def why_not(model: nn.Module) -> str | None:
    """Why this model cannot read a shared prefix once, or None if it can."""
    base: Any = base_model(model)
    if base.config.is_encoder_decoder:
        return "encoder-decoder models read each prompt whole"
    if any(getattr(wrapper, "prompted", False) for wrapper in wrappers(model)):
        return "soft prompts and gates are read with the whole text"
    if base.training and base.is_activation_checkpointing:
        return "gradient checkpointing keeps no keys and values"
    if base not in _REASONS:
        _REASONS[base] = _why_never(base)
    return _REASONS[base]


_REASONS: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()
"""What `_why_never` found, by model: it is asked of each batch."""


def _why_never(base: Any) -> str | None:
    """Why a decoder-only model can never go on from a cache, or None if it can."""
    if (reason := why_not_plain(base)) is not None:
        return reason
    if base.device.type == "meta" or _goes_on(base):  # of an empty shell it cannot be seen
        return None
    return f"{type(base).__name__} does not go on from a cache"


def why_not_plain(base: Any) -> str | None:
    """Why not all layers of a decoder-only model attend to all that stands before, or None."""
    kind = type(base).__name__
    if getattr(base, "_is_stateful", False) or cache_argument(type(base)) is None:
        return f"{kind} keeps a state instead of keys and values"
    if not has_cache(base):
        return f"{kind} does not say what it keeps"
    layers = DynamicCache(config=base.config).layers
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return f"{kind} has layers with a sliding window or a state"
    return None


def has_cache(base: Any) -> bool:
    """Whether Transformers can make a cache for this model, from what its configuration says."""
    try:
        DynamicCache(config=base.config)
    except AttributeError:  # no number of layers, where a model consists of several parts
        return False
    return True


@torch.no_grad()
def _goes_on(base: Any) -> bool:
    """Whether a few tokens read behind others give what reading all at once gives.

    Some older models take a cache and no mask that is longer than their input, or count positions
    from the input's first token.
    """
    ids = torch.arange(3, 9, device=base.device)[None] % base.config.get_text_config().vocab_size
    ones = torch.ones_like(ids)
    places = torch.arange(ids.shape[1], device=base.device)[None]

    def read(start: int, stop: int, **more: Any) -> Tensor:
        if accepts(type(base), "position_ids"):
            more["position_ids"] = places[:, start:stop]
        inputs = {"input_ids": ids[:, start:stop], "attention_mask": ones[:, :stop]}
        return base(**inputs, **more).logits[:, -1].float()

    with evaluating(base):
        whole = read(0, ids.shape[1], use_cache=False)
        cache = DynamicCache(config=base.config)
        try:
            read(0, 4, **continuing(base, cache))
            parts = read(4, ids.shape[1], **continuing(base, cache))
        except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError, IndexError):
            return False
    near = 1e-3 if base.dtype == torch.float32 else 0.1
    return bool((whole - parts).abs().max() <= near * whole.abs().max())


@lru_cache
def _say_once(reason: str) -> None:
    log.info("the shared prefix is not computed once: %s", reason)
