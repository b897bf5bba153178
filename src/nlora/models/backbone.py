"""Backbones: a model and its tokenizer, by built-in name, folder or Hugging Face name."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nlora.errors import NloraError
from nlora.models.attention import use_plain_attention
from nlora.models.catalog import Resolved, nearest_hint


@dataclass
class Backbone:
    """A pretrained model, ready to be given a carrier."""

    name: str
    title: str
    revision: str | None
    model: Any
    tokenizer: Any
    recommended: dict[str, dict] = field(default_factory=dict)

    @property
    def encoder_decoder(self) -> bool:
        """Whether the model reads with an encoder (T5) or continues its input (Llama)."""
        return bool(self.model.config.is_encoder_decoder)


def bf16_is_faster() -> bool:
    """Whether this machine multiplies bf16 matrices faster than fp32 ones."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())


def device() -> torch.device:
    """Where models run: the first CUDA device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(resolved: Resolved, dtype: torch.dtype, weights: bool = True) -> Backbone:
    """Load a model (`catalog.resolve`) in `dtype` onto the device. No remote code is run.

    Without `weights` it is an empty shell, to count parameters. Raises NloraError if there is no
    such model, or if it is no language model.
    """
    import transformers
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    transformers.utils.logging.disable_progress_bar()
    where = {"revision": resolved.revision} if not Path(resolved.target).is_dir() else {}
    try:
        config = AutoConfig.from_pretrained(resolved.target, **where)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        if weights:
            model: Any = kind.from_pretrained(resolved.target, dtype=dtype, **where)
            model = model.to(device())
            if model.device.type == "cpu":
                use_plain_attention(model)
        else:
            with torch.device("meta"):
                model = kind.from_config(config, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(resolved.target, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise NloraError(
            f"model '{resolved.name}' could not be loaded: {reason}{nearest_hint(resolved.name)}"
        ) from error
    if tokenizer.pad_token_id is None:
        # Padding is masked wherever it stands, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    return Backbone(
        name=resolved.name,
        title=resolved.title,
        revision=resolved.revision,
        model=model,
        tokenizer=tokenizer,
        recommended=resolved.recommended,
    )
