"""Several examples of a batch in one row, each of which reads itself alone: little is padding.

A batch (B, S) becomes fewer rows (R, W). Positions count from the first token of each example, and
the mask lets a token see what of its own example stands before it, and the prefix of its task where
that is in a cache already. So logits and gradients are those of the padded batch, to
rounding; dropout draws others.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from nlora.backbones.attention import OWN_MASK
from nlora.backbones.states import evaluating
from nlora.backbones.structure import accepts, base_model, wrappers
from nlora.data.encode import IGNORED
from nlora.fast.attention import NAME
from nlora.fast.prefix import why_not_plain

NARROWEST = 128
"""Tokens that a row has room for, where no example is longer: wider ones leave fewer gaps, and cost
more attention."""


class Packed(NamedTuple):
    """A batch as fewer rows."""

    inputs: dict[str, Tensor]
    """`input_ids`, `position_ids` (R, W) and an additive `attention_mask` (R, 1, W, P + W)."""
    targets: Tensor
    """(R, W)."""
    order: Tensor
    """Where among the targets of the rows, one row after another, each target of the batch is."""


def arranged(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """(row, first column) of each example, the longest first, and the shape of the rows.

    >>> arranged([100, 250, 90, 60])
    ([(1, 0), (0, 0), (1, 100), (1, 190)], (2, 250))
    """
    width = max([NARROWEST, *lengths])
    used: list[int] = []
    places = [(0, 0)] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, u in enumerate(used) if u + lengths[i] <= width), len(used))
        if row == len(used):
            used.append(0)
        places[i] = row, used[row]
        used[row] += lengths[i]
    return places, (len(used), max(used))


def pack(inputs: dict[str, Tensor], targets: Tensor, dtype: torch.dtype) -> Packed:
    """A batch of left-padded `input_ids` and `position_ids` (B, S), whose mask is (B, P + S).

    P tokens are in a cache that all rows have; which of them an example sees says its mask. The new
    mask is made in `dtype`.
    """
    ids, device = inputs["input_ids"], targets.device
    before = inputs["attention_mask"].shape[1] - ids.shape[1]
    own = inputs["attention_mask"][:, before:].bool()
    places, shape = arranged(own.sum(1).tolist())
    rows, starts = torch.tensor(places, device=device).unbind(1)
    example = torch.arange(len(ids), device=device)[:, None].expand_as(ids)[own]
    row, column = rows[example], starts[example] + (own.cumsum(1) - 1)[own]

    def put(values: Tensor, elsewhere: int) -> Tensor:
        made = values.new_full(shape, elsewhere)
        made[row, column] = values
        return made

    number = put(example, -1)
    sees = (number[:, :, None] == number[:, None]).tril()  # what is empty sees itself
    cached = inputs["attention_mask"][:, :before].bool()[number.clamp(min=0)]  # (R, W, P)
    sees = torch.cat([cached, sees], dim=2)[:, None]
    mask = torch.zeros(sees.shape, dtype=dtype, device=device)
    mask.masked_fill_(~sees, torch.finfo(dtype).min)
    packed = {
        "input_ids": put(ids[own], 0),
        "attention_mask": mask,
        "position_ids": put(inputs["position_ids"][own], 0),
    }
    counted = targets[own] != IGNORED
    flat = (row * shape[1] + column)[counted]
    return Packed(packed, put(targets[own], IGNORED), flat.argsort().argsort())


def why_not_packed(model: nn.Module) -> str | None:
    """Why examples cannot share a row of this model, or None if they can."""
    base: Any = base_model(model)
    if base.config.is_encoder_decoder:
        return "an encoder-decoder model pads prompts and answers apart"
    if any(getattr(wrapper, "prompted", False) for wrapper in wrappers(model)):
        return "soft prompts and gates are read with each text"
    attention = base.config._attn_implementation
    if attention not in (NAME, *OWN_MASK):
        return f"attention={attention} takes no mask by examples; set attention to auto or sdpa"
    if not accepts(type(base), "position_ids"):
        return f"{type(base).__name__} takes no positions"
    if (reason := why_not_plain(base)) is not None:
        return reason
    if reads_by_mask(base):
        return None
    return f"{type(base).__name__} reads more than the mask lets it see"


def reads_by_mask(base: Any) -> bool:
    """Whether a decoder-only model reads what a mask by token, (B, 1, S, T), lets it see."""
    if base.device.type == "meta":  # of an empty shell it cannot be seen
        return True
    if base not in _APART:
        _APART[base] = _reads_apart(base)
    return _APART[base]


_APART: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""What `_reads_apart` found, by model."""


@torch.no_grad()
def _reads_apart(base: Any) -> bool:
    """Whether two texts in one row are read as each is alone.

    Some models count positions, or make a mask, by themselves.
    """
    size = base.config.get_text_config().vocab_size
    ids = torch.arange(3, 15, device=base.device).view(2, 6) % size
    alone = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(6, device=base.device).expand(2, -1),
    }
    together = pack(alone, ids, base.dtype)
    with evaluating(base):
        expected = base(**alone, use_cache=False).logits.float().flatten(0, 1)
        try:
            found = base(**together.inputs, use_cache=False).logits.float().flatten(0, 1)
        except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError, IndexError):
            return False
    near = 1e-3 if base.dtype == torch.float32 else 0.1
    return bool((found[together.order] - expected).abs().max() <= near * expected.abs().max())
