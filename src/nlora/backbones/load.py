"""Backbones: a model and its tokenizer, by built-in name, folder or Hugging Face name."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nlora.backbones.catalog import Base, nearest_hint
from nlora.backbones.hardware import device
from nlora.errors import NloraError


@dataclass
class Backbone:
    """A pretrained model, ready to be given an adapter."""

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


def load(base: Base, dtype: torch.dtype, weights: bool = True) -> Backbone:
    """Load a model (`catalog.find`) in `dtype` onto the device. No remote code is run.

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
    where = {"revision": base.revision} if not Path(base.target).is_dir() else {}
    try:
        config = AutoConfig.from_pretrained(base.target, **where)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        if weights:
            model: Any = kind.from_pretrained(base.target, dtype=dtype, **where)
            model = model.to(device())
        else:
            with torch.device("meta"):
                model = kind.from_config(config, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(base.target, **where)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise NloraError(
            f"model '{base.name}' could not be loaded: {reason}{nearest_hint(base.name)}"
        ) from error
    if tokenizer.pad_token_id is None:
        # Padding is masked wherever it stands, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    return Backbone(
        name=base.name,
        title=base.title,
        revision=base.revision,
        model=model,
        tokenizer=tokenizer,
        recommended=base.recommended,
    )
