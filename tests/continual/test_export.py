"""An exported model is a plain one that answers as the trained one does."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from nlora.continual.adapters_out import export_adapters
from nlora.continual.agreement import stored_plan
from nlora.continual.export import export
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from nlora.store.locks import held
from tests import tiny
from tests.published import published
from tests.runs import LEARNING, Listener, config, tree, write_stream

MERGEABLE = [
    ("inc-lora", {"consolidation": "largest"}),
    ("inc-lora", {"precision": "bf16"}),
    ("seq-lora", {"target_modules": ["q_proj", "lm_head"]}),
]
TIED = [
    ("inc-lora", {}),
    MERGEABLE[-1],
    ("seq-ft", {"learning_rate": 1e-3}),
    ("sparse-masks", {"learning_rate": 1e-2}),
    ("osf", {"learning_rate": 1e-3}),
]


def logits(net, prompts):
    """Of the last token of each prompt."""
    kwargs = {"decoder_input_ids": torch.tensor([[0]])} if net.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return torch.cat(
            [net.eval()(input_ids=p[None], **kwargs).logits[:, -1].float() for p in prompts]
        )


def in_fp32(path):
    directory = ModelDirectory(path)
    return ContinualModel.begin(stored_plan(directory), directory, fp32=True)


def check_exported(source, base, plain):
    """Export a run over `colour` and `animal`: a model that computes what it does."""
    before = tree(source)
    export(source, plain)
    assert tree(source) == before
    found = AutoModelForCausalLM.from_pretrained(plain)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    prompts = json.loads((plain / "prompts.json").read_text())
    assert list(prompts) == ["colour", "animal"]
    asked = [prompts["animal"].format(text=f"{x * 3} 1") for x in "xyz"]
    ids = [torch.tensor(tokenizer(text).input_ids) for text in asked]
    trained = in_fp32(source).adapter.model
    torch.testing.assert_close(logits(found, ids), logits(trained, ids), rtol=1e-4, atol=1e-4)
    net = AutoModelForCausalLM.from_pretrained(base)
    assert (logits(net, ids) - logits(trained, ids)).abs().max() > 1e-2
    assert {p.dtype for p in found.parameters()} == {torch.float32}


@pytest.mark.parametrize("method", ["inc-lora", "seq-ft", "sparse-masks", "osf"])
def test_it_computes_what_the_trained_model_does(method, finished, llama, tmp_path):
    check_exported(finished(method).out, llama, tmp_path / "new" / "plain")


def learned_on(base, folder, method, settings):
    """A run over `colour` and `animal`."""
    stream = write_stream(folder, "colour", "animal")
    run(config(base, stream, {**LEARNING, "epochs": 2, **settings}, method=method), folder / "m")
    return folder / "m"


@pytest.mark.parametrize(("method", "settings"), MERGEABLE, ids=str)
def test_also_with_settings_that_change_what_is_merged(method, settings, llama, tmp_path):
    check_exported(learned_on(llama, tmp_path, method, settings), llama, tmp_path / "plain")


@pytest.mark.parametrize(("method", "settings"), TIED, ids=str)
def test_also_where_head_and_embeddings_are_one_matrix(method, settings, llama, tmp_path):
    base = tmp_path / "base"
    net = AutoModelForCausalLM.from_pretrained(llama, tie_word_embeddings=True)
    net.save_pretrained(base)
    AutoTokenizer.from_pretrained(llama).save_pretrained(base)
    check_exported(learned_on(base, tmp_path, method, settings), base, tmp_path / "plain")


@pytest.mark.parametrize(
    ("shape", "target_modules"),
    # the head of the first is its embeddings, which an adapter sets apart
    [("t5", ["q", "v"]), ("t5", ["q", "lm_head"]), ("t5-v1.1", ["q", "lm_head"])],
    ids=str,
)
def test_an_encoder_decoder_is_one_again(shape, target_modules, tmp_path):
    stream = write_stream(tmp_path, "colour")
    settings = {**LEARNING, "epochs": 1, "target_modules": target_modules}
    run(config(tiny.save(shape, tmp_path / shape), stream, settings), tmp_path / "m")
    export(tmp_path / "m", tmp_path / "plain")
    found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "plain")
    ids = [torch.tensor([5, 6, 7, 1])]
    trained = in_fp32(tmp_path / "m").adapter.model
    torch.testing.assert_close(logits(found, ids), logits(trained, ids), rtol=1e-4, atol=1e-4)


def by_hand(base, source, written):
    """‖(W′ − W) − ΔW‖ / ‖ΔW‖ in per cent of each adapted matrix, and of all together."""
    before = load_file(base / "model.safetensors")
    after = load_file(written / "model.safetensors")
    lost, size = {}, {}
    told = json.loads((source / "stages/001-colour/update/adapter_config.json").read_text())
    scaling = told["lora_alpha"] / told["r"]
    updates = [
        load_file(path) for path in sorted(source.glob("stages/*/update/*model.safetensors"))
    ]
    for key in updates[0]:
        if ".lora_A." not in key:
            continue
        name = key.removeprefix("base_model.model.").replace(".lora_A", "")
        delta = sum(u[key.replace("_A.", "_B.")].double() @ u[key].double() for u in updates)
        delta *= scaling
        difference = after[name].double() - before[name].double()
        lost[name], size[name] = (difference - delta).square().sum(), delta.square().sum()
    each = {name: 100 * float((lost[name] / size[name]).sqrt()) for name in lost}
    return each, 100 * float((sum(lost.values()) / sum(size.values())).sqrt())


def test_what_rounding_loses_is_measured_and_too_much_is_refused(finished, llama, tmp_path):
    source = finished("inc-lora").out
    exact = export(source, tmp_path / "plain")
    each, every = by_hand(llama, source, tmp_path / "plain")
    assert exact["dtype"] == "float32"  # as the base is published
    assert exact["lost_per_cent"] == pytest.approx(every, rel=1e-3)
    assert every < 0.1
    with pytest.raises(NloraError, match=r"% of the updates would be lost in bfloat16 .*float32"):
        export(source, tmp_path / "bf16", "bfloat16", most_lost=0.1)
    assert not (tmp_path / "bf16").exists()
    for dtype in ("bfloat16", "float16"):
        rounded = export(source, tmp_path / dtype, dtype, most_lost=100)
        each, every = by_hand(llama, source, tmp_path / dtype)
        assert rounded["by_matrix"] == pytest.approx(each, rel=1e-3)
        assert rounded["lost_per_cent"] == pytest.approx(every, rel=1e-3)
        assert rounded["held_out"]["divergence"] > exact["held_out"]["divergence"]
        found = AutoModelForCausalLM.from_pretrained(tmp_path / dtype)
        assert {p.dtype for p in found.parameters()} == {getattr(torch, dtype)}
        assert json.loads((tmp_path / dtype / "export.json").read_text()) == rounded


def test_a_base_is_written_as_it_is_published(llama, tmp_path):
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(base)
    AutoTokenizer.from_pretrained(llama).save_pretrained(base)
    run(config(base, write_stream(tmp_path, "colour"), LEARNING), tmp_path / "m")
    assert export(tmp_path / "m", tmp_path / "plain", most_lost=100)["dtype"] == "bfloat16"
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "model.norm.weight",
            "norm.weight holds values beyond the largest number of float16",
        ),
        ("lm_head.weight", r"in float16 the model computes no numbers for \d+ of \d+ inputs"),
    ],
)
def test_what_float16_has_no_numbers_for_is_refused(name, said, llama, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():  # the norm alone is too large, or the head where it meets another norm
        large = 1e5 if name == "model.norm.weight" else 6e4
        base.get_parameter(name).fill_(large)
    folder = tmp_path / "large"
    base.save_pretrained(folder)
    AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    adapter = published(folder, tmp_path / "adapter")
    with pytest.raises(NloraError, match=f"{said}.*float32"):
        export(adapter, tmp_path / "plain", "float16", most_lost=100)
    assert not (tmp_path / "plain").exists()
    export(adapter, tmp_path / "plain", "float32")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_base_that_training_rounded_is_not_called_exact(dtype, llama, tmp_path):
    net = AutoModelForCausalLM.from_pretrained(llama, dtype=getattr(torch, dtype))
    net.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(llama).save_pretrained(tmp_path / "base")
    settings = {**LEARNING, "epochs": 1, "precision": "bf16"}
    run(config(tmp_path / "base", write_stream(tmp_path, "colour"), settings), tmp_path / "m")
    listener = Listener()
    report = export(tmp_path / "m", tmp_path / "plain", progress=listener)
    assert f"published in {dtype}" in report["notes"]["base"]
    assert report["notes"]["base"] in listener.messages


def test_an_adapter_of_anybody_is_merged(llama, t5, tmp_path):
    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(llama),
        LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], use_rslora=True),
    )
    for name, weight in made.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
    made.save_pretrained(tmp_path / "adapter")
    report = export(tmp_path / "adapter", tmp_path / "plain")
    assert report["lost_per_cent"] < 0.1
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    ids = [torch.tensor([5, 6, 7])]
    torch.testing.assert_close(logits(found, ids), logits(made, ids), rtol=1e-4, atol=1e-4)
    with pytest.raises(NloraError, match="cannot put LoRA adapters into this model"):
        export(tmp_path / "adapter", tmp_path / "other", model=str(t5))
    with pytest.raises(NloraError, match=r"answers is for a model directory"):
        export(tmp_path / "adapter", tmp_path / "other", match=lambda model: {})
    with pytest.raises(NloraError, match=r"model is for an adapter"):
        export(tmp_path, tmp_path / "other", model=str(t5))


def test_what_is_not_one_model_is_refused_and_nothing_is_overwritten(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    for method, settings, said in (
        ("de-lora", {}, r"\(routing=input\): adapters=True writes"),
        (
            "inc-lora",
            {"routing": "input"},
            r"\(routing=input\): adapters=True writes",
        ),
        ("prog-prompt", {"prompt_length": 2}, "does not make one model"),
        ("code-lora", {}, "does not make one model.*its directory is used as it is"),
    ):
        run(config(llama, stream, {"precision": "fp32", **settings}, method=method), tmp_path / "m")
        with pytest.raises(NloraError, match=f"^{method}.*{said}"):
            export(tmp_path / "m", tmp_path / "plain")
        (tmp_path / "m").rename(tmp_path / f"{method} done")
    with pytest.raises(NloraError, match="as 'retract' are no sum of adapters; nor does"):
        export_adapters(tmp_path / "code-lora done", tmp_path / "plain")
    run(config(llama, stream), tmp_path / "m")
    (tmp_path / "there").mkdir()
    with pytest.raises(NloraError, match="there is there already"):
        export(tmp_path / "m", tmp_path / "there")
    assert not (tmp_path / "plain").exists()


def test_updates_can_be_merged_by_another_rule_than_they_were_trained_with(
    finished, llama, tmp_path
):
    source = finished("inc-lora").out
    listener = Listener()
    export(source, tmp_path / "plain", progress=listener, consolidation="magnitude")
    said = "merged as 'magnitude', and accuracies are of the model that they made in training"
    assert said in (tmp_path / "plain" / "README.md").read_text()
    assert any(said in line for line in listener.messages)
    before = load_file(llama / "model.safetensors")
    after = load_file(tmp_path / "plain" / "model.safetensors")
    told = json.loads((source / "stages/001-colour/update/adapter_config.json").read_text())
    updates = [load_file(p) for p in sorted(source.glob("stages/*/update/*model.safetensors"))]
    assert len(updates) > 1
    for key in (key for key in updates[0] if ".lora_A." in key):
        name = key.removeprefix("base_model.model.").replace(".lora_A", "")
        expected = before[name].double()
        for u in updates:
            delta = u[key.replace("_A.", "_B.")].double() @ u[key].double()
            delta *= told["lora_alpha"] / told["r"]
            least = delta.abs().flatten().sort(descending=True).values[delta.numel() // 5 - 1]
            expected = expected + delta * (delta.abs() >= least)
        torch.testing.assert_close(after[name].double(), expected, rtol=0, atol=1e-5)
    with pytest.raises(NloraError, match="unknown consolidation 'tis'; did you mean 'ties'"):
        export(source, tmp_path / "other", consolidation="tis")


@pytest.fixture
def learned(finished, tmp_path):
    """The command for a model that is finished, and where it goes."""
    return finished("inc-lora").out, tmp_path / "new" / "plain"


def fails_to_load(*args, **kwargs):
    raise AssertionError("it was loaded first")


def test_two_that_write_to_one_place_do_not_meet(learned):
    source, out = learned
    with held(out):
        with pytest.raises(NloraError, match="plain is in use by another process"):
            export(source, out)
        assert [p.name for p in out.parent.iterdir()] == [".plain.lock"]
    assert not out.parent.exists()


def test_a_full_place_is_found_before_anything_is_loaded(learned, monkeypatch):
    source, out = learned
    monkeypatch.setattr(ContinualModel, "begin", fails_to_load)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"GB are needed, and 0\.0 GB are free") as error:
        export(source, out)
    assert error.value.filename == str(out)
    assert not out.parent.exists()


def test_a_place_that_cannot_be_written_is_found_before_anything_is_loaded(learned, monkeypatch):
    source, out = learned

    def refused(path, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("nlora.continual.export._write", fails_to_load)
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(PermissionError) as error:
        export(source, out)
    assert error.value.filename == str(out)
