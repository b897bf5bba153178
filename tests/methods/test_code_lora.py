"""CoDe-LoRA: experts on a shared branch, and who answers."""

import pytest
import torch

from nlora.continual.answering import predict
from nlora.continual.model import ContinualModel
from nlora.lowrank.factors import Factors
from nlora.merging.registry import consolidation
from nlora.methods.base import Route
from tests import tiny
from tests.adapters.helpers import logits
from tests.methods.helpers import TASKS, learn, update


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("code") / "out"
    settings = {"learning_rate": 3e-2, "rank": 2, "epochs": 1, "count": 8}
    learn(llama, out, "code-lora", **settings)
    return out


def changes(model: ContinualModel, folder) -> list[dict[str, Factors]]:
    """Each stage's own update by matrix."""
    found = []
    for stage in (1, 2, 3):
        saved = update(folder, stage)
        by_name = {}
        for name, own in model.adapter.factors().items():
            A, B = (saved[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
            by_name[name] = Factors(A, B, own.scaling)
        found.append(by_name)
    return found


def test_an_expert_stands_on_the_shared_branch_before_it_and_the_rest_on_the_last(learned):
    model = ContinualModel.open(learned)
    each = changes(model, learned)

    fold = consolidation("retract")

    def shared(count: int) -> dict[str, torch.Tensor]:
        return {n: fold.merge([u[n] for u in each[:count]]).delta() for n in each[0]}

    def standing(change):
        """The logits of the base model with a change in its weights."""
        weights = {n: layer.get_base_layer().weight for n, layer in model.adapter.layers.items()}
        with model.after(0), torch.no_grad():
            base = {name: weight.clone() for name, weight in weights.items()}
            for name, weight in weights.items():
                weight += change[name]
            found = logits(model.adapter.model, "llama")
            for name, weight in weights.items():
                weight.copy_(base[name])
        return found

    ctx = model.context()
    torch.testing.assert_close(logits(model.adapter.model, "llama"), standing(shared(3)))
    for stage in (3, 2):
        before = shared(stage - 1)
        expert = {n: before[n] + each[stage - 1][n].delta() for n in before}
        with model.method.at(ctx, stage):
            torch.testing.assert_close(logits(model.adapter.model, "llama"), standing(expert))
    torch.testing.assert_close(logits(model.adapter.model, "llama"), standing(shared(3)))


def test_where_the_router_is_not_sure_the_shared_branch_answers(learned, monkeypatch):
    model = ContinualModel.open(learned)
    examples = [e for data in model.stream for e in data.test][:6]
    ctx = model.context()
    sure = [route.confidence for route in model.method.routes(ctx, examples)]
    model.method.settings = model.method.settings.model_copy(update={"threshold": min(sure)})
    routes = model.method.routes(ctx, examples)
    assert [route.own for route in routes] == [c > min(sure) for c in sure]
    asked = []
    at = type(model.method).at

    def told(self, ctx, stage):
        asked.append(stage)
        return at(self, ctx, stage)

    monkeypatch.setattr(type(model.method), "at", told)
    given = [Route(1, 0.9), Route(3, 0.5, own=False), Route(2, 0.9)] * 2
    monkeypatch.setattr(model.method, "routes", lambda *args, **more: given)
    model.answer(examples, TASKS[0])
    assert asked == [1, 2]


def test_texts_are_answered_without_their_task(learned):
    texts = [example.text for example in tiny.task(TASKS[0]).test[:3]]
    assert all(answer.answer for answer in predict(learned, texts))
