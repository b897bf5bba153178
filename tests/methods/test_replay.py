import math
from collections import Counter
from dataclasses import replace

import pytest

from nlora.data.task import Example, Task, TaskData
from nlora.methods.base import Stage
from nlora.methods.registry import method
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


def stage(number: int, data: TaskData) -> Stage:
    return Stage(number, data.name, (data,), seed=number)


def after(*tasks: TaskData, **settings):
    replay = method("replay").build(settings)
    for number, data in enumerate(tasks, start=1):
        replay.end(None, stage(number, data))
    return replay


@pytest.mark.parametrize(("buffer", "kept"), [(0.1, 6), (0.25, 15), (1, 1), (10, 10), (500, 60)])
def test_a_share_or_a_number_of_each_task_is_kept_and_every_label_keeps_its_share(buffer, kept):
    one, two = task("one"), task("two")
    replay = after(one, two, buffer=buffer)
    for data in (one, two):
        mine = [e for e in replay.kept if e.task == data.task]
        assert len(mine) == len(set(mine)) == kept
        assert set(mine) <= set(data.train)
        found = Counter(e.label for e in mine)
        for label, count in COUNTS.items():
            exact = kept * count / 60
            assert math.floor(exact) <= found[label] <= math.ceil(exact)


def test_what_is_kept_is_mixed_into_the_next_tasks_examples():
    one, two = task("one"), task("two")
    replay = after(one, buffer=0.1)
    mixed = replay.examples(None, stage(2, two))
    assert Counter(mixed) == Counter([*two.train, *replay.kept])


def test_what_is_kept_survives_files(tmp_path):
    replay = after(task("one"), task("two"), buffer=5)
    free = Task("free")  # without instruction and labels
    replay.kept.append(Example(free, "line\nline\u2028 ü", "any answer"))
    replay.save(tmp_path)
    again = method("replay").build({})
    again.load(tmp_path)
    assert again.kept == replay.kept


def test_the_sample_depends_on_the_stages_seed_alone():
    data = task("one")
    same = after(data, buffer=6).kept
    assert after(data, buffer=6).kept == same
    other = method("replay").build({"buffer": 6})
    other.end(None, replace(stage(1, data), seed=9))
    assert other.kept != same


@pytest.mark.parametrize("carrier", ["full", "lora"])
def test_a_run_trains_on_the_buffers_of_all_earlier_tasks(carrier, t5, tmp_path):
    learn(t5, tmp_path, "replay", carrier=carrier, buffer=0.25)
    records = stages(tmp_path)
    assert [r.examples for r in records] == [12, 12 + 3, 12 + 6]
    assert [r.name for r in records] == list(TASKS)
    assert ("lora_A" in " ".join(update(tmp_path, 3))) == (carrier == "lora")
