"""Which matrices are adapted by default: attention, found by structure."""

import json

import pytest
import torch
from benchmarks.tiny_families import make, tiny_config
from peft import LoraConfig, get_peft_model
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_FAMILY
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from nlora.backbones.targets import Targets, choose, shortest
from nlora.continual.learning import learn, run
from nlora.data.files import read_stream
from nlora.errors import NloraError
from tests.runs import FAST, config, write_stream

LIKE_PEFT = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "gpt_bigcode",
    "opt",
    "bloom",
    "falcon",
    "codegen",
    "mpt",
    "stablelm",
    "t5",
    "mt5",
    "bart",
]
FUSED = {"phi3": ["qkv_proj"], "dbrx": ["Wqkv"], "persimmon": ["query_key_value"]}
BY_STRUCTURE = [
    "phi",
    "olmo",
    "olmo2",
    "smollm3",
    "granite",
    "glm4",
    "starcoder2",
    "cohere",
    "mixtral",
    "qwen3_moe",
    "gpt_oss",
    "ministral",
    "ernie4_5",
    "hunyuan_v1_dense",
    "nemotron",
    "exaone4",
    "lfm2",
    "umt5",
    "mbart",
    "pegasus",
    "longt5",
    "led",
]
"""Families that could not be adapted without `target_modules`, and phi, whose MLP was."""


def shell(family):
    """A tiny model of a family, without weights."""
    config = tiny_config(family)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(config)


def adapted(model, target_modules):
    """The layers that PEFT adapts."""
    config = LoraConfig(r=1, target_modules=target_modules)
    return sorted(get_peft_model(model, config).base_model.targeted_module_names)


@pytest.mark.parametrize("family", LIKE_PEFT)
def test_where_peft_has_a_choice_it_is_kept(family):
    assert family in CONFIG_MAPPING
    assert choose(shell(family)).modules == BY_FAMILY[family]
    chosen = choose(shell(family)).modules
    assert adapted(shell(family), chosen) == adapted(shell(family), None)


@pytest.mark.parametrize("family", BY_STRUCTURE)
def test_query_and_value_of_every_attention_and_nothing_else(family):
    model = shell(family)
    names = adapted(shell(family), choose(model).modules)
    assert {name.rpartition(".")[2][0] for name in names} == {"q", "v"}
    owners = {name.rpartition(".")[0] for name in names}
    attentions = {
        name for name, module in model.named_modules()
        if type(module).__name__.endswith(("Attention", "SdpaAttention"))
        and any(isinstance(child, nn.Linear) for child in module.children())
    }  # fmt: skip
    around = {name for name in attentions if any(own.startswith(f"{name}.") for own in owners)}
    assert owners == attentions - around


@pytest.mark.parametrize("family", FUSED)
def test_a_fused_projection_is_one_target(family):
    assert choose(shell(family)).modules == FUSED[family]


def test_compressed_projections_are_taken_where_they_make_heads():
    names = adapted(shell("deepseek_v3"), choose(shell("deepseek_v3")).modules)
    assert {name.rpartition(".")[2] for name in names} == {"q_b_proj", "kv_b_proj"}


def test_a_model_without_attention_is_adapted_at_its_mixers():
    chosen = choose(shell("mamba2"))
    assert chosen.modules == ["in_proj"]
    assert "no attention" in chosen.reason


class Packed(nn.Module):
    """A linear layer as libraries for quantised models have it (GPTQ, AWQ, HQQ, …)."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("qweight", torch.zeros(4, 4, dtype=torch.int32))


@pytest.mark.parametrize("family", ["llama", "olmo2"])
def test_quantised_layers_are_chosen_as_plain_ones_are(family):
    model = shell(family)
    expected = choose(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not model.get_output_embeddings():
            model.set_submodule(name, Packed(module))
    model.is_quantized = True
    assert choose(model) == expected


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"model_type": "odd"})
        self.vision_tower = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "v_proj": nn.Linear(2, 2)})
        self.mixer = nn.ModuleDict({"left": nn.Linear(2, 2)})

    def get_output_embeddings(self):
        return None


def test_towers_are_left_alone_and_a_model_without_targets_is_refused_by_name():
    with pytest.raises(NloraError, match=r"odd.*target_modules.*left, q_proj"):
        choose(Odd())
    model = Odd()
    model.attn = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "v_proj": nn.Linear(2, 2)})
    assert choose(model).modules == ["attn.q_proj", "attn.v_proj"]


def test_the_shortest_names_mean_no_other_module():
    names = ["a.0.self.q", "a.1.self.q", "b.0.cross.q", "b.0.cross.v"]
    assert shortest(["a.0.self.q", "a.1.self.q", "b.0.cross.v"], names) == ["self.q", "v"]


def test_the_directory_goes_on_with_the_matrices_that_it_began_with(tmp_path, monkeypatch):
    make("phi", tmp_path / "model")
    tasks = read_stream(write_stream(tmp_path, "colour", "animal"))
    began = config(tmp_path / "model", None, {**FAST, "epochs": 1})
    former = Targets(["q_proj", "v_proj", "fc1", "fc2"], "what an earlier version chose")
    with monkeypatch.context() as earlier:
        earlier.setattr("nlora.adapters.layers.choose", lambda model: former)
        run(began, tmp_path / "out", stream=tasks[:1])
    learn(tmp_path / "out", tasks[1])
    paths = sorted((tmp_path / "out/stages").glob("*/update/adapter_config.json"))
    stored = [json.loads(path.read_text())["target_modules"] for path in paths]
    assert stored == [sorted(former.modules)] * 2
