"""Models as people bring them learn two tasks, one after another, and answer."""

import pytest
import torch
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from nlora.adapters.layouts import Concatenated
from nlora.adapters.prompt import Prompt
from nlora.continual.answering import predict
from nlora.continual.export import export
from nlora.continual.learning import run
from nlora.errors import NloraError
from tests import tiny
from tests.runs import config, write_stream

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 259,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def sliding(folder):
    """Each token sees five others, and every prompt is longer."""
    torch.manual_seed(0)
    MistralForCausalLM(MistralConfig(**SIZES, sliding_window=5)).save_pretrained(folder)
    tiny.tokenizer(ends_with_eos=False).save_pretrained(folder)


def tied(folder):
    """The output layer is the embedding."""
    torch.manual_seed(0)
    net = tiny.model("llama")
    net.config.tie_word_embeddings = True
    net = LlamaForCausalLM(net.config)
    assert net.lm_head.weight is net.model.embed_tokens.weight
    net.save_pretrained(folder)
    tiny.tokenizer(ends_with_eos=False).save_pretrained(folder)


def without_pad(folder):
    """Neither tokenizer nor configuration has a token to pad with, nor one to begin with."""
    net = tiny.model("llama")
    net.config.pad_token_id = net.generation_config.pad_token_id = None
    net.save_pretrained(folder)
    bare = tiny.tokenizer(ends_with_eos=False)
    bare.pad_token = None
    bare.save_pretrained(folder)
    read = AutoTokenizer.from_pretrained(folder)
    assert read.pad_token_id is None
    assert read.bos_token_id is None


@pytest.mark.parametrize("make", [sliding, tied, without_pad], ids=lambda make: make.__name__)
def test_it_learns_answers_and_is_exported(tmp_path, make):
    make(tmp_path / "model")
    stream = write_stream(tmp_path, "colour", "animal")
    results = run(config(tmp_path / "model", stream, method="n-lora"), tmp_path / "out")
    assert None not in results["accuracy_matrix"][1]
    assert {a.answer for a in predict(tmp_path / "out", ["xxx 1", "y"], "colour")} <= set("abc")
    export(tmp_path / "out", tmp_path / "plain")
    again = run(config(tmp_path / "plain", stream, method="n-lora"), tmp_path / "again")
    assert again["accuracy_matrix"]


class WithoutLogitsToKeep(LlamaForCausalLM):
    """As a model of somebody's own may be."""

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def test_soft_prompts_need_a_model_that_says_where_its_logits_are():
    net = WithoutLogitsToKeep(tiny.model("llama").config)
    with pytest.raises(NloraError, match="does not take `logits_to_keep`") as error:
        Prompt(net, Concatenated(4))
    assert "\n" not in str(error.value)
