"""Whatever is wrong with a row of a ledger is one line with file, line and key."""

import json

import pytest

from nlora.errors import NloraError
from nlora.report import ledger
from nlora.report.ledger import pack
from nlora.report.tables import tables
from tests.report.rows import explained, geometry, row, write


def edited(path, value, *, of=None):
    """A good row in which one value is another; ... takes its key out."""
    found = of or row(geometry=geometry(1.0, 1.0, 1.0, 0.5), explained=explained())
    *way, last = path
    inside = found
    for key in way:
        inside = inside[key]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return found


BROKEN = {
    "no configuration": (("configuration",), ..., "not a row of a ledger of runs"),
    "configuration of words": (("configuration",), "n-lora", "'configuration': "),
    "no settings": (("configuration", "settings"), ..., "'configuration.settings': is missing"),
    "settings of words": (("configuration", "settings"), [], "'configuration.settings': "),
    "tasks of numbers": (("configuration", "tasks"), [1], "'configuration.tasks.0': "),
    "precision": (("configuration", "settings"), {"precision": []}, "'settings.precision'"),
    "seed": (("configuration", "seed"), "0", "'configuration.seed': "),
    "title": (("base", "title"), 5, "'base.title': "),
    "no metric": (("forgetting",), ..., "'forgetting': is missing"),
    "metric of words": (("average_accuracy",), "50", "'average_accuracy': "),
    "infinite": (("average_accuracy",), float("inf"), "'average_accuracy': "),
    "cell": (("cell",), 1, "'cell': "),
    "method": (("cell", "method"), ["a"], "'cell.method': "),
    "needs": (("needs",), None, "'needs': "),
    "error": (("error",), 5, "'error': "),
    "machine": (("machine",), {}, "'machine.processor': is missing"),
    "seconds": (("seconds_by",), {"training": 1.0}, "'seconds_by.evaluation': is missing"),
    "memory": (("peak_memory_bytes",), -1, "'peak_memory_bytes': "),
    "trained": (("trainable_parameters",), [10**30], "'trainable_parameters.0': "),
    "notes": (
        ("notes",),
        {"a": {"sparse": {"matrices": {}}}},
        "'notes.a.sparse.collision_rates': is missing",
    ),
    "tuning": (("tuning",), {}, "'tuning.trials': is missing"),
    "geometry": (("geometry", "last"), {}, "'geometry.last.oo': is missing"),
    "collisions": (("geometry", "collisions"), [], "'geometry.collisions': "),
    "pairs": (("geometry", "pairs"), [{"a": "x", "b": 5}], "'geometry.pairs.0.b': "),
    "alike": (("alike",), [{"a": "x", "b": "y", "texts": 0.5}], "'alike.0.labels': is missing"),
    "kl": (("kl",), {"matrix": [[0.5]]}, "'kl.matrix' should have a column for each of 'tasks'"),
    "explained of nothing": (("explained",), None, "'explained': "),
    "explained of words": (("explained", "tasks"), "all", "'explained.tasks': "),
    "no reading": (
        ("explained", "tasks", "dbpedia", "then"),
        ...,
        "'explained.tasks.dbpedia.then': is missing",
    ),
    "no way": (("explained", "tasks", "agnews", "way"), {}, "'way' should begin at 'base'"),
    "parts of words": (
        ("explained", "over_tasks", "parts", "bias"),
        "10",
        "'explained.over_tasks.parts.bias': ",
    ),
    "no parts": (("explained", "over_tasks", "parts"), ..., "parts': is missing"),
    "kept of numbers": (
        ("explained", "tasks", "dbpedia", "kept", "base", "train"),
        90.0,
        "'explained.tasks.dbpedia.kept.base.train': ",
    ),
    "stages": (("answers", "stages"), [], "'answers.stages' has 0 of 4 stages"),
    "no answers of a task": (("answers", "stages", 3, "amazon"), ..., "lacks task 'amazon'"),
    "other count": (("answers", "stages", 3, "amazon"), "1:80", "has another count"),
    "terabytes": (
        ("answers", "stages", 3, "amazon"),
        "999999999:80",
        "should hold 999999999 answers, but has 8 bits",
    ),
    "more digits": (("answers", "stages", 3, "amazon"), f"{10**20}:80", "as COUNT:HEX"),
    "no hex": (("answers", "stages", 3, "amazon"), "4:xy", "as COUNT:HEX"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_row_is_refused_with_file_line_and_key(tmp_path, kind):
    path, value, said = BROKEN[kind]
    file = write(tmp_path / "ledger.jsonl", [row("o-lora"), edited(path, value)])
    with pytest.raises(NloraError) as error:
        tables([file])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{file}, line 2: ")
    assert said in str(error.value)


TEXTS = {
    "words": "no json",
    "a list": "[1]",
    "nested": '{"a": ' + "[" * 5000 + "]" * 5000 + "}",
    "nested without end": "[" * 100_000,
    "digits": '{"configuration": ' + "1" * 5000 + "}",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_line_that_is_no_row_is_refused_with_file_and_line(tmp_path, kind):
    file = tmp_path / "ledger.jsonl"
    file.write_text(json.dumps(row()) + "\n" + TEXTS[kind] + "\n")
    with pytest.raises(NloraError) as error:
        tables([file])
    assert str(error.value).startswith(f"{file}, line 2")
    assert "\n" not in str(error.value)


def test_rows_that_claim_the_same_tests_need_as_many_answers(tmp_path):
    short = row("n-lora", count=8, tests=row()["tests"])
    short["configuration"]["max_eval"] = row()["configuration"]["max_eval"]
    file = write(tmp_path / "ledger.jsonl", [row(), short])
    with pytest.raises(NloraError, match=r"row 2 and .* row 1 have the same test examples"):
        tables([file], ["differences"])


def test_a_task_that_was_learned_again_has_more_answers_since(tmp_path):
    found = row()
    *_, accuracies = found["accuracy_matrix"]
    *_, answers = found["answers"]["stages"]
    found["stages"], found["tests"] = [*found["stages"], "dbpedia (2)"], {"dbpedia": "more"}
    found["accuracy_matrix"].append([100.0, *accuracies[1:]])
    found["answers"]["stages"].append({**answers, "dbpedia": pack([True] * 45)})
    file = write(tmp_path / "ledger.jsonl", [found, row("n-lora")])
    assert {table.key for table in tables([file])} >= {"accuracy", "metrics", "cost"}


def test_what_was_not_measured_is_a_dash_and_no_error(tmp_path):
    updates = geometry(1.0, 1.0, 1.0, 0.5)
    updates["per_adapter"][0]["gsr"]["mean"] = None
    bare = row(geometry=updates, forgetting=None)
    for name in ("answers", "tests", "needs", "seconds_by", "trainable_parameters", "cell"):
        del bare[name]
    file = write(tmp_path / "ledger.jsonl", [bare])
    assert {table.key for table in tables([file])} >= {"accuracy", "collisions", "cost"}


def test_methods_that_were_run_on_different_streams_have_no_ratio(tmp_path):
    updates = geometry(1.0, 1.0, 1.0, 0.5)
    rows = [row(geometry=updates), row("n-lora", stream="order-2", geometry=updates)]
    file = write(tmp_path / "ledger.jsonl", rows)
    assert {table.key for table in tables([file])} >= {"accuracy", "ratios"}


def test_a_trial_of_another_type_is_named(tmp_path):
    from nlora.study.tune import Trial

    file = tmp_path / "tuning.jsonl"
    trial = {"stream": "s", "method": "m", "trial": 1, "settings": {}}
    file.write_text(json.dumps({**trial, "error": "no"}) + "\n" + json.dumps(trial) + "\n")
    with pytest.raises(NloraError, match="line 2: needs 'average_accuracy' or 'error'"):
        list(ledger.lines(file, Trial))
