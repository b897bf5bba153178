"""Readings of a task's answers, from what was looked at and what the run has kept."""

from typing import Any

import numpy as np

from nlora.data.task import Example, Task, TaskData
from nlora.explain.asked import Learned
from nlora.explain.looks import Look
from nlora.explain.readings import readings


def test_answers_to_fewer_tests_than_there_are_now_are_not_set_beside_those_to_all():
    task = Task("mood", labels=("good", "bad"))
    tests = tuple(Example(task, f"text {i}", "good") for i in range(3))
    known = Learned(TaskData(task, (), tests), stage=1, later=())
    looks = {Look(stage, "mood", "test"): np.array([[0.0, -1.0]] * 3) for stage in (0, 1)}
    row = {"correct": True, "text": "good"}
    questions: Any = None  # no probe, no dev
    found = readings(known, questions, looks, {0: {"mood": [row]}, 1: {"mood": [row] * 3}}, {})
    assert found[0].free is None
    assert found[0].among.mean() == found[1].among.mean() == found[1].free.mean() == 1.0
