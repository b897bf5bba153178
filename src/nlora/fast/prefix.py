"""Prefixes that rows of a batch share, each read once.

Within a task the instruction and the option list are the same for every example. In a causal model
their keys and values depend on nothing that follows, so they are computed for one row of each of G
tasks, with gradient, and expanded to the batch: B·(P + T) tokens become G·P + B·T. The result is
the same to rounding; only with LoRA dropout does one mask serve the prefix of all rows of a task.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from nlora.backbones.states import evaluating
from nlora.backbones.structure import accepts, base_model, cache_argument, positions, wrappers
from nlora.data.batches import Shared

log = logging.getLogger("nlora")


class Prefixes(NamedTuple):
    """The G prefixes of a batch of B rows, read once, padded on the left to P tokens."""

    read: DynamicCache
    """Keys and values of G rows."""
    mask: Tensor
    """Which of their tokens count, (G, P)."""
    of: Tensor
    """With which prefix each row begins, (B,)."""

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row begins with, (B,)."""
        return self.mask.sum(1)[self.of]

    def seen(self, packed: bool) -> Tensor:
        """What each row sees of the cache that `cache` gives, (B, P) or packed (B, G·P)."""
        own = self.mask[self.of]
        if not packed:
            return own
        which = torch.nn.functional.one_hot(self.of, len(self.mask))  # (B, G)
        return (which[:, :, None] * own[:, None]).flatten(1)

    def cache(self, rows: int, packed: bool) -> DynamicCache:
        """What was read, for so many rows: each has its own prefix, or where examples share rows
        (`packed`) all prefixes, one behind another. To be asked for once."""

        def expanded(part: Tensor) -> Tensor:  # (G, heads, P, d)
            if packed:
                part = part.transpose(0, 1).flatten(1, 2)[None]
            if len(part) == 1:
                return part.expand(rows, -1, -1, -1)
            return part.index_select(0, self.of)

        for layer in self.read.layers:
            assert isinstance(layer, DynamicLayer)  # `why_not_plain`
            assert layer.keys is not None
            assert layer.values is not None
            layer.keys, layer.values = expanded(layer.keys), expanded(layer.values)
        return self.read


def read_prefixes(
    model: nn.Module, inputs: Mapping[str, Tensor], shared: Sequence[Shared]
) -> Prefixes | None:
    """The prefixes of left-padded rows, `input_ids` and `attention_mask` (B, S), of which groups
    are said to begin with the same tokens.

    None where that does not apply; the log says why not, once.
    """
    reason = why_not(model)
    if reason is None and len(shared) > 1 and not accepts(type(base_model(model)), "position_ids"):
        reason = "prefixes of several tasks need positions, which this model does not take"
    if reason is not None:
        _say_once(reason)
        return None
    ids, device = inputs["input_ids"], inputs["input_ids"].device
    first = torch.tensor([rows[0] for rows, _ in shared], device=device)
    lengths = torch.tensor([[length] for _, length in shared], device=device)
    longest = max(length for _, length in shared)
    columns = torch.arange(longest, device=device) - longest  # from the end of the prefixes
    starts = ids.shape[1] - inputs["attention_mask"].sum(1)
    prefixes = ids[first[:, None], (starts[first, None] + lengths + columns).clamp(min=0)]
    mask = (columns >= -lengths).to(inputs["attention_mask"].dtype)
    groups = {row: number for number, (rows, _) in enumerate(shared) for row in rows}
    of = torch.tensor([groups[row] for row in range(len(ids))], device=device)
    return Prefixes(read_prefix(model, prefixes, mask), mask, of)


def read_prefix(model: nn.Module, prefix: Tensor, mask: Tensor | None = None) -> DynamicCache:
    """Keys and values of prefixes (G, P) of ids, padded on the left where the mask says so."""
    base = base_model(model)
    cache = DynamicCache(config=base.config)
    more: dict[str, Any] = {}
    if accepts(type(base), "logits_to_keep"):  # an index: a slice is not contiguous, so `matmul`
        more["logits_to_keep"] = torch.zeros(1, dtype=torch.long, device=prefix.device)  # copies
    mask = torch.ones_like(prefix) if mask is None else mask
    if len(prefix) > 1:
        more["position_ids"] = positions(mask)
    model(input_ids=prefix, attention_mask=mask, **more, **continuing(model, cache))
    return cache


