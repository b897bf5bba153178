"""Backbones: a model and its tokenizer, by built-in name, folder or Hugging Face name."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nlora.backbones.attention import Attention, check_known
from nlora.backbones.catalog import Base, nearest_hint
from nlora.backbones.hardware import device
from nlora.backbones.quantized import (
    Quantization,
    dequantizer,
    keep_differentiable,
    quantized,
    quantizer,
    stored_as,
)
from nlora.backbones.sharding import shard
from nlora.data.hub import hub_reachable
from nlora.errors import NloraError, first_line

_TOKENIZER = re.compile(
    r"tokenizer|vocab|merges|spiece|sentencepiece|source\.spm|.*\.(model|tiktoken|bpe)$"
)
"""How files of tokenizers begin."""


@dataclass
class Backbone:
    """A pretrained model, ready to be given an adapter."""

    name: str
    title: str
    revision: str | None
    model: Any
    tokenizer: Any
    recommended: dict[str, dict] = field(default_factory=dict)
    quantized: str | None = None
    """How its weights are quantised ("gptq", "bitsandbytes", …); None where they are plain."""

    @property
    def encoder_decoder(self) -> bool:
        """Whether the model reads with an encoder (T5) or continues its input (Llama)."""
        return bool(self.model.config.is_encoder_decoder)


def load(
    base: Base,
    dtype: torch.dtype,
    weights: bool = True,
    quantization: Quantization = "none",
    sharded: bool = False,
    attention: Attention = "auto",
) -> Backbone:
    """Load a model (`catalog.find`) in `dtype` onto the device. No remote code is run.

    Without `weights` it is an empty shell, to count parameters. `quantization` is of the weights in
    memory. With `sharded` each process keeps a share of the layers. Raises NloraError if there is
    no such model, if it is no language model, and where it cannot be quantised or sharded, is
    quantised already, or has no such attention.
    """
    import transformers
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    transformers.utils.logging.disable_progress_bar()
    where = _where(base)
    try:
        config = AutoConfig.from_pretrained(base.target, **where)
        _answers_in_order(config)
        stored = stored_as(config)
        if quantization != "none" and stored is not None:
            raise NloraError(
                f"model '{base.name}' is stored quantised already ({stored}); leave the setting "
                "quantization out"
            )
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        attends = {}
        if attention != "auto":
            with torch.device("meta"):
                check_known(attention, kind.from_config(config))
            attends["attn_implementation"] = attention
        if weights:
            if quantization != "none":
                where["quantization_config"] = quantizer(quantization, dtype)
            elif stored is not None and (plain := dequantizer(stored)) is not None:
                where["quantization_config"] = plain
            if quantization != "none" or stored is not None:
                where["device_map"] = {"": device()}  # such a model cannot be moved
            model: Any = kind.from_pretrained(
                base.target, config=config, dtype=dtype, **where, **attends
            )
            if "device_map" in where:
                keep_differentiable(model)
            elif sharded:
                model = shard(model, base.name)
            else:
                model = model.to(device())
        else:
            with torch.device("meta"):
                model = kind.from_config(config, dtype=dtype, **attends)
        told = quantized(model) if weights else stored
        _check_tokenizer(base)
        place = {k: v for k, v in where.items() if k in ("revision", "local_files_only")}
        tokenizer = AutoTokenizer.from_pretrained(base.target, config=config, **place)
    except NloraError:
        raise
    except Exception as error:  # files of somebody else: there is no end of what can be wrong
        raise NloraError(
            f"model '{base.name}' could not be loaded: {_reason(error)}{nearest_hint(base.name)}"
        ) from error
    pad = tokenizer.pad_token_id
    if pad is None or pad >= embedding_rows(model):
        # Padding is masked wherever it stands, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    return Backbone(
        name=base.name,
        title=base.title,
        revision=base.revision,
        model=model,
        tokenizer=tokenizer,
        recommended=base.recommended,
        quantized=told if quantization == "none" else quantization,
    )


def own_dtype(base: Base) -> torch.dtype:
    """In which numbers the base model is published, as its configuration says; else fp32.

    Raises NloraError where it has no configuration that can be read.
    """
    from transformers import AutoConfig

    try:
        told = AutoConfig.from_pretrained(base.target, **_where(base)).dtype
    except Exception as error:
        raise NloraError(f"model '{base.name}' could not be loaded: {_reason(error)}") from error
    return told if isinstance(told, torch.dtype) else torch.float32


def _where(base: Base) -> dict[str, Any]:
    """The arguments of `from_pretrained` beside the place."""
    if Path(base.target).is_dir():
        return {}
    reachable = hub_reachable(base.target, "config.json")
    return {"revision": base.revision} | ({} if reachable else {"local_files_only": True})


def _reason(error: Exception) -> str:
    """What was wrong with a model's files, in one line."""
    said = str(error)
    if "weights_only" in said:  # its advice is to unpickle without restriction
        return "its weights are pickled, and hold more than tensors; save them as safetensors"
    if isinstance(error, RecursionError):
        return "one of its JSON files is nested too deeply"
    return first_line(error)


def embedding_rows(model: Any) -> int:
    """For how many token ids the model has an embedding."""
    return model.get_input_embeddings().weight.shape[0]


def _check_tokenizer(base: Base) -> None:
    """Raise NloraError for a folder without a tokenizer: Transformers would make an empty one."""
    folder = Path(base.target)
    if folder.is_dir() and not any(_TOKENIZER.match(path.name) for path in folder.iterdir()):
        raise NloraError(
            f"model '{base.name}' has no tokenizer files; save its tokenizer into {folder} "
            "(`tokenizer.save_pretrained`)"
        )


def _answers_in_order(config: Any) -> None:
    """Let a model without an encoder read nothing that follows, and one with an encoder begin.

    BERT and its like read in both directions unless they are told to be decoders.
    """
    if not config.is_encoder_decoder:
        for name in ("is_decoder", "causal"):
            if getattr(config, name, None) is False:
                setattr(config, name, True)
    elif getattr(config, "decoder_start_token_id", None) is None:
        first = getattr(config, "bos_token_id", None)
        config.decoder_start_token_id = config.pad_token_id if first is None else first
        if config.decoder_start_token_id is None:
            raise NloraError(
                "the model does not say which token its answers begin with; set "
                "decoder_start_token_id in its config.json"
            )
