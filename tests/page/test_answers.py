"""Wrong answers on the page: those of the run, beside their own texts."""

import json
import shutil

import pytest

from nlora.continual.learning import learn
from nlora.continual.taking_back import rollback
from nlora.continual.tasks import learned_tasks
from nlora.data.files import task_from_files
from nlora.page.answers import LOST, NEVER, OFF, wrong_answers
from nlora.page.material import gather
from nlora.store.directory import ModelDirectory
from tests.runs import LABELS, read_jsonl, write_task

pytest.importorskip("vl_convert")

SPLITS = ("train", "test")


def test_wrong_answers_are_those_of_the_run_the_lost_ones_first(finished):
    out = finished("seq-lora").out
    material = gather([out])
    found = wrong_answers([run for s in material.sections for run in s.runs], material)
    directory = ModelDirectory(out)
    (first, last), tests = map(directory.predictions, directory.stages()), directory.tests()
    wrong = {
        (task, test["text"]): (answer["text"], (first if task == "colour" else last)[task][i])
        for task, answers in last.items()
        for i, (answer, test) in enumerate(zip(answers, tests[task], strict=True))
        if not answer["correct"]
    }
    assert {(w.task, w.text) for w in found} == set(wrong)
    for w in found:
        said, then = wrong[w.task, w.text]
        assert w.answer == said
        assert w.once == (LOST if then["correct"] else NEVER)
        assert w.became == (said if said in LABELS[w.task] else OFF)
        assert w.alike == sum(
            (o.task, o.right, o.became) == (w.task, w.right, w.became) and o.once == w.once
            for o in found
        )
    order = [w.once != LOST for w in found]
    assert order == sorted(order)
    assert not all(order)


def test_answers_to_a_task_that_came_again_stand_beside_their_own_texts(finished, tmp_path):
    out = shutil.copytree(finished("seq-lora").out, tmp_path / "m")
    write_task(tmp_path, "colour", train=24, test=20)  # grown: the first tests are there already
    tests = read_jsonl(tmp_path / "colour-test.jsonl")
    labels = [test["label"] for test in tests]
    for test, other in zip(tests[6:], labels[7:] + labels[:1], strict=True):
        test["label"] = other  # so that it is answered wrongly
    (tmp_path / "colour-test.jsonl").write_text("".join(json.dumps(test) + "\n" for test in tests))
    learn(out, task_from_files("colour", *(tmp_path / f"colour-{s}.jsonl" for s in SPLITS)))
    directory, material = ModelDirectory(out), gather([out])
    found = wrong_answers([run for s in material.sections for run in s.runs], material)
    answers = directory.predictions(directory.stages()[-1])["colour"]
    [colour] = [data for data in learned_tasks(directory) if data.name == "colour"]
    asked = {e.text: (e.label, a["text"]) for e, a in zip(colour.test, answers, strict=True)}
    assert len(asked) == 20
    wrong = [w for w in found if w.task == "colour"]
    assert wrong
    assert all((w.right, w.answer) == asked[w.text] for w in wrong)


def test_a_task_that_is_tested_before_it_is_learned_has_no_wrong_answers_yet(finished, tmp_path):
    out = shutil.copytree(finished("seq-lora").out, tmp_path / "m")
    rollback(out)  # as a run is after its first stage, which has tested the next task, too
    assert "animal" in ModelDirectory(out).predictions(ModelDirectory(out).stages()[0])
    material = gather([out])
    found = wrong_answers([run for s in material.sections for run in s.runs], material)
    assert {w.task for w in found} <= {"colour"}
