"""What is read of an adapter that PEFT has saved is what PEFT itself would compute."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.other import get_pattern_key

from nlora.adapters.peft_config import read_config
from nlora.adapters.peft_files import read_adapter
from nlora.errors import NloraError
from tests.analysis.made import MODULES, PREFIX, tensors, write
from tests.tiny import model as tiny_model

LORA = {"r": 3, "lora_alpha": 8, "init_lora_weights": False}


def saved(shape, folder, **config):
    """An adapter saved by PEFT, and the ΔW that PEFT itself computes, by module."""
    model = get_peft_model(tiny_model(shape), LoraConfig(**{**LORA, **config}))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    model.save_pretrained(folder, save_embedding_layers=False)
    deltas = {}
    for name, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            deltas[name] = delta.T if getattr(module, "fan_in_fan_out", False) else delta
    return deltas


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ("grouped-query", {"target_modules": ["q_proj", "v_proj"]}),
        ("llama", {"target_modules": "all-linear", "use_rslora": True}),
        (
            "llama",
            {"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {"q_proj": 7}},
        ),
        (
            "llama",
            {
                "target_modules": ["q_proj", "k_proj", "down_proj"],
                "rank_pattern": {"k_proj": 5, r"layers\.1\.self_attn\.q_proj": 2},
                "alpha_pattern": {r"^model\.layers\.0\.mlp\.down_proj": 64, "k_proj": 1},
            },
        ),
        ("t5", {"target_modules": ["q", "v"], "task_type": TaskType.SEQ_2_SEQ_LM}),
        ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
        ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    ],
)
def test_every_update_is_the_one_that_peft_computes(tmp_path, shape, config):
    expected = saved(shape, tmp_path / "a", **config)
    adapter = read_adapter(tmp_path / "a")
    assert set(adapter.shapes) == set(expected)
    for module, delta in expected.items():
        found = adapter.factors(module).delta()
        if "embed" in module:  # PEFT's is (vocabulary, d), as the embedding itself
            delta = delta.T
        assert adapter.shapes[module] == tuple(delta.shape)
        torch.testing.assert_close(found, delta)


def test_patterns_are_matched_as_peft_matches_them(tmp_path):
    patterns = {"k_proj": 5, r"layers\.1\.q_proj": 2, "^model.layers.0.v_proj": 7, "o": 9}
    config = read_config(write(tmp_path / "a", rank_pattern=patterns))
    for module in ("model.layers.1.q_proj", "model.layers.11.q_proj", "x.k_proj", "y.no", "y.o",
                   "model.layers.0.v_proj", "deep.model.layers.0.v_proj", "ak_proj"):  # fmt: skip
        expected = patterns.get(get_pattern_key(patterns.keys(), module), 2)
        assert config.rank(module) == expected, module


def test_names_written_with_the_name_of_the_adapter_are_read_too(tmp_path):
    values = {k.replace(".weight", ".default.weight"): v for k, v in tensors().items()}
    adapter = read_adapter(write(tmp_path / "a", values))
    assert list(adapter.shapes) == list(MODULES)


def test_factors_of_two_dtypes_are_promoted(tmp_path):
    values = {k: v.bfloat16() if "lora_A" in k else v for k, v in tensors().items()}
    factors = read_adapter(write(tmp_path / "a", values)).factors(next(iter(MODULES)))
    assert factors.A.dtype == factors.B.dtype == torch.float64


def test_layers_are_in_the_order_of_their_numbers(tmp_path):
    modules = {f"model.layers.{i}.q_proj": (4, 4) for i in (10, 9, 2, 0)}
    adapter = read_adapter(write(tmp_path / "a", tensors(modules=modules)))
    assert [m.split(".")[2] for m in adapter.shapes] == ["0", "2", "9", "10"]


# What is refused, and what is read with a word.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "kind 'LOHA', only LORA has factors"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora is set"),
        ({"use_qalora": True}, "use_qalora is set"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is set"),
        ({"arrow_config": {"top_k": 3}}, "arrow_config is set"),
        ({"target_parameters": ["experts.up"]}, "target_parameters is set"),
        ({"r": 0}, "r: Input should be greater than 0"),
        ({"r": "many"}, "r: Input should be a valid integer"),
        ({"lora_alpha": None}, "lora_alpha: Input should be a valid number"),
        ({"rank_pattern": {"q_proj": 0}}, "rank that is not positive"),
        ({"rank_pattern": {"(": 2}}, "'\\(' is not a pattern"),
        ({"peft_type": None}, "peft_type: Input should be a valid string"),
    ],
)
def test_other_kinds_and_broken_configurations_are_refused_by_key(tmp_path, config, message):
    with pytest.raises(NloraError, match=message) as caught:
        read_adapter(write(tmp_path / "a", **config))
    assert "adapter_config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "magnitude vectors are left out"),
        ({"lora_bias": True}, "bias vectors are left out"),
        ({"bias": "all"}, "biases are left out"),
        ({"modules_to_save": ["lm_head", "score"]}, "left out: lm_head, score"),
        ({"trainable_token_indices": [1, 2]}, "token embeddings are left out"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "replicated stack"),
        ({"alora_invocation_tokens": [3]}, "invocation tokens"),
        ({"init_lora_weights": "pissa_niter_16"}, "not the change against the published base"),
        ({"init_lora_weights": "olora"}, "initialised with olora"),
        ({"init_lora_weights": "corda"}, "initialised with corda"),
        ({"init_lora_weights": "loftq"}, "initialised with loftq"),
        ({"target_modules": ["q_proj", "v_proj", "wo"]}, "targets 'wo', which has no factors"),
        ({"modules_to_save": ["\x1b[2Jlm_head"]}, r"left out: \?\[2Jlm_head"),
    ],
)
def test_what_the_numbers_leave_out_is_noted(tmp_path, config, message):
    adapter = read_adapter(write(tmp_path / "a", **config))
    assert len(adapter.notes) == 1
    assert re.search(message, adapter.notes[0])


@pytest.mark.parametrize("start", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_a_start_that_leaves_the_base_alone_needs_no_word(tmp_path, start):
    assert read_adapter(write(tmp_path / "a", init_lora_weights=start)).notes == []


def test_tensors_that_nobody_announced_are_noted(tmp_path):
    values = {**tensors(), f"{PREFIX}lm_head.weight": torch.zeros(2, 2)}
    notes = read_adapter(write(tmp_path / "a", values)).notes
    assert len(notes) == 1
    assert "lm_head.weight" in notes[0]


# Damage.


def key(letter="A", module="model.layers.0.self_attn.q_proj"):
    return f"{PREFIX}{module}.lora_{letter}.weight"


def without(values, name):
    return {k: v for k, v in values.items() if k != name}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (without(tensors(), key("B")), "q_proj has A but not the other factor"),
        ({**tensors(), key("A"): torch.zeros(3, 8)}, r"A is \[3, 8\], B is \[6, 2\]; rank 2"),
        ({**tensors(), key("B"): torch.zeros(6)}, r"B is \[6\]; only adapters of matrices"),
        ({**tensors(), key("A"): torch.zeros(2, 8, 1, 1)}, "only adapters of matrices"),
        ({"x.weight": torch.zeros(2)}, "holds no LoRA factors"),
        ({key(module="../../etc/passwd"): torch.zeros(2, 8)}, "is not the name of a module"),
        ({key(module="a..b"): torch.zeros(2, 8)}, "is not the name of a module"),
        ({key(module="q\x1b[31m"): torch.zeros(2, 8)}, "is not the name of a module"),
        (
            {**tensors(), key("A").replace("weight", "other.weight"): torch.zeros(2, 8)},
            "q_proj has two A; one adapter a file",
        ),
    ],
)
def test_tensors_that_make_no_update_are_named(tmp_path, values, message):
    with pytest.raises(NloraError, match=message) as caught:
        read_adapter(write(tmp_path / "a", values))
    assert "adapter_model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((2, 8), torch.nan), "A has entries that are NaN or infinite"),
        (torch.full((2, 8), -torch.inf), "A has entries that are NaN or infinite"),
        (torch.zeros(2, 8, dtype=torch.int32), "A is torch.int32"),
    ],
)
def test_entries_that_are_no_numbers_are_refused(tmp_path, value, message):
    adapter = read_adapter(write(tmp_path / "a", {**tensors(), key("A"): value}))
    with pytest.raises(NloraError, match=message):
        adapter.factors("model.layers.0.self_attn.q_proj")


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "text"])
def test_a_damaged_file_is_one_clear_line(tmp_path, damage):
    path = write(tmp_path / "a") / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[:-100],
            "header": b"\xff" * 20 + whole[20:],
            "empty": b"",
            "text": b"version https://git-lfs.github.com/spec/v1\n",
        }[damage]
    )
    with pytest.raises(NloraError, match=r"adapter_model\.safetensors is damaged") as caught:
        read_adapter(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_or_no_json_are_named(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "adapter_config.json").write_text('{"r": 2,')
    with pytest.raises(NloraError, match=r"adapter_config\.json is not valid JSON"):
        read_adapter(folder)
    (folder / "adapter_config.json").write_text("[1]")
    with pytest.raises(NloraError, match=r"adapter_config\.json: the file"):
        read_adapter(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(NloraError, match="holds no adapter"):
        read_adapter(folder)
    folder = write(tmp_path / "b")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(NloraError, match=r"is missing; adapter_model.bin is a pickle"):
        read_adapter(folder)


# Several adapters.


def test_a_conversion_is_advised_where_peft_has_one(tmp_path):
    """By what PEFT's own layers say of themselves; HiRA's and SHiRA's say no."""
    for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items():
        name = tuner.__module__.replace(".model", ".layer")
        spec = importlib.util.find_spec(name) if name.endswith(".layer") else None
        if spec is None or kind == "LORA":
            continue
        source = Path(spec.origin).read_text(encoding="utf-8")
        able = "def supports_lora_conversion" in source and kind not in ("HIRA", "SHIRA")
        folder = write(tmp_path / kind.value, peft_type=kind.value)
        with pytest.raises(NloraError) as error:
            read_adapter(folder)
        assert ("save_as_lora" in str(error.value)) == able, kind
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("excluded", [["down_proj"], r".*down_proj"])
def test_what_is_excluded_is_not_said_to_be_missing(tmp_path, excluded):
    saved("llama", tmp_path / "all", target_modules="all-linear", exclude_modules=excluded)
    assert read_adapter(tmp_path / "all").notes == []


def test_the_own_weights_of_an_embedding_get_a_note_of_their_own(tmp_path):
    model = get_peft_model(tiny_model("llama"), LoraConfig(target_modules=["embed_tokens"]))
    model.save_pretrained(tmp_path / "embedding", save_embedding_layers=True)
    [note] = read_adapter(tmp_path / "embedding").notes
    assert "the embedding's own weights" in note
