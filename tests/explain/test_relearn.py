"""What comes back when a task is learned again, and what of it where that was not accepted."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.errors import NloraError
from nlora.evaluation.answers import exact_match
from nlora.explain.asked import Options, learned
from nlora.explain.examples import examples_of
from nlora.explain.explain import explain
from nlora.explain.looks import Looks
from nlora.explain.relearn import relearned
from nlora.plan.resolve import resolve
from nlora.store.directory import ModelDirectory
from tests.calling import call
from tests.runs import Listener, config, write_stream, write_task

FEW = Options(texts=6, probe=24)


@pytest.mark.parametrize("method", ["per-task", "de-lora", "seq-lora"])
def test_what_is_learned_again_begins_at_the_model_that_answers_the_task(
    finished, tmp_path, method
):
    out = shutil.copytree(finished(method).out, tmp_path / "out")
    directory = ModelDirectory(out)
    model = ContinualModel.open(out)
    still = model.plan.run.model_copy(update={"learning_rate": 0.0})
    model.plan = replace(model.plan, run=still)
    now = exact_match(model.answer(model.stream[0].test, "colour"))
    tasks = learned(model, examples_of(directory, None, None, Listener()), FEW)
    assert relearned(Looks(model, out / "explain"), tasks, 6)["colour"]["free"] == now
    assert now > 0 or method == "seq-lora"


def test_too_few_to_find_a_weight_by_when_learning_again_is_one_line(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "out")
    model = ContinualModel.open(out)
    settings = {**model.plan.config.settings, "penalty": "l1", "l1": "auto"}
    model.plan = resolve(model.plan.config.model_copy(update={"settings": settings}))
    tasks = learned(model, examples_of(model.directory, None, None, Listener()), FEW)
    with pytest.raises(NloraError, match="'auto' needs dev examples, or two training examples"):
        relearned(Looks(model, out / "explain"), tasks, 1)


PICKY = """
from nlora.methods.seq_lora import SeqLora

class Picky(SeqLora):
    name = "picky"
    summary = "does not accept its third stage"

    def accept(self, ctx, before, after):
        return ctx.stage.index != 3
"""


@pytest.mark.parametrize("labels", [True, False])
def test_a_task_is_what_it_was_where_learning_it_again_was_not_accepted(llama, tmp_path, labels):
    (tmp_path / "picky.py").write_text(PICKY)
    stream, out = (
        write_stream(tmp_path, "colour", "animal", train=9, labels=labels),
        tmp_path / "out",
    )
    asked = config(llama, stream, method="picky", plugin=str(tmp_path / "picky.py"))
    run(asked, out)
    (more := tmp_path / "more").mkdir()
    write_task(more, "colour", train=12, test=4, start=50)
    files = ["--task", more / "colour-train.jsonl", "--test", more / "colour-test.jsonl"]
    assert call("learn", out, *files, "--name", "colour").exit_code == 0
    first, _, last = ModelDirectory(out).stages()
    assert last.tested["colour"] == 10
    found = explain(out, Options(texts=4, probe=0, relearn=2))
    if not labels:
        [lost] = found["free_text"]["colour"]
        assert lost["examples"] == 6
        return
    assert found["tasks"]["colour"]["examples"] == 6
    read = {reading["when"]: reading for reading in found["tasks"]["colour"]["readings"]}
    then, now = read["right after it"], read["later"]
    assert then["free"] == pytest.approx(first.accuracy["colour"])
    kept = ModelDirectory(out).predictions(last)["colour"][:6]
    assert now["free"] == pytest.approx(100 * np.mean([row["correct"] for row in kept]))
    directory = ModelDirectory(out)
    trained = {d.name: len(d.train) for d in examples_of(directory, None, None, Listener())}
    assert trained == {"colour": 9, "animal": 9}
