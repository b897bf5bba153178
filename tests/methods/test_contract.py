"""Methods that are defined in this file train through the loop; the file is its own plugin."""

import pytest
import torch

from nlora.adapters.layouts import Concatenated
from nlora.adapters.lora import Lora
from nlora.adapters.prompt import Prompt
from nlora.errors import NloraError
from nlora.lowrank.factors import Factors
from nlora.methods.base import Method, Settings, Term
from nlora.methods.context import Step
from nlora.methods.parts.terms import OnFactors, ready
from tests import tiny
from tests.loop import train_stage
from tests.methods.helpers import TASKS, answers, learn, losses, stages, update


class RidgeSettings(Settings):
    entropy: float = 0.5
    ridge: float = 0.1


class Ridge:
    """Half the squared length of every B."""

    name = "ridge"

    def __init__(self, adapter, weight: float) -> None:
        self.weight, self.seen = weight, []
        self.parameters = [f.B for f in adapter.factors().values()]

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

    def loss(self, ctx, batch):
        logits, _ = ctx.logits(batch)
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum() / ctx.tokens
        return {**super().loss(ctx, batch), "entropy": self.settings.entropy * entropy}

    def penalties(self, ctx):
        return [Ridge(ctx.adapter_as(Lora), self.settings.ridge)]


class DistilSettings(Settings):
    where: str = "lora"


class Distil(Method):
    """Stay near the model as it was before the stage (Learning without Forgetting)."""

    name = "distil"
    summary = "the model before the stage is the teacher"
    Settings = DistilSettings
    needs_previous = True

    @property
    def adapter(self) -> str:
        return self.settings.where

    def loss(self, ctx, batch):
        logits, _ = ctx.logits(batch)
        with torch.no_grad(), ctx.previous():
            wanted, _ = ctx.logits(batch)
        distance = (logits - wanted).square().mean(-1).sum() / ctx.tokens
        return {**super().loss(ctx, batch), "distillation": distance}


class Routed(Method):
    """Prompts of which each example gets those of the task that its text names."""

    name = "routed"
    summary = "prompts chosen by the text"

    @property
    def adapter(self) -> str:
        return "prompt"

    def adapter_options(self):
        return {"layout": Concatenated(4)}

    def route(self, ctx, examples):
        learned = len(ctx.model.updates)
        return [min(1 + int(e.text.rsplit(" ", 1)[1]) % 3, learned) for e in examples]

    def at(self, ctx, stage: int):
        return ctx.adapter_as(Prompt).reading([stage - 1])


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


def test_a_method_may_route_each_example_to_a_stage(llama_of_two, tmp_path):
    learn(llama_of_two, tmp_path, "routed", plugin=__file__, learning_rate=0.5, epochs=4)
    # after the first stage all are answered by its prompt, as are every third one's later
    alone = answers(tmp_path, 1, "colour")
    for later in (2, 3):
        mixed = answers(tmp_path, later, "colour")
        own = [i for i in range(12) if (100 + i) % 3 == 0]
        assert [mixed[i] for i in own] == [alone[i] for i in own]
    assert answers(tmp_path, 3, "colour") != alone


def test_examples_may_come_from_anywhere(llama, tmp_path, monkeypatch):
    def twice(self, ctx):
        return [e for data in ctx.stage.tasks for e in data.train] * 2

    monkeypatch.setattr("nlora.methods.inc_lora.IncLora.examples", twice)
    learn(llama, tmp_path, "inc-lora", TASKS[:1])
    assert stages(tmp_path)[0].examples == 24
    assert len(losses(tmp_path, 1)) == 3


class Plain(Method):
    """All hooks keep their defaults."""

    name = "plain"


class Named:
    """A penalty of a name, without weight."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, step: Step) -> None:
        return None

    def notes(self) -> dict:
        return {}


@pytest.mark.parametrize("names", [("mine", "mine"), ("task",), ("learning_rate",)])
def test_terms_of_one_name_are_refused_in_one_line(names):
    adapter = Lora(tiny.model("llama"), 2, 4.0, 0.0)
    adapter.begin()
    extra = [Named(name) for name in names]
    with pytest.raises(NloraError, match=f"are logged as '{names[0]}'") as caught:
        train_stage("llama", adapter, Plain(Settings()), tiny.task(), extra)
    assert "\n" not in str(caught.value)


def test_gradients_of_another_shape_are_one_line_that_names_term_and_matrix():
    class Swapped(OnFactors):
        name = "swapped"

        def value_and_grads(self):
            return 1.0, [(f.B, f.A) for f in self.factors]

    factors = [Factors(torch.ones(2, 5), torch.ones(3, 2), 1.0)] * 2
    with pytest.raises(NloraError, match=r"'swapped': the gradient of A of matrix 1 is \[3, 2\]"):
        ready(Swapped(factors, 1.0, relative=False, steps=9))
