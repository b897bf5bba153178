"""Routing: who answers an example."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.methods.parts.lora import RouterState
from nlora.methods.parts.routing import SHRINKAGE, Router
from nlora.methods.registry import method
from tests import tiny
from tests.methods.helpers import TASKS, answers, learn, losses, update


def test_the_router_is_linear_discriminant_analysis():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(0)
    spread = rng.normal(size=(12, 12))
    centres = 1.5 * rng.normal(size=(4, 12))
    groups = [centre + rng.normal(size=(40, 12)) @ spread for centre in centres]
    router = Router(RouterState())
    for number, group in enumerate(groups, start=1):
        router.add(number, torch.from_numpy(group))
    asked = centres.repeat(50, 0) + rng.normal(size=(200, 12)) @ spread
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE, priors=[0.25] * 4)
    lda.fit(np.concatenate(groups), np.repeat([1, 2, 3, 4], 40))
    expected = lda.predict(asked)
    assert 50 < (expected == np.repeat([1, 2, 3, 4], 50)).sum() < 190  # no easy matter
    assert router.choose(torch.from_numpy(asked)) == expected.tolist()


def test_by_the_nearest_mean_a_text_is_of_the_task_whose_mean_is_nearest():
    rng = np.random.default_rng(2)
    groups = [centre + rng.normal(size=(9, 3)) * (5, 1, 1) for centre in rng.normal(size=(4, 3))]
    router = Router(RouterState(), rule="nearest-mean")
    for number, group in enumerate(groups, start=1):
        router.add(number, torch.from_numpy(group))
    asked = rng.normal(size=(100, 3))
    apart = [((asked - group.mean(0)) ** 2).sum(1) for group in groups]
    assert router.choose(torch.from_numpy(asked)) == (np.argmin(apart, 0) + 1).tolist()
    assert list(router.confusion()) == [1, 2, 3, 4]


def test_stages_of_different_sizes_weigh_by_their_texts_in_the_scatter_alone():
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=(n, 3)) * scale for n, scale in ((400, 1.0), (5, 3.0))]
    router = Router(RouterState())
    for number, group in enumerate(groups, start=1):
        router.add(number, torch.from_numpy(group))
    scatter = sum((g - g.mean(0)).T @ (g - g.mean(0)) for g in groups)
    spread = scatter / (405 - 2)
    spread = 0.99 * spread + 0.01 * np.trace(spread) / 3 * np.eye(3)
    inverse = np.linalg.inv(spread)
    asked = rng.normal(size=(100, 3))
    scores = [asked @ inverse @ g.mean(0) - 0.5 * g.mean(0) @ inverse @ g.mean(0) for g in groups]
    assert router.choose(torch.from_numpy(asked)) == (np.argmax(scores, 0) + 1).tolist()


def test_a_stage_that_was_not_accepted_is_never_chosen():
    router = Router(RouterState())
    for number, centre in ((1, -1.0), (3, 1.0)):
        router.add(number, torch.tensor([[centre, 0.1], [centre, -0.1]]).double())
    assert router.choose(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]).double()) == [1, 3]


@pytest.mark.parametrize("kind", ["llama", "t5_of_two"])
def test_isolated_adapters_are_each_what_training_on_the_task_alone_gives(kind, learned):
    routed, given, stacked = (learned(kind, name) for name in ("de-lora", "per-task", "inc-lora"))
    for stage in (1, 2, 3):
        ours, theirs = update(routed, stage), update(given, stage)
        assert all(ours[name].equal(theirs[name]) for name in ours)
    assert losses(stacked, 1) == losses(routed, 1)
    assert losses(stacked, 2) != losses(routed, 2)


@pytest.mark.parametrize("method", ["inc-lora", "seq-lora", "prog-prompt"])
def test_what_was_learned_is_answered_the_same_for_ever_when_told_the_task(
    method, tmp_path, llama_of_two
):
    settings = {"epochs": 4}
    if method != "prog-prompt":  # which is always told
        settings |= {"routing": "task", "target_modules": "all-linear", "learning_rate": 1e-2}
    learn(llama_of_two, tmp_path, method, **settings)
    said = {}
    for number, task in enumerate(TASKS, start=1):
        said[task] = answers(tmp_path, number, task)
        assert all(answers(tmp_path, number, earlier) == said[earlier] for earlier in said)
    assert said["colour"] != said["shape"]


def test_tasks_of_other_words_are_told_apart_without_being_told(learned):
    model = ContinualModel.open(learned("llama", "de-lora"))
    for stage, task in enumerate(TASKS, start=1):
        test = tiny.task(task).test
        assert model.method.route(model.context(), test) == [stage] * len(test)


def test_where_no_task_has_tests_nothing_is_routed(learned):
    model = ContinualModel.open(learned("llama", "de-lora"))
    assert model.evaluate([]) == {}
    assert model.evaluate([replace(tiny.task("colour"), test=())]) == {"colour": []}
    assert model.answer([], "colour") == []


def test_more_stages_make_no_test_of_a_task_longer(learned, monkeypatch):
    model = ContinualModel.open(learned("llama", "de-lora"))
    adapter, stood, read = type(model.adapter), [], []
    after, once = adapter.after, adapter._read_once
    monkeypatch.setattr(
        adapter, "after", lambda self, paths: stood.append(len(paths)) or after(self, paths)
    )
    monkeypatch.setattr(
        adapter, "_read_once", lambda self, path: read.append(path) or once(self, path)
    )
    model.evaluate(model.stream)
    assert stood.count(0) == 1  # the base model reads the texts of all tasks at once
    assert len(read) == len(stood) - 1  # an update alone is the model of its stage


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("replay", {"routing": "input"}),
        ("replay", {"consolidation": "largest"}),
        ("replay", {"penalty": "l1"}),
        ("mtl", {"adapter": "full", "consolidation": "largest"}),
    ],
)
def test_what_needs_adapters_says_so_before_anything_is_loaded(name, settings):
    with pytest.raises(NloraError, match=r"needs LoRA adapters|needs an update per task"):
        method(name).build(settings)


@pytest.mark.parametrize("kind", ["largest", "none"])
def test_a_method_that_continues_its_update_has_nothing_to_consolidate(kind):
    with pytest.raises(NloraError, match="needs an update per task"):
        method("seq-lora").build({"consolidation": kind})


def test_methods_say_when_they_must_be_told_the_task():
    assert method("per-task").build({}).needs_task_id
    assert not method("de-lora").build({}).needs_task_id
    assert method("seq-lora").build({"routing": "task"}).needs_task_id
