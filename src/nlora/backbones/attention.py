"""How a model attends, by the names that Transformers has for it (`attn_implementation`).

`auto` is what Transformers takes by itself, PyTorch's fused kernel (sdpa) for most models; on CPUs
`fast.attention` then takes its place. Any other choice is the one that computes.
"""

from typing import Any, Literal

from nlora.errors import NloraError

Attention = Literal[
    "auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"
]

_FLAGS = {"sdpa": "_supports_sdpa", "flex_attention": "_supports_flex_attn"} | {
    f"flash_attention_{version}": "_supports_flash_attn" for version in (2, 3)
}
"""What says of a model's class that it can be computed so; any can by `eager`."""

OWN_MASK = ("sdpa", "eager")
"""Those to which a mask of any form can be given."""


def missing_here(attention: Attention, precision: str) -> str | None:
    """What this machine or a run lacks for it, and what to do; None if nothing."""
    if attention in ("auto", *OWN_MASK):
        return None
    import torch
    from transformers.utils.import_utils import (
        is_flash_attn_2_available,
        is_flash_attn_3_available,
    )

    if not torch.cuda.is_available():
        return "needs a GPU: leave it at auto here, or take sdpa or eager"
    if attention == "flex_attention":
        return None
    # Transformers would otherwise fetch a kernel from the Hub and run it.
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        return "needs flash-attn: pip install flash-attn --no-build-isolation"
    if attention == "flash_attention_3" and not is_flash_attn_3_available():
        return "needs flash-attn-3, which its makers' pages say how to build"
    if precision == "fp32":
        return "computes in bf16, and precision is fp32: set precision=bf16"
    return None


def check_here(attention: Attention, precision: str) -> None:
    """Raise NloraError if this machine or a run cannot compute it."""
    lacking = missing_here(attention, precision)
    if lacking is not None:
        raise NloraError(f"attention={attention} {lacking}")


def check_known(attention: Attention, shell: Any) -> None:
    """Raise NloraError if the model, of which the class counts, cannot be computed so."""
    flag = _FLAGS.get(attention)
    if flag is None or getattr(shell, flag, False):
        return
    known = ["eager", *(name for name, flag in _FLAGS.items() if getattr(shell, flag, False))]
    raise NloraError(
        f"attention={attention} is not there for {type(shell).__name__} in Transformers, which has "
        f"{', '.join(known)} for it"
    )
