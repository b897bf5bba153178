import json
from collections import Counter

import pytest

from nlora.continual.learning import run
from nlora.evaluation.matrix import summary
from nlora.plan.resolve import resolve
from tests.runs import FAST, Listener, config, read_jsonl, tree, write_stream

METRICS = (
    "average_accuracy",
    "learning_accuracy",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
)


def test_a_run_writes_the_documented_files_and_no_others(done):
    tested = {"stage.json", "predictions.jsonl", "scores.safetensors"}
    stage = {*tested, "losses.jsonl", "test.jsonl"}
    stage |= {"update/adapter_config.json", "update/adapter_model.safetensors"}
    stage |= {"state/state.json"}
    expected = {"model.json", "results.json"}
    expected |= {f"stages/000-zero-shot/{name}" for name in tested}
    for folder in ("001-colour", "002-animal", "003-fruit"):
        expected |= {f"stages/{folder}/{name}" for name in stage}
    assert set(tree(done.out)) == expected


def test_the_results_have_every_promised_value(done):
    stored = json.loads((done.out / "results.json").read_text(encoding="utf-8"))
    assert stored == done.results
    assert stored["tasks"] == stored["stages"] == ["colour", "animal", "fruit"]
    assert stored["method"] == "replay"
    rows = [stored["zero_shot"], *stored["accuracy_matrix"]]
    assert [[type(value) for value in row] for row in rows] == [[float] * 3] * 4
    assert stored["seconds"] > 0
    assert stored["peak_memory_bytes"] > 1_000_000
    metrics = summary(stored["accuracy_matrix"], stored["zero_shot"])
    assert {name: stored[name] for name in METRICS} == metrics
    assert None not in metrics.values()
    assert metrics["learning_accuracy"] > 50  # so the numbers mean something


def test_accuracies_are_what_the_kept_predictions_say(done):
    for k, folder in enumerate(("001-colour", "002-animal", "003-fruit")):
        rows = read_jsonl(done.out / "stages" / folder / "predictions.jsonl")
        for t, task in enumerate(done.results["tasks"]):
            answers = [row for row in rows if row["task"] == task]
            right = sum(row["text"].strip() == row["label"] for row in answers)
            assert len(answers) == 6
            assert done.results["accuracy_matrix"][k][t] == 100 * right / 6


def test_every_step_is_logged_with_its_terms(done):
    # 24 examples in batches of 8, 4 epochs; later stages replay 3 of each earlier task
    for folder, steps in (("001-colour", 12), ("002-animal", 16), ("003-fruit", 16)):
        rows = read_jsonl(done.out / "stages" / folder / "losses.jsonl")
        assert [row["step"] for row in rows] == list(range(1, steps + 1))
        assert {"task", "learning_rate", "gradient_norm", "epoch"} <= set(rows[0])
        first, *_, last = [row["task"] for row in rows]
        assert last < first


def test_the_same_command_again_does_nothing(done, monkeypatch):
    def fails(*args, **kwargs):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("nlora.backbones.load.load", fails)
    before, listener = tree(done.out), Listener()
    assert run(done.config, done.out, listener) == done.results
    assert tree(done.out) == before
    assert listener.titles == []
    assert "nothing to do" in listener.messages[-1]


def test_results_that_were_lost_are_derived_from_the_stages_again(done):
    (done.out / "results.json").write_text("{", encoding="utf-8")
    assert run(done.config, done.out) == done.results
    assert json.loads((done.out / "results.json").read_text()) == done.results


@pytest.mark.parametrize(
    ("evaluate", "measured"),
    [("seen", ["100", "110", "111"]), ("next", ["110", "111", "111"])],
)
def test_evaluate_chooses_the_cells_that_are_measured(llama, tmp_path, evaluate, measured):
    stream = write_stream(tmp_path)
    found = run(config(llama, stream, evaluate=evaluate), tmp_path / "out")
    cells = ["".join("01"[a is not None] for a in row) for row in found["accuracy_matrix"]]
    assert cells == measured
    assert (found["zero_shot"] is None) == (evaluate == "seen")
    assert (found["forward_transfer"] is None) == (evaluate == "seen")
    assert {found[name] is None for name in METRICS[:-1]} == {False}


