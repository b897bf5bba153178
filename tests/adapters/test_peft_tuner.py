"""Any PEFT tuner with a change of weights, stage after stage."""

from itertools import pairwise

import pytest
import torch
from benchmarks.tiny_families import tiny_config
from peft import LoHaConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from nlora.adapters.peft_tuner import PeftTuner
from nlora.adapters.settings import AdapterSettings
from nlora.errors import NloraError
from tests import tiny
from tests.adapters.helpers import logits, train
from tests.runs import tree

TUNERS = {
    "LOHA": {"r": 2},
    "LOKR": {"r": 2},
    "OFT": {"oft_block_size": 4},
    "IA3": {"feedforward_modules": []},
    "LORA": {"r": 2, "use_dora": True},
    "VERA": {"r": 4},
}

tuners = pytest.mark.parametrize("kind", TUNERS)


def adapter(kind: str, shape: str = "llama", options=None, **settings) -> PeftTuner:
    torch.manual_seed(0)
    found = AdapterSettings(
        peft_type=kind,
        peft_options=TUNERS[kind] if options is None else options,
        **{"target_modules": ["q_proj", "v_proj"] if shape == "llama" else None, **settings},
    )
    return PeftTuner.build(tiny.model(shape), found)


def learn(tuner: PeftTuner, stages: int, folder=None, shape: str = "llama") -> tuple[list, list]:
    folders, stood = [], [logits(tuner.model, shape)]
    for stage in range(1, stages + 1):
        torch.manual_seed(stage)
        tuner.begin()
        train(tuner, seed=stage)
        tuner.consolidate()
        stood.append(logits(tuner.model, shape))
        if folder is not None:
            folders.append(folder / str(stage))
            tuner.save(folders[-1])
    return folders, stood


