"""Trials of settings, and which of them is chosen."""

import json

import pytest
import yaml

from nlora.errors import NloraError
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from nlora.progress import NoProgress
from nlora.study import tune
from nlora.study.compare import Comparison
from tests.runs import FAST, write_stream
from tests.study.test_grid import grid


def trials(method, count, **settings):
    return tune.trials(choose(RunConfig(model="m", method=method, settings=settings)), count)


def test_every_method_gets_as_many_trials_and_the_first_is_its_own():
    for method in ("inc-lora", "n-lora", "o-lora", "mtl"):
        for count in (1, 2, 5, 9):
            found = trials(method, count)
            assert len(found) == count
            assert len({json.dumps(t) for t in found}) == count
            assert found[0]["learning_rate"] == 1e-3


def test_trials_are_a_grid_of_the_learning_rate_and_the_methods_own_weight():
    nine = trials("n-lora", 9, l1=0.1)
    assert {t["learning_rate"] for t in nine} == {3.2e-4, 1e-3, 3.2e-3}
    assert {t["l1"] for t in nine} == {0.032, 0.1, 0.32}
    assert nine[0] == {"learning_rate": 1e-3, "l1": 0.1}
    assert [len({t["learning_rate"], 1e-3}) + len({t["l1"], 0.1}) for t in nine[1:5]] == [3] * 4
    assert {*trials("o-lora", 2)[0]} == {"learning_rate", "orthogonality_weight"}
    assert {*trials("ewc", 2)[0]} == {"learning_rate", "ewc_lambda"}
    assert {*trials("n-lora", 2, l1=0)[0]} == {"learning_rate"}
    alone = [t["learning_rate"] for t in trials("inc-lora", 5)]
    assert alone == [1e-3, 3.2e-4, 3.2e-3, 1e-4, 1e-2]
    lists = trials("inc-lora", 2, learning_rate=[1e-3, 1e-4])
    assert lists[1] == {"learning_rate": [3.2e-4, 3.2e-5]}


def test_the_best_on_dev_is_chosen_and_of_equals_the_nearest():
    rows = [
        {"settings": {"x": 1}, "average_accuracy": 50.0},
        {"settings": {"x": 2}, "error": "no luck"},
        {"settings": {"x": 3}, "average_accuracy": 60.0},
        {"settings": {"x": 4}, "average_accuracy": 60.0},
    ]
    assert tune.choose(rows) == {"x": 3}
    with pytest.raises(NloraError, match="none of its 1 tuning trials was finished: no luck"):
        tune.choose(rows[1:2])


def test_what_is_only_tested_is_in_no_trial(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal")
    entries = yaml.safe_load(stream.read_text())
    del entries[1]["train"]
    stream.write_text(yaml.safe_dump(entries))
    asked = grid(llama, (str(stream),), "inc-lora", settings=FAST, tune=2)
    comparison = Comparison(asked, tmp_path / "out", 1, NoProgress())
    jobs = comparison.trials_of(str(stream), asked.points[0])
    assert [[data.name for data in job.plan.stream] for job in jobs] == [["colour"]] * 2
