"""Models of random weights in the shapes of real ones, and what one training step of them takes."""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    Qwen3Config,
    T5Config,
)

from nlora.data.encode import Encoded

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ANSWER = 4
"""Tokens of an answer."""


@dataclass(frozen=True)
class Shape:
    """A model and the batch that it is trained on."""

    config: Any
    rows: int
    length: int
    steps: int = 6


SHAPES = {
    "t5-large": Shape(
        partial(T5Config, d_model=1024, d_ff=4096, num_layers=24, num_heads=16, vocab_size=32128),
        *(32, 512),
    ),
    "llama-3-8b": Shape(
        partial(
            LlamaConfig,
            **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
        ),
        *(16, 512),
    ),
    "qwen3-4b": Shape(
        partial(
            Qwen3Config,
            **{"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36},
            **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
            **{"vocab_size": 151936, "tie_word_embeddings": True},
        ),
        *(16, 512),
    ),
}
_TINY = {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32, "vocab_size": 64}
TINY = {
    "t5-large": Shape(
        partial(T5Config, d_model=16, d_ff=32, d_kv=8, num_layers=2, num_heads=2, vocab_size=64),
        *(4, 12, 2),
    ),
    "llama-3-8b": Shape(partial(LlamaConfig, num_hidden_layers=2, **_TINY), 4, 12, 2),
    "qwen3-4b": Shape(
        partial(Qwen3Config, num_hidden_layers=2, head_dim=8, num_key_value_heads=2, **_TINY),
        4,
        12,
        2,
    ),
}


class Words:
    """In place of an encoder: ids are random, and nobody reads what they say."""

    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=1)

    def __init__(self, encoder_decoder: bool) -> None:
        self.encoder_decoder = encoder_decoder

    def text(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def build(shape: Shape, precision: str, attention: str = "sdpa") -> Any:
    """A model of random weights. Raises ImportError where 4 bits need what is not installed."""
    config = shape.config(pad_token_id=0, eos_token_id=1)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device(DEVICE):
        model = kind.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    if config.is_encoder_decoder:
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 0
    return in_4_bits(model) if precision == "4bit" else model


def in_4_bits(model: Any) -> Any:
    """Every matrix but the head as NF4, doubly quantised."""
    from bitsandbytes.nn import Linear4bit

    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and "lm_head" not in name:
            small = Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="cpu",
            )
            small.load_state_dict(layer.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, small.to(DEVICE))
    model.is_loaded_in_4bit = model.is_quantized = True
    return model


def examples(model: Any, shape: Shape, steps: int) -> list[Encoded]:
    """Of so many steps."""
    draw = torch.Generator().manual_seed(0)
    most = model.config.vocab_size

    def ids(count: int) -> list[int]:
        return torch.randint(2, most, (count,), generator=draw).tolist()

    beside = 0 if model.config.is_encoder_decoder else ANSWER
    return [
        Encoded(ids(shape.length - beside), ids(ANSWER), False, index=i)
        for i in range(shape.rows * steps)
    ]


def operations(model: Any, shape: Shape, head_rows: int) -> float:
    """Of the products of one step, as `gpu` says that they are counted."""
    config = model.config
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = model.get_output_embeddings()
    tokens, total = shape.rows * shape.length, 0.0
    for name, layer in model.named_modules():
        if not hasattr(layer, "weight") or layer is head or id(layer.weight) in embeddings:
            continue
        if not isinstance(layer, nn.Linear):
            continue
        read = shape.rows * ANSWER if "decoder" in name and "EncDec" not in name else tokens
        weights = layer.in_features * layer.out_features
        total += (6 if layer.weight.requires_grad else 4) * read * weights
    total += 4 * head_rows * head.in_features * head.out_features
    if config.is_encoder_decoder:
        return total + 12 * shape.rows * shape.length**2 * config.d_model * config.num_layers
    width = config.num_attention_heads * (getattr(config, "head_dim", None) or 0)
    return total + 6 * shape.rows * shape.length**2 * width * config.num_hidden_layers