@tuners
def test_the_tuners_are_stacked_saved_and_loaded(kind, tmp_path):
    live = adapter(kind)
    folders, stood = learn(live, 3, tmp_path)
    assert sorted(tree(folders[0])) == ["adapter_config.json", "adapter_model.safetensors"]
    base = logits(tiny.model("llama"), "llama")
    assert torch.equal(stood[0], base)
    assert all((b - a).abs().max() > 1e-4 for a, b in pairwise(stood))
    first = PeftModel.from_pretrained(tiny.model("llama"), str(folders[0]))
    torch.testing.assert_close(logits(first, "llama"), stood[1])
    loaded = adapter(kind)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, "llama"), stood[3])
    for tuner in (live, loaded):
        for count in (0, 1, 2, 3):
            with tuner.after(folders[:count]):
                assert torch.equal(logits(tuner.model, "llama"), stood[count])
            assert torch.equal(logits(tuner.model, "llama"), stood[3])
        torch.manual_seed(4)
        tuner.begin()
        train(tuner, seed=4)
    assert torch.equal(logits(live.model, "llama"), logits(loaded.model, "llama"))
    fourth = logits(live.model, "llama")
    merged = logits(live.merged(), "llama")
    torch.testing.assert_close(merged, fourth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", ["gpt2", "t5-v1.1"])
def test_the_weights_are_the_base_s_and_the_sum_of_the_changes(shape):
    options = {"r": 2, "alpha": 4, **({"target_modules": ["q", "v"]} if shape != "gpt2" else {})}
    if shape == "gpt2":
        options["target_modules"] = ["c_attn"]
    kind = "LOHA" if shape != "gpt2" else "LORA"
    if kind == "LORA":
        options["lora_alpha"] = options.pop("alpha")
    tuner = adapter(kind, shape, options)
    wanted = {n: p.detach().double().clone() for n, p in tuner.model.named_parameters()}
    for stage in range(1, 11):
        torch.manual_seed(stage)
        tuner.begin()
        train(tuner, seed=stage)
        for name, layer in tuner.model.get_base_model().named_modules():
            if hasattr(layer, "get_delta_weight"):
                with torch.no_grad():
                    wanted[f"{name}.weight"] += layer.get_delta_weight("default").double()
    for name, p in tuner.merged().named_parameters():
        torch.testing.assert_close(p.double(), wanted[name], rtol=0, atol=2e-6)


@tuners
@pytest.mark.parametrize("continued", [False, True], ids=["fresh", "continued"])
def test_previous_is_the_model_from_before_the_stage(kind, continued, tmp_path):
    tuner = adapter(kind)
    learn(tuner, 2)
    before = logits(tuner.model, "llama")
    tuner.begin(continued=continued, keep_previous=True)
    assert tuner.replaces == continued
    torch.testing.assert_close(logits(tuner.model, "llama"), before, rtol=0, atol=1e-5)
    train(tuner, seed=3)
    after = logits(tuner.model, "llama")
    with tuner.previous():
        torch.testing.assert_close(logits(tuner.model, "llama"), before, rtol=0, atol=1e-5)
    assert torch.equal(logits(tuner.model, "llama"), after)


def test_a_continued_tuner_goes_on_after_it_is_loaded(tmp_path):
    live = adapter("LOHA")
    live.begin(continued=True)
    assert not live.replaces
    train(live, seed=1)
    live.save(tmp_path / "1")
    loaded = adapter("LOHA")
    loaded.load([tmp_path / "1"])
    for tuner in (live, loaded):
        tuner.begin(continued=True)
        assert tuner.replaces
        train(tuner, seed=2)
    assert torch.equal(logits(live.model, "llama"), logits(loaded.model, "llama"))


def test_it_is_the_tuner_that_plain_peft_makes():
    tuner = adapter("LOHA")
    config = LoHaConfig(r=2, target_modules=["q_proj", "v_proj"])
    plain = get_peft_model(tiny.model("llama"), config)
    tuner.begin()
    own = {n: p.shape for n, p in tuner.trained().items()}
    assert own == {n: p.shape for n, p in plain.named_parameters() if p.requires_grad}
    assert set(tuner.update()) == set(own)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("LOHAA", {}, "unknown peft_type 'LOHAA'; did you mean 'LOHA'"),
        ("PROMPT_TUNING", {}, "unknown peft_type 'PROMPT_TUNING'"),
        ("LOHA", {"rr": 2}, "unknown option of LOHA 'rr'"),
        ("LOHA", {"target_modules": ["nothing"]}, "cannot put LOHA into this model"),
        ("LORA", {"init_lora_weights": "pissa"}, "changes the base model's weights"),
        ("LORA", {"init_lora_weights": "olora"}, "changes the base model's weights"),
        ("LORA", {"bias": "all"}, "would train '.*bias', which is no part|cannot put"),
        ("LORA", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, "would train .*norm"),
        ("LORA", {"alora_invocation_tokens": [1]}, "LORA cannot be merged"),
    ],
)
def test_what_cannot_be_had_is_one_line(kind, options, said):
    shape = "gpt2" if "bias" in options else "llama"
    with pytest.raises(NloraError, match=said) as error:
        adapter(kind, shape, options)
    assert "\n" not in str(error.value)


def test_bf16_weights_and_strategies_other_than_the_sum_are_refused():
    settings = AdapterSettings(peft_type="LOHA")
    with pytest.raises(NloraError, match=r"needs fp32 weights, and '.*' is bfloat16"):
        PeftTuner.build(tiny.model("llama").bfloat16(), settings)
    with pytest.raises(NloraError, match="consolidation 'largest' is not for it"):
        PeftTuner.build(tiny.model("llama"), settings, consolidation="largest")
    with pytest.raises(NloraError, match="'peft_type': adapter 'peft' needs one"):
        PeftTuner.build(tiny.model("llama"), AdapterSettings())


@pytest.mark.parametrize("parameters", [["gate_up_proj"], ["gate_up_proj", "down_proj"]])
@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_stacked_experts_are_adapted_one_parameter_or_several(family, parameters, tmp_path):
    def build():
        torch.manual_seed(0)
        net = AutoModelForCausalLM.from_config(tiny_config(family))
        named = [f"experts.{name}" for name in parameters]
        options = {"r": 2, "target_parameters": named, "target_modules": []}
        return PeftTuner(net, "LORA", options)

    live = build()
    folders, stood = learn(live, 2, tmp_path)
    assert all((b - a).abs().max() > 1e-4 for a, b in pairwise(stood))
    loaded = build()
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, "llama"), stood[2])
    for count in (0, 1, 2):
        with loaded.after(folders[:count]):
            assert torch.equal(logits(loaded.model, "llama"), stood[count])
        assert torch.equal(logits(loaded.model, "llama"), stood[2])
    torch.testing.assert_close(logits(live.merged(), "llama"), stood[2])
