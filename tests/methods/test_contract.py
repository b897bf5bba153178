"""Methods that are defined in this file train through the loop; the file is its own plugin."""

import pytest
import torch

from nlora.carriers.layouts import Concatenated
from nlora.methods.base import Method, Settings, Stage, Step, Term
from nlora.models.logits import answer_logits
from tests.methods.helpers import TASKS, answers, learn, losses, stages, update


class RidgeSettings(Settings):
    entropy: float = 0.5
    ridge: float = 0.1


class Ridge:
    """Half the squared length of every B."""

    name = "ridge"

    def __init__(self, carrier, weight: float) -> None:
        self.weight, self.seen = weight, []
        self.parameters = [f.B for f in carrier.factors().values()]

    @torch.no_grad()
    def __call__(self, step: Step) -> Term | None:
        self.seen.append(step.number)
        assert all(step.gradients[p].shape == p.shape for p in self.parameters)
        if step.number == 0:
            return None
        value = sum(float(p.square().sum()) for p in self.parameters)
        return Term(self.weight / 2 * value, [(p, self.weight * p) for p in self.parameters])

    def notes(self) -> dict:
        return {"steps_seen": self.seen}


class Confident(Method):
    """A loss term and a penalty of its own."""

    name = "confident"
    summary = "fewer doubts, smaller factors"
    Settings = RidgeSettings

    def loss(self, model, batch, tokens):
        logits, _ = answer_logits(model, batch)
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum() / tokens
        return {**super().loss(model, batch, tokens), "entropy": self.settings.entropy * entropy}

    def penalties(self, learner, stage):
        return [Ridge(learner.carrier, self.settings.ridge)]


class DistilSettings(Settings):
    where: str = "lora"


class Distil(Method):
    """Stay near the model as it was before the stage (Learning without Forgetting)."""

    name = "distil"
    summary = "the model before the stage is the teacher"
    Settings = DistilSettings
    needs_previous = True
    teacher = None

    @property
    def carrier(self) -> str:
        return self.settings.where

    def begin(self, learner, stage):
        super().begin(learner, stage)
        self.teacher = learner.carrier.previous

    def loss(self, model, batch, tokens):
        logits, _ = answer_logits(model, batch)
        with torch.no_grad(), self.teacher():
            wanted, _ = answer_logits(model, batch)
        distance = (logits - wanted).square().mean(-1).sum() / tokens
        return {**super().loss(model, batch, tokens), "distillation": distance}


class Routed(Method):
    """Prompts of which each example gets those of the task that its text names."""

    name = "routed"
    summary = "prompts chosen by the text"

    @property
    def carrier(self) -> str:
        return "prompt"

    def carrier_options(self):
        return {"layout": Concatenated(4)}

    def route(self, learner, examples):
        learned = len(learner.carrier.model.updates)
        return [min(1 + int(e.text.rsplit(" ", 1)[1]) % 3, learned) for e in examples]

    def at(self, learner, stage: int):
        return learner.carrier.reading([stage - 1])


def test_a_users_loss_term_and_penalty_are_trained_and_logged_by_name(llama, tmp_path):
    settings = {"epochs": 4, "learning_rate": 1e-2}
    runs = {"both": {}, "no-entropy": {"entropy": 0.0}, "no-ridge": {"ridge": 0.0}}
    for name, given in runs.items():
        learn(llama, tmp_path / name, "confident", TASKS[:2], 16, __file__, **settings, **given)
    both = losses(tmp_path / "both", 2)
    assert len(both) == 8
    assert all({"task", "entropy", "ridge"} <= step.keys() for step in both)
    assert both[0]["ridge"] == 0.0
    assert both[1]["ridge"] > 0
    assert 0 < both[0]["entropy"] < 0.5 * 5.56  # ln 259 if the model knows nothing
    assert losses(tmp_path / "no-entropy", 2)[-1]["entropy"] == 0.0
    assert stages(tmp_path / "both")[1].notes["ridge"] == {"steps_seen": list(range(8))}

    def size(name: str) -> float:
        return sum(float(t.norm()) for k, t in update(tmp_path / name, 2).items() if "lora_B" in k)

    assert size("both") < size("no-ridge")
    assert both[-1]["entropy"] < 0.98 * both[0]["entropy"]


@pytest.mark.parametrize("where", ["lora", "full"])
@pytest.mark.parametrize("model", ["llama", "t5"])
def test_the_model_before_the_stage_can_teach_while_it_trains(model, where, request, tmp_path):
    learn(
        request.getfixturevalue(model),
        tmp_path,
        "distil",
        TASKS[:2],
        plugin=__file__,
        where=where,
        dropout=0.0,
        learning_rate=1e-3,
        shared_prefix="off",
    )
    for stage in (1, 2):
        terms = [step["distillation"] for step in losses(tmp_path, stage)]
        assert terms[0] == pytest.approx(0, abs=1e-9)  # nothing has moved yet
        assert min(terms[1:]) > 1e-7


def test_a_method_may_route_each_example_to_a_stage(llama, tmp_path):
    learn(llama, tmp_path, "routed", plugin=__file__, learning_rate=0.5, epochs=4)
    # after the first stage all are answered by its prompt, as are every third one's later
    alone = answers(tmp_path, 1, "colour")
    for later in (2, 3):
        mixed = answers(tmp_path, later, "colour")
        own = [i for i in range(12) if (100 + i) % 3 == 0]
        assert [mixed[i] for i in own] == [alone[i] for i in own]
    assert answers(tmp_path, 3, "colour") != alone


def test_examples_may_come_from_anywhere(llama, tmp_path, monkeypatch):
    def twice(self, learner, stage: Stage):
        return [e for data in stage.tasks for e in data.train] * 2

    monkeypatch.setattr("nlora.methods.inc_lora.IncLora.examples", twice)
    learn(llama, tmp_path, "inc-lora", TASKS[:1])
    assert stages(tmp_path)[0].examples == 24
    assert len(losses(tmp_path, 1)) == 3
