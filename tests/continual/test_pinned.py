"""A model of the Hub at one revision: `OWNER/NAME@REVISION`, from training to what is handed on."""

import json
import shutil

import pytest
import torch
from huggingface_hub import constants
from peft import PeftModel
from transformers import AutoModelForCausalLM

from nlora.adapters.given import given
from nlora.backbones.catalog import check_hub, find
from nlora.backbones.load import load
from nlora.continual.adapters_out import export_adapter
from nlora.continual.export import export
from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.plan.config import parse_config
from tests.methods.helpers import learn

NAME = "somebody/tiny"
PINNED = f"{NAME}@v1"


@pytest.fixture
def hub(llama, tmp_path, monkeypatch):
    """The Hub's cache with a model's revision v1, and main, whose weights are others."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "hub" / "models--somebody--tiny"
    (kept / "refs").mkdir(parents=True)
    for commit, revision in (("a" * 40, "v1"), ("b" * 40, "main")):
        shutil.copytree(llama, kept / "snapshots" / commit)
        (kept / "refs" / revision).write_text(commit)
    model = AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    model.save_pretrained(kept / "snapshots" / ("b" * 40))


def head(name):
    return load(find(name), torch.float32).model.lm_head.weight


def test_a_pinned_revision_is_loaded_and_not_the_newest(hub, llama):
    check_hub(find(PINNED))
    published = AutoModelForCausalLM.from_pretrained(llama).lm_head.weight
    assert torch.equal(head(PINNED), published)
    assert torch.equal(head(NAME), 2 * published)
    with pytest.raises(NloraError, match="'somebody/tiny@v3' could not be loaded"):
        check_hub(find(f"{NAME}@v3"))


def test_what_was_trained_on_a_revision_stays_with_it(hub, llama, tmp_path):
    out = tmp_path / "m"
    learn(PINNED, out, "inc-lora", ("colour",))
    assert json.loads((out / "model.json").read_text())["base"]["revision"] == "v1"
    with pytest.raises(NloraError, match=r"was trained on tiny \(v1\), but"):
        learn(NAME, out, "inc-lora", ("colour", "animal"))
    trained = ContinualModel.open(out).adapter.model
    ids = torch.tensor([[5, 6, 7, 8]])
    export_adapter(out, tmp_path / "adapter")
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == (NAME, "v1")
    assert given(str(tmp_path / "adapter")).base == PINNED
    assert parse_config({"from_adapter": str(tmp_path / "adapter")}, "here").model == PINNED
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert 'from_pretrained("somebody/tiny", revision="v1")' in card
    assert "base_model: somebody/tiny\n" in card
    export(tmp_path / "adapter", tmp_path / "plain")  # the base by the adapter's own words
    again = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama), tmp_path / "adapter"
    )
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    with torch.no_grad():
        wanted = trained.eval()(input_ids=ids).logits
        for other in (again, plain):
            torch.testing.assert_close(
                other.eval()(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-4
            )
