"""An exported model is a plain one that answers as the trained one does."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from nlora.continual.agreement import stored_plan
from nlora.continual.export import export
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from nlora.store.locks import held
from tests import tiny
from tests.runs import LEARNING, config, tree, write_stream

MERGEABLE = [
    ("inc-lora", {}),
    ("inc-lora", {"consolidation": "largest"}),
    ("inc-lora", {"precision": "bf16"}),
    ("seq-lora", {"target_modules": ["q_proj", "lm_head"]}),
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


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("method", "settings"), MERGEABLE, ids=str)
def test_it_computes_what_the_trained_model_does(method, settings, tied, llama, tmp_path):
    base = tmp_path / "base"
    net = AutoModelForCausalLM.from_pretrained(llama, tie_word_embeddings=tied)
    net.save_pretrained(base)
    AutoTokenizer.from_pretrained(llama).save_pretrained(base)
    stream = write_stream(tmp_path, "colour", "animal")
    run(config(base, stream, {**LEARNING, "epochs": 2, **settings}, method=method), tmp_path / "m")
    before = tree(tmp_path / "m")
    export(tmp_path / "m", tmp_path / "new" / "plain")
    assert tree(tmp_path / "m") == before
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "plain")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new" / "plain")
    prompts = json.loads((tmp_path / "new" / "plain" / "prompts.json").read_text())
    assert list(prompts) == ["colour", "animal"]
    asked = [prompts["animal"].format(text=f"{x * 3} 1") for x in "xyz"]
    ids = [torch.tensor(tokenizer(text).input_ids) for text in asked]
    trained = in_fp32(tmp_path / "m").adapter.model
    torch.testing.assert_close(logits(found, ids), logits(trained, ids), rtol=1e-4, atol=1e-4)
    assert (logits(net, ids) - logits(trained, ids)).abs().max() > 1e-2
    assert {p.dtype for p in found.parameters()} == {torch.float32}


@pytest.mark.parametrize("shape", tiny.ENCODER_DECODER)
@pytest.mark.parametrize("target_modules", [["q", "v"], ["q", "lm_head"]], ids=str)
def test_an_encoder_decoder_is_one_again(shape, target_modules, tmp_path):
    stream = write_stream(tmp_path, "colour")
    settings = {**LEARNING, "epochs": 1, "target_modules": target_modules}
    run(config(tiny.save(shape, tmp_path / shape), stream, settings), tmp_path / "m")
    export(tmp_path / "m", tmp_path / "plain")
    found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "plain")
    ids = [torch.tensor([5, 6, 7, 1])]
    trained = in_fp32(tmp_path / "m").adapter.model
    torch.testing.assert_close(logits(found, ids), logits(trained, ids), rtol=1e-4, atol=1e-4)


def test_weights_may_be_written_in_16_bits(llama, tmp_path):
    run(config(llama, write_stream(tmp_path, "colour")), tmp_path / "m")
    for dtype in ("bfloat16", "float16"):
        export(tmp_path / "m", tmp_path / dtype, dtype=dtype)
        found = AutoModelForCausalLM.from_pretrained(tmp_path / dtype)
        assert {p.dtype for p in found.parameters()} == {getattr(torch, dtype)}


def test_what_is_not_one_model_is_refused_and_nothing_is_overwritten(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    for method, settings in (
        ("de-lora", {}),
        ("inc-lora", {"routing": "input"}),
        ("prog-prompt", {"prompt_length": 2}),
    ):
        run(config(llama, stream, {"precision": "fp32", **settings}, method=method), tmp_path / "m")
        with pytest.raises(NloraError, match=f"^{method} does not make one model"):
            export(tmp_path / "m", tmp_path / "plain")
        (tmp_path / "m").rename(tmp_path / f"{method} done")
    run(config(llama, stream), tmp_path / "m")
    (tmp_path / "there").mkdir()
    with pytest.raises(NloraError, match="there is there already"):
        export(tmp_path / "m", tmp_path / "there")
    assert not (tmp_path / "plain").exists()


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
