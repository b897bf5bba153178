"""Base models whose weights are quantised in memory, by bitsandbytes on a CPU."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from nlora.adapters.lora import Lora
from nlora.backbones.catalog import find
from nlora.backbones.load import load
from nlora.continual.answering import predict
from nlora.continual.export import export
from nlora.continual.learning import learn, run
from nlora.continual.model import ContinualModel
from nlora.data.files import read_stream
from nlora.errors import NloraError
from tests.published import published
from tests.runs import FAST, THOROUGH, Listener, config, tree, write_stream

pytest.importorskip("bitsandbytes")

KINDS = ("4bit", "8bit")


def quantised(kind, settings=FAST, **more):
    return {**settings, "quantization": kind, **more}


@pytest.mark.parametrize(("kind", "precision"), [("4bit", "bf16"), ("8bit", "fp32")])
def test_a_stream_is_learned_and_goes_on_and_answers(llama, tmp_path, kind, precision):
    stream = write_stream(tmp_path, "colour", "animal")
    tasks = read_stream(stream)
    settings = quantised(kind, precision=precision)
    results = run(config(llama, stream, settings), tmp_path / "whole")
    run(config(llama, None, settings), tmp_path / "out", stream=tasks[:1])
    parts = learn(tmp_path / "out", tasks[1])
    assert parts["accuracy_matrix"] == results["accuracy_matrix"]
    assert updates(tmp_path / "out") == updates(tmp_path / "whole")
    record = json.loads((tmp_path / "out/stages/002-animal/stage.json").read_text())
    assert "history_error" in record["notes"]  # earlier updates are in a branch, and not folded
    assert all(a.answer in "def" for a in predict(tmp_path / "out", ["xxx 1"], "animal"))


def updates(out):
    return {name: data for name, data in tree(out).items() if "/update/" in name}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_after_an_evaluation_are_those_through_plain_weights_of_the_same_values(
    llama, kind
):
    model = load(find(str(llama)), torch.float32, quantization=kind).model
    plain = load(find(str(llama)), torch.float32).model
    for name, module in plain.named_modules():
        held = model.get_submodule(name)
        if type(held).__name__ in ("Linear4bit", "Linear8bitLt"):
            eye = torch.eye(module.in_features)
            with torch.no_grad():
                module.weight.copy_(held(eye).T)
    ids = torch.arange(3, 60)[None]
    found = []
    for one in (model, plain):
        adapter = Lora(one, 4, 8, 0.0)
        torch.manual_seed(0)
        adapter.begin()
        with torch.no_grad():
            for factors in adapter.factors().values():
                factors.B.normal_(std=0.1)
            adapter.model.eval()(input_ids=ids)
        adapter.model.train()(input_ids=ids, labels=ids).loss.backward()
        found.append({name: p.grad for name, p in adapter.trained().items()})
    for name, gradient in found[0].items():
        assert gradient.norm() > 0
        assert torch.cosine_similarity(gradient.flatten(), found[1][name].flatten(), dim=0) > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_in_memory_are_quantised_and_stay_what_they_are(llama, tmp_path, kind):
    stream = write_stream(tmp_path, "colour", "animal")
    run(config(llama, stream, quantised(kind)), tmp_path / "out")
    model = ContinualModel.open(tmp_path / "out")
    assert model.backbone.quantized == kind
    bare = load(find(str(llama)), torch.float32, quantization=kind).model
    ids = torch.arange(3, 60)[None]
    with torch.no_grad(), model.after(0):
        ours = model.adapter.model.eval()(input_ids=ids).logits
        torch.testing.assert_close(ours, bare.eval()(input_ids=ids).logits)
    layer = next(iter(model.adapter.layers.values())).get_base_layer()
    assert layer.weight.dtype in (torch.uint8, torch.int8)


def test_it_is_exported_into_the_plain_weights(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal", train=24)
    asked = config(llama, stream, quantised("4bit", THOROUGH), method="inc-lora")
    assert run(asked, tmp_path / "out")["learning_accuracy"] > 60
    listener = Listener()
    export(tmp_path / "out", tmp_path / "plain", progress=listener)
    assert any("merged into the plain ones" in text for text in listener.messages)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    base = AutoModelForCausalLM.from_pretrained(llama)
    model = ContinualModel.open(tmp_path / "out")
    weights, before = dict(plain.named_parameters()), dict(base.named_parameters())
    newest = model.adapter.copy()
    for name, factors in newest.items():
        change = model.adapter.past[0][name].delta() + factors.delta()
        expected = before[f"{name}.weight"] + change
        torch.testing.assert_close(weights[f"{name}.weight"], expected)
    assert not hasattr(plain.config, "quantization_config")


def test_scaled_and_largest_updates_work_beside_quantised_weights(llama, tmp_path):
    for number, settings in enumerate(({"consolidation": "largest"}, {"routing": "task"})):
        stream = write_stream(tmp_path, "colour", "animal")
        asked = config(llama, stream, quantised("4bit", **settings))
        assert run(asked, tmp_path / f"{number}")["accuracy_matrix"]


def test_soft_prompts_are_read_by_a_quantised_model(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal")
    asked = config(llama, stream, quantised("4bit"), method="prog-prompt")
    assert run(asked, tmp_path / "out")["accuracy_matrix"]


def test_an_adapter_of_pefts_is_gone_on_from(llama, tmp_path):
    animal = read_stream(write_stream(tmp_path, "animal"))[0]
    adapter = published(llama, tmp_path / "reviews")
    asked = config(llama, None, quantised("4bit"), from_adapter=str(adapter))
    assert learn(tmp_path / "out", animal, asked)["stages"] == ["reviews", "animal"]


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        ("seq-ft", {}, "adapter 'full' changes the base model's weights.*4bit"),
        ("sparse-masks", {}, "adapter 'sparse'"),
        ("inc-lora", {"start": "pissa"}, "'start': pissa"),
    ],
)
def test_what_changes_the_weights_is_refused(llama, tmp_path, method, settings, reason):
    stream = write_stream(tmp_path, "colour")
    with pytest.raises(NloraError, match=reason) as error:
        run(config(llama, stream, quantised("4bit", **settings), method=method), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "stages").exists()


def test_a_missing_bitsandbytes_is_told(llama, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NloraError, match=r"nlora\[quantized\]"):
        load(find(str(llama)), torch.float32, quantization="4bit")


def stored(llama, tmp_path, **quantization):
    """A model whose configuration says that it is stored quantised."""
    base = load(find(str(llama)), torch.float32, quantization="4bit")
    base.model.save_pretrained(tmp_path / "stored")
    base.tokenizer.save_pretrained(tmp_path / "stored")
    path = tmp_path / "stored/config.json"
    document = json.loads(path.read_text())
    if quantization:
        document["quantization_config"] = quantization
        path.write_text(json.dumps(document))
    return tmp_path / "stored"


def test_a_base_that_is_stored_quantised_is_learned_on_and_not_merged(llama, tmp_path):
    model = stored(llama, tmp_path)
    stream = write_stream(tmp_path, "colour", "animal")
    results = run(config(model, stream), tmp_path / "out")
    assert results["accuracy_matrix"]
    record = json.loads((tmp_path / "out/stages/002-animal/stage.json").read_text())
    assert "history_error" in record["notes"]
    with pytest.raises(NloraError, match=r"stored quantised \(bitsandbytes\).*stages/") as error:
        export(tmp_path / "out", tmp_path / "plain")
    assert "\n" not in str(error.value)
    with pytest.raises(NloraError, match="quantised already"):
        run(config(model, stream, quantised("4bit")), tmp_path / "other")


@pytest.mark.parametrize(
    ("quantization", "reason"),
    [
        ({"quant_method": "gptq", "bits": 4}, "could not be loaded: .*GPTQ"),
        ({"quant_method": "awq", "bits": 4}, "could not be loaded: .*AWQ"),
        ({"quant_method": "bitnet"}, "no adapter can be trained"),
        ({"quant_method": "nobody-knows"}, "no adapter can be trained"),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else "",
)
def test_a_kind_that_cannot_be_read_here_is_one_line(llama, tmp_path, quantization, reason):
    model = stored(llama, tmp_path, **quantization)
    stream = write_stream(tmp_path, "colour")
    with pytest.raises(NloraError, match=reason) as error:
        run(config(model, stream), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "stages").exists()


def stored_in_fp8(model, folder):
    """The model with its projections in FP8, by blocks of 32 × 32 that have one scale each."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, values in list(tensors.items()):
        if "_proj" in name:
            rows, columns = values.shape
            scale = values.abs().max() / 448
            tensors[name] = (values / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale.expand(rows // 32, columns // 32).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    document = json.loads((folder / "config.json").read_text())
    document["quantization_config"] = {
        "quant_method": "fp8",
        "weight_block_size": [32, 32],
        "activation_scheme": "dynamic",
    }
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def test_a_base_that_is_stored_in_fp8_is_made_plain_and_exported(llama, tmp_path):
    model = stored_in_fp8(llama, tmp_path / "fp8")
    loaded = load(find(str(model)), torch.float32)
    assert loaded.quantized is None
    name = "model.layers.0.self_attn.q_proj.weight"
    before = load_file(llama / "model.safetensors")[name]
    torch.testing.assert_close(loaded.model.get_parameter(name), before, rtol=0.1, atol=1e-3)
    run(config(model, write_stream(tmp_path, "colour", "animal")), tmp_path / "out")
    export(tmp_path / "out", tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert plain.get_parameter(name).dtype == torch.float32
    assert not hasattr(plain.config, "quantization_config")
