"""Methods of new kinds, each a class of new_kinds.py: they run, go on and predict right."""

import json
from pathlib import Path

import pytest
import torch

from nlora.continual.answering import predict
from nlora.continual.model import ContinualModel
from nlora.continual.stages import learn_stage
from nlora.methods.context import Stage
from nlora.store.directory import ModelDirectory
from tests import tiny
from tests.methods import new_kinds
from tests.methods.helpers import (
    TASKS,
    answers,
    first_stages,
    learn,
    losses,
    same_bits,
    stages,
    state,
    update,
)
from tests.runs import manifests

PLUGIN = new_kinds.__file__
LEARNING = {"learning_rate": 1e-2, "rank": 4, "dropout": 0.0, "epochs": 2}
KINDS = {
    "lora-fa": {},
    "scaled": {},
    "away": {},
    "inf-lora": {},
    "averaged": {},
    "choosy": {},
    "de-choosy": {"routing": "input"},
}


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    """The directory of three tasks learned by a method of new_kinds.py, once."""
    done: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            learn(llama, done[name], *asked(name), **LEARNING, **KINDS[name])
        return done[name]

    return get


def asked(name: str):
    return name.removeprefix("de-"), TASKS, 12, PLUGIN


@pytest.mark.parametrize("name", KINDS)
def test_it_goes_on_after_a_stop_to_the_same_numbers(name, learned, llama, tmp_path):
    out = first_stages(learned(name), 2, tmp_path / "out")
    learn(llama, out, *asked(name), **LEARNING, **KINDS[name])
    assert same_bits(out, learned(name))
    assert manifests(out) == manifests(learned(name))
    expected = state(learned(name), 3)
    assert all(torch.equal(tensor, expected.pop(n)) for n, tensor in state(out, 3).items())
    assert not expected


@pytest.mark.parametrize("name", KINDS)
def test_a_process_that_opens_it_answers_as_its_last_stage_did(name, learned):
    for task in TASKS[:2]:
        texts = [example.text for example in tiny.task(task).test]
        found = [answer.answer for answer in predict(learned(name), texts, task, free=True)]
        assert found == answers(learned(name), 3, task)


def drawn(out: Path, stage: int) -> dict[str, torch.Tensor]:
    """The A that a stage began with."""
    model = ContinualModel.open(out)
    model.adapter.load(model.directory.update_paths(stage - 1))
    torch.manual_seed(stages(out)[stage - 1].seed)
    model.adapter.begin()
    return {name: f.A.detach().clone() for name, f in model.adapter.factors().items()}


def test_frozen_factors_stay_as_they_were_drawn_and_are_saved(learned):
    for stage in (1, 2, 3):
        record, saved = stages(learned("lora-fa"))[stage - 1], update(learned("lora-fa"), stage)
        size = sum(t.numel() for name, t in saved.items() if "lora_B" in name)
        assert record.trainable_parameters == size
        assert all(t.any() for t in saved.values())
    for name, A in drawn(learned("lora-fa"), 2).items():
        kept = update(learned("lora-fa"), 2)[f"base_model.model.{name}.lora_A.weight"]
        assert torch.equal(kept, A)


def test_scalars_on_earlier_updates_are_trained_noted_and_in_the_model(learned):
    out = learned("scaled")
    notes = [record.notes.get("scales") for record in stages(out)]
    assert notes[0] is None
    assert [len(scales) for scales in notes[1:]] == [1, 2]
    assert all(scale != 1.0 for scales in notes[1:] for scale in scales)
    model = ContinualModel.open(out)
    bare = dict(tiny.model("llama", layers=1).named_parameters())
    for name, factors in model.adapter.factors().items():
        past = [update[name].delta() for update in model.adapter.past]
        change = sum(s * delta for s, delta in zip(notes[2], past, strict=True)) + factors.delta()
        layer = model.adapter.layers[name]
        found = layer.get_base_layer().weight + factors.delta() - bare[f"{name}.weight"]
        torch.testing.assert_close(found, change, rtol=1e-4, atol=1e-6)


def test_a_gradient_rule_keeps_the_new_update_out_of_what_earlier_tasks_read(learned):
    kept = state(learned("away"), 1)
    for name, A in update(learned("away"), 2).items():
        if "lora_A" not in name:
            continue
        matrix = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        basis = new_kinds.span(kept[f"known.{matrix}"], 4)
        moved = A - drawn(learned("away"), 2)[matrix]
        assert (moved @ basis.T).norm() < 0.4 * moved.norm()  # Adam turns gradients a little


def test_a_designed_start_reads_the_new_inputs_outside_the_old_span_and_stays(learned):
    kept = state(learned("inf-lora"), 1)
    for name, A in update(learned("inf-lora"), 2).items():
        if "lora_A" in name:
            matrix = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            basis = new_kinds.span(kept[f"known.{matrix}"], 8)
            torch.testing.assert_close(A @ A.T, torch.eye(4), rtol=0, atol=1e-4)
            assert (A @ basis.T).abs().max() < 1e-3


def test_a_consolidation_of_ones_own_makes_the_model(learned):
    model = ContinualModel.open(learned("averaged"))
    bare = dict(tiny.model("llama", layers=1).named_parameters())
    for name, factors in model.adapter.factors().items():
        updates = [update[name].delta() for update in model.adapter.past] + [factors.delta()]
        found = model.adapter.layers[name].get_base_layer().weight + factors.delta()
        expected = bare[f"{name}.weight"] + sum(updates) / 3
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_stage_that_is_not_accepted_is_as_if_it_had_not_been(learned, tmp_path):
    out = learned("choosy")
    first, second, third = stages(out)
    assert manifests(out) == [["001-colour"], ["001-colour"], ["001-colour", "003-shape"]]
    assert (ModelDirectory(out).stage_path(second) / "update").is_dir()
    assert second.notes["rejected"]["accuracy"].keys() == {"colour", "size"}
    assert "rejected" not in first.notes | third.notes
    assert answers(out, 2, "colour") == answers(out, 1, "colour")
    assert second.accuracy["colour"] == first.accuracy["colour"]
    kept = [
        json.loads((ModelDirectory(out).stage_path(r) / "state" / "state.json").read_text())
        for r in (first, second, third)
    ]
    assert [s["trained"] for s in kept] == [["colour"], ["colour"], ["colour", "shape"]]
    # the third stage is that of a model that has never seen the second
    model = ContinualModel.open(first_stages(out, 1, tmp_path / "out"))
    model.stream = [tiny.task("colour"), tiny.task("shape")]
    learn_stage(model, Stage(2, "shape", (tiny.task("shape"),), third.seed), model.stream)
    assert losses(tmp_path / "out", 2) == losses(out, 3)
    assert answers(tmp_path / "out", 2, "shape") == answers(out, 3, "shape")
    expected = update(out, 3)
    assert all(torch.equal(t, expected[n]) for n, t in update(tmp_path / "out", 2).items())


def test_a_router_skips_a_stage_that_was_not_accepted(learned):
    out = learned("de-choosy")
    model = ContinualModel.open(out)
    assert model.method.state.by_text.stages == [1, 3]
    for task, stage in (("colour", 1), ("shape", 3)):
        assert set(model.method.route(model.context(), tiny.task(task).test)) == {stage}


def test_accuracies_are_what_the_method_measures_a_task_by(learned):
    out = learned("choosy")
    for stage in (1, 3):
        said = answers(out, stage, "colour")
        expected = 100.0 * sum("e" in text for text in said) / len(said)
        assert stages(out)[stage - 1].accuracy["colour"] == pytest.approx(expected)