def continuing(model: nn.Module, cache: DynamicCache) -> dict[str, Any]:
    """The arguments that make a model go on from a cache, and add to it."""
    name = cache_argument(type(base_model(model)))
    assert name is not None
    return {name: cache, "use_cache": True}


def without_prefix(
    inputs: Mapping[str, Tensor], lengths: Tensor, seen: Tensor
) -> dict[str, Tensor]:
    """The inputs of left-padded rows (B, S) whose first `lengths` (B,) tokens are in a cache.

    They are cut to the longest rest; in others what is left of padding and prefix is masked.
    `seen` (B, P) says what each row sees of the cache; the mask is that of cache and rest together.
    """
    rest = inputs["attention_mask"].sum(1) - lengths
    width = int(rest.max())
    columns = torch.arange(width, device=rest.device)
    mask = torch.cat([seen, (columns >= width - rest[:, None]).to(seen.dtype)], dim=1)
    cut = {name: value[:, -width:] for name, value in inputs.items()}
    return {**cut, "attention_mask": mask}


def why_not(model: nn.Module) -> str | None:
    """Why this model cannot read a shared prefix once, or None if it can."""
    if any(getattr(wrapper, "prompted", False) for wrapper in wrappers(model)):
        return "soft prompts and gates are read with the whole text"
    return why_not_after(model)


def why_not_after(model: nn.Module) -> str | None:
    """Why this model cannot go on after whole texts that it has read once, or None if it can."""
    base: Any = base_model(model)
    if base.config.is_encoder_decoder:
        return "encoder-decoder models read each prompt whole"
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
    local = "local" in (getattr(base.config, "attention_layers", None) or ())  # GPT-Neo's own
    if local or not layers or any(type(layer) is not DynamicLayer for layer in layers):
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
    """Whether a few tokens read behind others give what reading all at once gives, also behind a
    gap that is masked, as shorter rows have it.

    Some older models take a cache and no mask that is longer than their input, count positions from
    the input's first token, or by columns (MPT).
    """
    with evaluating(base):
        whole = _read(base, _tokens(base))
        for gap in (0, 2):
            ids = torch.cat([_tokens(base)[:4], _tokens(base)[:gap], _tokens(base)[4:]])
            mask = torch.tensor([1] * 4 + [0] * gap + [1] * 2)
            cache = DynamicCache(config=base.config)
            try:
                _read(base, ids[:4], mask[:4], **continuing(base, cache))
                parts = _read(base, ids[4:], mask, **continuing(base, cache))
            except (
                RuntimeError,
                AssertionError,
                ValueError,
                TypeError,
                AttributeError,
                IndexError,
            ):
                return False
            if not _near(base, whole, parts):
                return False
    return True


@torch.no_grad()
def heeds_padding(base: Any) -> bool:
    """Whether a decoder-only model answers a row that is padded on the left as the row alone.

    Some do not read the mask (RWKV), or count positions by columns (BART's kind as a decoder).
    """
    ids = _tokens(base)
    with evaluating(base):
        padded = torch.cat([ids[:3], ids])
        mask = torch.tensor([0] * 3 + [1] * len(ids))
        return _near(base, _read(base, ids), _read(base, padded, mask))


def _tokens(base: Any) -> Tensor:
    return torch.arange(3, 9) % base.config.get_text_config().vocab_size


def _read(base: Any, ids: Tensor, mask: Tensor | None = None, **more: Any) -> Tensor:
    """The logits after the last of the ids (n,) of one row, whose mask (m,) may begin earlier."""
    mask = torch.ones_like(ids) if mask is None else mask
    if accepts(type(base), "position_ids"):
        more["position_ids"] = positions(mask[None])[:, -len(ids) :].to(base.device)
    inputs = {"input_ids": ids[None].to(base.device), "attention_mask": mask[None].to(base.device)}
    return base(**inputs, **{"use_cache": False, **more}).logits[:, -1].float()


def _near(base: Any, whole: Tensor, other: Tensor) -> bool:
    near = 1e-3 if base.dtype == torch.float32 else 0.1
    return bool((whole - other).abs().max() <= near * whole.abs().max())


@lru_cache
def _say_once(reason: str) -> None:
    log.info("the shared prefix is not computed once: %s", reason)
