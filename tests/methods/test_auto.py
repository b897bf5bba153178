"""Weights that are found while a stage is trained."""

import json
from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.continual.learning import run
from nlora.errors import NloraError
from nlora.methods.context import Step
from nlora.methods.parts.auto import FIRST, compared, judged_by, without_held_out
from nlora.methods.registry import method
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from tests import runs, tiny
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, losses, stages

STEPS = 32  # half of them without the penalty, then rungs of two


class Judged:
    """A stage whose dev losses are given: by rung, each example's."""

    def __init__(self, monkeypatch, *given: float) -> None:
        self.adapter = Lora(tiny.model("llama"), 2, 4.0, 0.0)
        self.adapter.begin()
        with torch.no_grad():
            for factors in self.adapter.factors().values():
                factors.B.normal_()
        ctx = context("llama", self.adapter, stage(steps=STEPS))
        left = iter([-torch.tensor([0.9, 1.0, 1.1]) * x for x in given])
        monkeypatch.setattr(ctx, "score", lambda examples: next(left).tolist())
        [self.term] = method("n-lora").build({"l1": "auto"}).penalties(ctx)
        self.gradients = {p: torch.full_like(p, 0.1) for p in self.adapter.trainable()}
        self.values: list[float | None] = []
        self.ends: list[torch.Tensor] = []
        for number in range(STEPS):
            step = Step(number, STEPS, self.gradients)
            found = self.term(step)
            self.values.append(self.term.notes()["lambda"] if found else None)
            with torch.no_grad():
                for p in self.adapter.trainable():
                    p.add_(0.001)
            self.term.after(step)
            self.ends.append(self.adapter.trainable()[0].detach().clone())


def test_the_penalty_doubles_from_rung_to_rung_until_one_costs_too_much(monkeypatch):
    judged = Judged(monkeypatch, 1.0, 1.0, 0.99, 0.995, 1.2)
    notes = judged.term.notes()
    assert [row["accepted"] for row in notes["rungs"]] == [True, True, True, False]
    assert [row["rho"] for row in notes["rungs"]] == [FIRST * 2**j for j in range(4)]
    assert notes["rho"] == FIRST * 4
    first = notes["lambda"] / 4
    expected = [None] * 16 + [first * k for k in (1, 1, 2, 2, 4, 4, 8, 8)] + [first * 4] * 8
    assert judged.values == pytest.approx(expected)
    # at the end of the fourth rung everything is as it was at the end of the third
    assert judged.ends[23].equal(judged.ends[21])
    assert not judged.ends[24].equal(judged.ends[21])


def test_where_no_rung_is_accepted_the_rest_is_without_the_penalty(monkeypatch):
    judged = Judged(monkeypatch, 1.0, 1.5)
    assert judged.values[18:] == [None] * 14
    assert judged.term.notes()["lambda"] == 0
    assert judged.ends[17].equal(judged.ends[15])


def test_where_all_are_accepted_the_highest_stays(monkeypatch):
    judged = Judged(monkeypatch, *[1.0] * 9)
    assert judged.term.notes()["rho"] == FIRST * 2**7


def test_the_first_weight_is_a_ratio_of_gradient_norms(monkeypatch):
    judged = Judged(monkeypatch, *[1.0] * 9)
    notes = judged.term.notes()
    g = 0.1 * sum(p.numel() for p in judged.gradients) ** 0.5
    assert notes["task_gradient"] == pytest.approx(g, rel=1e-5)
    assert notes["lambda"] == pytest.approx(FIRST * 2**7 * g / notes["penalty_gradient"], rel=1e-5)


def test_a_rung_may_be_worse_by_its_standard_error_or_one_per_cent():
    then, now = [1.0, 2.0, 3.0], [1.5, 1.9, 3.4]
    differences = [0.5, -0.1, 0.4]
    worse, limit = compared(now, then)
    assert worse == pytest.approx(mean(differences))
    assert limit == pytest.approx(stdev(differences) / 3**0.5)
    assert compared([1.001, 2.001], [1.0, 2.0])[1] == pytest.approx(0.015)


def test_few_dev_examples_are_held_out_of_training_and_no_test_text_counts():
    data = tiny.task(TASKS[0], 40)
    assert judged_by(data, 1)[1] == "dev"
    import dataclasses

    same = dataclasses.replace(data, dev=data.test)
    held, of = judged_by(same, 1)
    assert (of, len(held)) == ("training", 20)  # 32 would be more than half
    left = without_held_out(stage(data=same))
    assert len(left) == len(data.train)  # a stage has as many steps as any other
    assert not set(left) & set(held)
    assert set(without_held_out(stage(data=data))) == set(data.train)


def test_a_run_finds_its_weight_in_as_many_steps_and_tells_how(llama, tmp_path):
    settings = {"learning_rate": 1e-2, "epochs": 16, "tasks": TASKS[:1]}
    learn(llama, tmp_path / "auto", "n-lora", l1="auto", **settings)
    [record] = stages(tmp_path / "auto")
    assert record.steps == 32
    notes = record.notes["l1"]
    assert notes["dev"] == {"examples": 6, "of": "training"}
    assert 1 <= len(notes["rungs"]) <= 8
    found = [step["l1"] for step in losses(tmp_path / "auto", 1)]
    assert found[:16] == [0.0] * 16
    assert found[16] > 0
    json.dumps(notes)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("o-lora", {"orthogonality_weight": "auto"}),
        ("ella", {"ella_weight": "auto"}),
        ("ewc", {"ewc_lambda": "auto", "adapter": "lora"}),
        ("lwf", {"distillation_weight": "auto", "adapter": "lora"}),
    ],
)
def test_other_weights_are_found_by_the_same_rule(name, settings, llama, tmp_path):
    learn(llama, tmp_path, name, tasks=TASKS[:2], epochs=3, learning_rate=1e-2, rank=2, **settings)
    second = stages(tmp_path)[1].notes
    [found] = [note for note in second.values() if isinstance(note, dict) and "rungs" in note]
    assert found["penalty_gradient"] > 0


def test_a_stage_of_one_step_is_without_the_penalty(llama, tmp_path):
    one_step = {"epochs": 1, "batch_size": 16}
    learn(llama, tmp_path, "ella", TASKS[:2], ella_weight="auto", **one_step)
    assert [record.steps for record in stages(tmp_path)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("ella", {"ella_weight": "auto", "penalty": "l1", "l1": "auto"}, "only one weight"),
        ("n-lora", {"penalty": "column-row", "l1": "auto"}, "has no l1=auto"),
        ("n-lora", {"l1": "automatic"}, "setting 'l1'"),
    ],
)
def test_what_cannot_be_found_is_one_line(name, settings, said):
    with pytest.raises(NloraError, match=said) as error:
        choose(RunConfig(model="any", method=name, settings=settings))
    assert "\n" not in str(error.value)


def test_a_task_with_nothing_to_judge_by_is_refused_before_the_first_is_learned(llama, tmp_path):
    with pytest.raises(NloraError, match="task 'size': a weight that is 'auto' needs dev"):
        run(
            runs.config(llama, None, {**runs.FAST, "l1": "auto"}, method="n-lora"),
            tmp_path / "out",
            stream=[tiny.task("colour"), replace(tiny.task("size", 1), dev=())],
        )
    assert not (tmp_path / "out").exists()
