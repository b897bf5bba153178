"""inc-lora, seq-lora, mtl, and what every method keeps for its next stage."""

import pytest
import torch
from peft import PeftModel

from tests import tiny
from tests.methods.helpers import TASKS, first_stages, learn, losses, same_bits, stages, update
from tests.runs import manifests


@pytest.mark.parametrize("method", ["inc-lora", "n-lora", "prog-prompt", "sparse-masks"])
def test_the_updates_of_all_stages_make_up_the_model(method, finished):
    assert manifests(finished(method).out) == [["001-colour"], ["001-colour", "002-animal"]]


@pytest.mark.parametrize("method", ["seq-lora", "seq-ft", "replay", "osf"])
def test_the_update_of_the_last_stage_is_the_model(method, finished):
    assert manifests(finished(method).out) == [["001-colour"], ["002-animal"]]


def test_seq_lora_goes_on_with_the_adapter_and_inc_lora_takes_a_fresh_one(llama, tmp_path):
    for method in ("seq-lora", "inc-lora"):
        # nothing moves in the second stage
        learn(llama, tmp_path / method, method, TASKS[:2], learning_rate=[1e-2, 0.0])
    first, second = (update(tmp_path / "seq-lora", k) for k in (1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    first, second = (update(tmp_path / "inc-lora", k) for k in (1, 2))
    for name in first:
        assert not torch.equal(first[name], second[name])
        assert second[name].any() == ("lora_A" in name)


def test_the_adapter_of_seq_lora_is_the_whole_model(llama, tmp_path):
    learn(llama, tmp_path, "seq-lora", learning_rate=1e-2)
    path = tmp_path / "stages" / "003-shape" / "update"
    plain = PeftModel.from_pretrained(tiny.model("llama", layers=1), str(path))
    found = {n.replace(".default", ""): p for n, p in plain.named_parameters() if "lora_" in n}
    assert all(torch.equal(found[name], value) for name, value in update(tmp_path, 3).items())


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_mtl_is_one_stage_of_all_tasks_without_metrics_of_order(adapter, llama, tmp_path):
    results = learn(llama, tmp_path, "mtl", adapter=adapter, epochs=2)
    [record] = stages(tmp_path)
    assert record.name == "mtl"
    assert [task["name"] for task in record.tasks] == list(TASKS)
    assert record.examples == 36
    assert len(losses(tmp_path, 1)) == record.steps == 2 * 5  # 36 examples in batches of 8
    [row] = results["accuracy_matrix"]
    assert results["average_accuracy"] == pytest.approx(sum(row) / 3)
    for metric in ("learning_accuracy", "forgetting", "backward_transfer", "forward_transfer"):
        assert results[metric] is None


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("inc-lora", {}),
        ("seq-lora", {}),
        ("o-lora+n-lora", {"l1": 0.1}),
        ("inc-lora", {"routing": "input", "consolidation": "largest"}),
        ("replay", {"buffer": 0.5}),
        ("replay", {"buffer": 0.5, "adapter": "lora", "routing": "input"}),
        ("lwf", {"adapter": "full"}),
        ("prog-prompt", {}),
        ("de-lora", {}),
        ("per-task", {"adapter": "full"}),
        ("osf", {"projection": "step"}),
    ],
)
def test_what_a_method_keeps_survives_a_restart(method, settings, llama, learned, tmp_path):
    whole = learned("llama", method, **settings)
    out = first_stages(whole, 2, tmp_path / "out")
    learn(llama, out, method, **settings)
    assert same_bits(out, whole)
