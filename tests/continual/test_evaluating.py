"""A model is measured again: as it was after a stage, on its own tests or on a new file."""

import json

import pytest

from nlora.continual.evaluating import evaluate
from nlora.errors import NloraError
from tests.runs import tree


def accuracies(found):
    return {row["task"]: row["accuracy"] for row in found["tasks"]}


def matrix(out):
    results = json.loads((out / "results.json").read_text())
    rows = [results["zero_shot"], *results["accuracy_matrix"]]
    return [dict(zip(results["tasks"], row, strict=True)) for row in rows]


def rows_file(path, rows):
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["inc-lora", "seq-ft", "de-lora"])
def test_after_each_stage_it_scores_what_was_recorded_then(kind, finished):
    out = finished(kind).out
    before, recorded = tree(out), matrix(out)
    for stage in range(len(recorded)):
        found = evaluate(out, after=str(stage))
        assert accuracies(found) == recorded[stage]
        assert found["after"] == stage
        assert all(row["recorded"] == row["accuracy"] for row in found["tasks"])
    assert accuracies(evaluate(out)) == recorded[-1]
    assert tree(out) == before


def test_a_task_that_is_named_is_answered_by_the_model_as_it_stood_for_it(finished):
    out = finished("de-lora").out
    [row] = evaluate(out, task="colour")["tasks"]
    assert row["accuracy"] == matrix(out)[1]["colour"]


def test_a_new_file_is_asked_as_the_task_is(finished, tmp_path):
    out = finished("inc-lora").out
    asked = [("xxx 1", "d"), ("yyy 2", "e"), ("zzz 3", "f"), ("xxx 4", "e")]
    found = evaluate(out, "animal", rows_file(tmp_path / "new.jsonl", asked))
    [row] = found["tasks"]
    answers = [(a["text"], a["label"]) for a in found["answers"]]
    assert answers == asked
    assert row["accuracy"] == 25 * sum(a["correct"] for a in found["answers"])
    assert row["by_label"]["e"]["support"] == 2
    assert "recorded" not in row


def test_what_cannot_be_measured_is_refused(finished, tmp_path):
    out = finished("inc-lora").out
    new = rows_file(tmp_path / "new.jsonl", [("xxx 1", "purple")])
    with pytest.raises(NloraError, match="of which task"):
        evaluate(out, data=new)
    with pytest.raises(NloraError, match=r"line 1.*'purple'"):
        evaluate(out, "animal", new)
    with pytest.raises(NloraError, match="unknown task 'colours'; did you mean 'colour'"):
        evaluate(out, "colours")
    with pytest.raises(NloraError, match="unknown stage 'animl'; did you mean 'animal'"):
        evaluate(out, after="animl")
    with pytest.raises(NloraError, match="unknown stage '7'"):
        evaluate(out, after="7")
