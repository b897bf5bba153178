"""Small random models of every shape that matters, with a tokenizer of their own."""

import copy
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from tokenizers.decoders import ByteLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from nlora.data.task import Example, Task, TaskData

SHAPES = ("llama", "grouped-query", "multi-query", "gpt2", "neox", "t5", "t5-v1.1")
ENCODER_DECODER = ("t5", "t5-v1.1")
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""Of chats, for tokenizers that have none."""


def tokenizer(ends_with_eos: bool) -> PreTrainedTokenizerFast:
    """Bytes as tokens, so that every text has ids; like T5's, it may end each text with </s>."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[letter] = len(vocabulary)
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = ByteLevel()
    if ends_with_eos:
        raw.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def model(shape: str, seed: int = 0, layers: int = 2) -> torch.nn.Module:
    """A random fp32 model. Grouped- and multi-query shapes have v_proj with in ≠ out.

    Random numbers drawn afterwards are the same ones each time.
    """
    torch.manual_seed(seed)
    net, drawn = _made(shape, seed, layers)
    torch.set_rng_state(drawn)
    return copy.deepcopy(net)


@lru_cache
def _made(shape: str, seed: int, layers: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A model to copy, which takes half as long as to make it, and the random state after it."""
    torch.manual_seed(seed)
    with torch.device("cpu"):
        return _random(shape, layers), torch.get_rng_state()


def _random(shape: str, layers: int) -> torch.nn.Module:
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "vocab_size": 259}
    if shape in ENCODER_DECODER:
        gated = shape == "t5-v1.1"
        return T5ForConditionalGeneration(
            T5Config(
                **ids,
                d_model=32,
                d_kv=8,
                num_heads=3 if gated else 4,  # v1.1 as in flan-t5-small: inner size ≠ d_model
                d_ff=48,
                num_layers=layers,
                feed_forward_proj="gated-gelu" if gated else "relu",
                decoder_start_token_id=0,
                dropout_rate=0.0,
            )
        )
    if shape == "gpt2":
        config = GPT2Config(**ids, n_embd=32, n_layer=layers, n_head=4, n_positions=768)
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
        return GPT2LMHeadModel(config)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
    }
    if shape == "neox":
        return GPTNeoXForCausalLM(
            GPTNeoXConfig(**ids, **sizes, hidden_dropout=0.0, attention_dropout=0.0)
        )
    heads = {"llama": 4, "grouped-query": 2, "multi-query": 1}[shape]
    return LlamaForCausalLM(LlamaConfig(**ids, **sizes, num_key_value_heads=heads))


def save(shape: str, folder: Path, layers: int = 2) -> Path:
    """A folder that `from_pretrained` reads."""
    model(shape, layers=layers).save_pretrained(folder)
    tokenizer(shape in ENCODER_DECODER).save_pretrained(folder)
    return folder


@lru_cache
def task(name: str = "colour", count: int = 12) -> TaskData:
    """A task with three labels and made-up texts of different lengths."""
    labels = ("red", "green", "blue or grey")
    described = Task(name, f"What is the {name}? Choose one.", labels, group="TC", dataset=name)

    def split(start: int) -> tuple[Example, ...]:
        return tuple(
            Example(described, f"{name} text " + "word " * (i % 5) + str(i), labels[i % 3])
            for i in range(start, start + count)
        )

    return TaskData(described, train=split(0), test=split(100), dev=split(200))