def test_free_text_tasks_have_no_options_and_any_answer(t5, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal", labels=False)
    asked = config(t5, stream, max_train=5)
    found = run(asked, tmp_path / "out")
    assert found["average_accuracy"] is not None
    record = json.loads((tmp_path / "out/stages/001-colour/stage.json").read_text())
    assert record["tasks"][0]["labels"] is None
    assert record["examples"] == 5


def test_mtl_has_one_row_and_nothing_about_the_order(llama, tmp_path):
    stream = write_stream(tmp_path)
    found = run(config(llama, stream, method="mtl"), tmp_path / "out")
    assert found["stages"] == ["mtl"]
    assert len(found["accuracy_matrix"]) == 1
    assert found["average_accuracy"] == sum(found["accuracy_matrix"][0]) / 3
    assert {found[name] for name in METRICS[1:]} == {None}


def test_one_task_has_no_forgetting_and_any_seed_will_do(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    found = run(config(llama, stream, seed=2**40), tmp_path / "out")
    assert found["average_accuracy"] == found["learning_accuracy"] is not None
    assert found["forgetting"] is found["backward_transfer"] is None


def test_max_train_is_a_share_of_every_label_by_the_seed(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", train=60)

    def drawn(**values):
        train = resolve(config(llama, stream, max_train=9, **values)).stream[0].train
        return [e.text for e in train], Counter(e.label for e in train)

    (first, labels), (other, other_labels) = drawn(seed=0), drawn(seed=1)
    assert first != other
    assert labels == other_labels == {"a": 3, "b": 3, "c": 3}
    assert drawn(seed=0)[0] == drawn(seed=0, method="seq-lora")[0] == first


def test_max_eval_does_not_depend_on_seed_or_method(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", test=60)
    tests = [
        resolve(config(llama, stream, max_eval=7, **values)).stream[0].test
        for values in ({"seed": 0}, {"seed": 1}, {"method": "mtl"})
    ]
    assert len(tests[0]) == 7
    assert tests[0] == tests[1] == tests[2]


def test_lists_give_every_stage_its_own_value(llama, tmp_path):
    stream = write_stream(tmp_path)
    settings = {**FAST, "learning_rate": [1e-3, 2e-3, 3e-3], "epochs": [1, 3, 2]}
    settings |= {"l1": [0.25, 0, 0.5], "l1_unit": "sum", "penalty": "l1"}
    run(config(llama, stream, settings), tmp_path / "out")
    for folder, rate, steps, weight in (
        ("001-colour", 1e-3, 2, 0.25),
        ("002-animal", 2e-3, 6, 0),
        ("003-fruit", 3e-3, 4, 0.5),
    ):
        stage = tmp_path / "out" / "stages" / folder
        rows = read_jsonl(stage / "losses.jsonl")
        assert [row["learning_rate"] for row in rows] == pytest.approx([rate] * steps)
        notes = json.loads((stage / "stage.json").read_text())["notes"]
        assert notes.get("l1", {}).get("lambda", 0) == weight
        assert all(("l1" in row) == (weight > 0) for row in rows)


def test_a_tracker_gets_every_term_and_writes_below_logs(llama, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stream = write_stream(tmp_path, "colour")
    run(config(llama, stream, {**FAST, "report_to": "tensorboard"}), tmp_path / "out")
    assert not [p for p in tree(tmp_path / "out") if "event" in p and not p.startswith("logs/001")]
    events = next((tmp_path / "out" / "logs").rglob("*tfevents*"))
    reader = EventAccumulator(str(events.parent))
    reader.Reload()
    logged = [e.value for e in reader.Scalars("train/loss/task")]
    kept = read_jsonl(tmp_path / "out" / "stages" / "001-colour" / "losses.jsonl")
    assert logged == pytest.approx([row["task"] for row in kept])
    norms = [e.value for e in reader.Scalars("train/gradient_norm")]
    assert norms == pytest.approx([row["gradient_norm"] for row in kept])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    for name, value in (
        ("average_accuracy", found["average_accuracy"]),
        ("accuracy/colour", found["accuracy_matrix"][0][0]),
    ):
        assert [e.value for e in reader.Scalars(f"eval/{name}")] == [pytest.approx(value)]


def test_clipping_can_be_switched_off(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    run(config(llama, stream, {**FAST, "max_grad_norm": 0}), tmp_path / "out")
    rows = read_jsonl(tmp_path / "out" / "stages" / "001-colour" / "losses.jsonl")
    assert all(row["gradient_norm"] > 0 for row in rows)


def test_the_stream_may_be_given_as_tasks(llama, tmp_path):
    from nlora.data.files import read_stream

    tasks = read_stream(write_stream(tmp_path, "colour"))
    found = run(config(llama, None), tmp_path / "out", stream=tasks)
    assert found["tasks"] == ["colour"]
