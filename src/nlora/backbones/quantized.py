"""Base models whose weights are quantised: on loading (bitsandbytes), or as they are stored.

Stored ones stay as they are where PEFT trains adapters on such weights (GPTQ, AWQ, bitsandbytes, …)
and else are made plain numbers where Transformers can (compressed-tensors, FP8, MXFP4), which takes
the memory of a plain model. Others are refused.
"""

import importlib.util
from typing import Any, Literal

import torch

from nlora.errors import NloraError

Quantization = Literal["none", "4bit", "8bit"]

_TRAINABLE = ("bitsandbytes", "gptq", "awq", "aqlm", "hqq", "eetq", "torchao")
"""Kinds of stored weights for which PEFT has layers."""

_DEQUANTISED = {
    "compressed-tensors": "CompressedTensorsConfig",
    "fp8": "FineGrainedFP8Config",
    "mxfp4": "Mxfp4Config",
}
"""Kinds for which it has none, but which Transformers makes plain numbers of on loading."""


def quantizer(kind: Quantization, dtype: torch.dtype) -> Any:
    """What Transformers loads a model with: NF4 with doubly quantised scales, or LLM.int8.

    Matrices are multiplied in `dtype`. Raises NloraError where bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise NloraError(
            f"quantization={kind} needs bitsandbytes: pip install 'nlora[quantized]' (on a machine "
            "whose torch is to stay: pip install --no-deps bitsandbytes)"
        )
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def stored_as(config: Any) -> str | None:
    """How a model's weights are quantised as they are stored ("gptq", "awq", …), if they are.

    Raises NloraError for a kind on which PEFT trains no adapters.
    """
    told = getattr(config, "quantization_config", None)
    if told is None:
        return None
    method = told.get("quant_method") if isinstance(told, dict) else told.quant_method
    kind = str(getattr(method, "value", method))
    if kind not in (*_TRAINABLE, *_DEQUANTISED):
        raise _no_training(kind)
    return kind


def dequantizer(stored: str) -> Any:
    """What Transformers loads such a model with, as plain numbers; None for kinds that stay."""
    import transformers

    name = _DEQUANTISED.get(stored)
    return getattr(transformers, name)(dequantize=True) if name else None


def quantized(model: Any) -> str | None:
    """How a loaded model is quantised; None where its weights are plain numbers.

    Raises NloraError for a kind on which adapters cannot be trained.
    """
    if not getattr(model, "is_quantized", False):
        return None
    kind = stored_as(model.config) or "unknown"
    if not getattr(model.hf_quantizer, "is_trainable", False):
        raise _no_training(kind)
    return kind


def _no_training(kind: str) -> NloraError:
    return NloraError(
        f"the model is stored quantised ({kind}), and no adapter can be trained on weights of that "
        "kind; take it unquantised, with quantization=4bit if memory is short"
    )


def keep_differentiable(model: Any) -> None:
    """Let every pass through a model of 4-bit matrices be one that gradients go back through.

    In evaluation on CPUs with AVX-512 bitsandbytes packs them for a product that has no gradient,
    and keeps using it in the training that follows; it fails where rows are no whole blocks of 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
