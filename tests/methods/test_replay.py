import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from nlora.continual.model import ContinualModel
from nlora.data.task import Example, Task, TaskData
from nlora.methods.context import Stage
from nlora.methods.registry import method
from nlora.plan.settings import RunSettings
from nlora.store.state import read_state, write_state
from nlora.training.loop import take_examples
from tests import tiny
from tests.loop import context
from tests.methods.helpers import TASKS, learn, stages, update

COUNTS = {"red": 40, "green": 12, "blue": 8}


def task(name: str) -> TaskData:
    described = Task(name, "Which?", tuple(COUNTS))
    train = tuple(
        Example(described, f"{name} {label} {i} …", label)
        for label, count in COUNTS.items()
        for i in range(count)
    )
    return TaskData(described, train, test=train[:1])


def after(*tasks: TaskData, **settings):
    replay = method("replay").build(settings)
    for number, data in enumerate(tasks, start=1):
        replay.end(at(number, data))
    return replay


def at(number: int, data: TaskData, seed: int | None = None):
    """The context of a stage, of which the buffer needs the tasks alone."""
    stage = Stage(number, data.name, (data,), seed=number if seed is None else seed)
    return context("t5", None, stage)


def kept(replay) -> list[Example]:
    return [Example.from_json(row) for row in replay.state.kept]


@pytest.mark.parametrize(("buffer", "count"), [(0.1, 6), (0.25, 15), (1, 1), (10, 10), (500, 60)])
def test_a_share_or_a_number_of_each_task_is_kept_and_every_label_keeps_its_share(buffer, count):
    one, two = task("one"), task("two")
    replay = after(one, two, buffer=buffer)
    for data in (one, two):
        mine = [e for e in kept(replay) if e.task == data.task]
        assert len(mine) == len(set(mine)) == count
        assert set(mine) <= set(data.train)
        found = Counter(e.label for e in mine)
        for label, number in COUNTS.items():
            exact = count * number / 60
            assert math.floor(exact) <= found[label] <= math.ceil(exact)


def test_what_is_kept_is_mixed_into_the_next_tasks_examples():
    one, two = task("one"), task("two")
    replay = after(one, buffer=0.1)
    ctx = at(2, two)
    take_examples(replay, ctx, RunSettings())
    assert ctx.examples[: ctx.own] == list(two.train)
    assert Counter(ctx.examples[ctx.own :]) == Counter(kept(replay))


@pytest.mark.parametrize(("buffer", "count"), [(10, 10), (0.1, 12)])
def test_a_task_that_is_learned_again_is_rehearsed_as_it_is_asked_now(buffer, count):
    one = task("one")
    again = replace(one.task, instruction="Which of these?")
    grown = TaskData(again, tuple(Example(again, f"new {e.text}", e.label) for e in one.train), ())
    replay = after(one, grown, buffer=buffer)
    assert len(kept(replay)) == count
    assert {e.task for e in kept(replay)} == {again}
    assert {e.text.startswith("new") for e in kept(replay)} == {True, False}  # of both stages
    first = after(one, buffer=buffer)
    assert {e.task for e in first.mixed_in(at(2, grown)).examples} == {again}


def test_what_is_kept_survives_files(tmp_path):
    replay = after(task("one"), task("two"), buffer=5)
    free = Task("free")  # without instruction and labels
    replay.state.kept.append(Example(free, "line\nline\u2028 ü", "any answer").to_json())
    write_state(tmp_path, replay.state)
    again = method("replay").build({})
    again.state = read_state(tmp_path, again.State)
    assert kept(again) == kept(replay)
    assert kept(again)[-1] == Example(free, "line\nline\u2028 ü", "any answer")


def test_the_sample_depends_on_the_stages_seed_alone():
    data = task("one")
    same = kept(after(data, buffer=6))
    assert kept(after(data, buffer=6)) == same
    other = method("replay").build({"buffer": 6})
    other.end(at(1, data, seed=9))
    assert kept(other) != same


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_run_trains_on_the_buffers_of_all_earlier_tasks(adapter, t5, tmp_path):
    learn(t5, tmp_path, "replay", adapter=adapter, buffer=0.25)
    records = stages(tmp_path)
    assert [r.examples for r in records] == [12, 12 + 3, 12 + 6]
    assert [r.name for r in records] == list(TASKS)
    assert ("lora_A" in " ".join(update(tmp_path, 3))) == (adapter == "lora")


def test_by_surprise_the_least_likely_answers_are_kept(llama, tmp_path):
    how = {"adapter": "lora", "keep_by": "surprise", "learning_rate": 1e-2}
    learn(llama, tmp_path, "replay", tasks=TASKS[:1], count=12, buffer=4, **how)
    model = ContinualModel.open(tmp_path)
    data = tiny.task(TASKS[0], 12)
    ctx = model.context()
    means = {}
    for example in data.train:
        [row] = ctx.encoder.all([example])
        means[example] = ctx.score([example])[0] / len(row.answer)
    worst = sorted(data.train, key=means.__getitem__)[:4]
    found = [Example.from_json(row) for row in model.method.state.kept]
    assert found == [example for example in data.train if example in worst]


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_sure_keeps_the_texts_that_were_least_likely_before_the_task(request, shape, tmp_path):
    base = request.getfixturevalue(shape)
    learn(base, tmp_path, "sure", tasks=TASKS[:2], count=12, buffer=4, learning_rate=1e-2)
    model = ContinualModel.open(tmp_path)
    data = tiny.task(TASKS[1], 12)
    means = {}
    network = model.adapter.model.eval()
    with model.standing(1), torch.no_grad():  # as it was before the second task
        for example, (ids, _) in zip(data.train, model.encoder.prompts(data.train), strict=True):
            read = torch.tensor([ids])
            means[example] = float(network(input_ids=read, labels=read).loss)
    worst = sorted(data.train, key=means.__getitem__)[-4:]
    kept = [Example.from_json(row) for row in model.method.state.kept][4:]
    assert kept == [example for example in data.train if example in worst]
