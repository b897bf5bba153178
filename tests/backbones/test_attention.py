"""A run attends as it is told, by Transformers' names, or says in one line why it cannot."""

import pytest
import torch

from nlora.backbones import attention
from nlora.backbones.attention import check_known
from nlora.continual.agreement import stored_plan
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.continual.preview import preview
from nlora.errors import NloraError
from nlora.fast.attention import NAME
from nlora.plan.resolve import resolve
from nlora.store.directory import ModelDirectory
from tests import tiny
from tests.methods.helpers import TASKS, learn, losses
from tests.runs import FAST, Listener, config, write_stream

EXACT = {"dropout": 0, "optimizer": "sgd", "learning_rate": 0.1}


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_losses_are_the_same_by_each_attention(shape, request, tmp_path):
    model = request.getfixturevalue(shape)
    for name in ("auto", "sdpa", "eager"):
        learn(model, tmp_path / name, "inc-lora", TASKS[:1], attention=name, **EXACT)
    expected = losses(tmp_path / "eager", 1)
    assert len(expected) == 2
    for name in ("auto", "sdpa"):
        for step, other in zip(losses(tmp_path / name, 1), expected, strict=True):
            assert step == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_it_is_the_model_that_attends_so_and_the_directory_says_it(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    for name, inside in (("auto", NAME), ("sdpa", "sdpa"), ("eager", "eager")):
        asked = config(llama, stream, {**FAST, "attention": name})
        made = ContinualModel.begin(resolve(asked), ModelDirectory(tmp_path / name))
        assert made.backbone.model.config._attn_implementation == inside
    out = tmp_path / "out"
    run(asked, out)
    assert ModelDirectory(out).config()["settings"]["attention"] == "eager"
    told = Listener()
    run(config(llama, stream, {**FAST, "attention": "sdpa"}), out, told)  # the same model
    assert "nothing to do" in " ".join(told.messages)


def test_a_kernel_that_is_not_there_is_refused_before_training(llama, tmp_path, monkeypatch):
    stream = write_stream(tmp_path, "colour")

    def refused(name, **more):
        asked = config(llama, stream, {**FAST, "attention": name, **more})
        said = []
        for act in (lambda: preview(resolve(asked)), lambda: run(asked, tmp_path / "out")):
            with pytest.raises(NloraError) as error:
                act()
            said.append(str(error.value))
        assert said[0] == said[1]
        assert "\n" not in said[0]
        assert not (tmp_path / "out").exists()
        return said[0]

    assert "needs a GPU" in refused("flash_attention_2")
    assert "needs a GPU" in refused("flex_attention")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "pip install flash-attn" in attention.missing_here("flash_attention_2", "bf16")
    monkeypatch.setattr("transformers.utils.import_utils.is_flash_attn_2_available", lambda: True)
    assert "precision=bf16" in attention.missing_here("flash_attention_2", "fp32")
    assert attention.missing_here("flash_attention_2", "bf16") is None


def test_what_a_kind_of_model_has_not_is_refused_with_what_it_has():
    check_known("flash_attention_2", tiny.model("llama"))
    with pytest.raises(NloraError, match=r"T5ForConditionalGeneration .* eager, sdpa, flex_att"):
        check_known("flash_attention_2", tiny.model("t5"))


def test_a_model_is_used_where_its_training_s_kernel_is_not(llama, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(config(llama, write_stream(tmp_path, "colour"), {**FAST, "attention": "eager"}), out)
    assert stored_plan(ModelDirectory(out)).run.attention == "eager"
    monkeypatch.setattr("nlora.continual.agreement.missing_here", lambda *_: "needs a GPU")
    assert stored_plan(ModelDirectory(out)).run.attention == "auto"
