"""How far a stage moved the model: KL(before ‖ after) at the answers of test examples."""

import json
import shutil

import pytest
import torch

from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.continual.movement import moved
from nlora.evaluation.divergence import divergences
from nlora.report.tables import tables
from nlora.store.directory import ModelDirectory
from nlora.study.rows import row
from tests.runs import LEARNING, config, write_stream


def plain_kl(model, stage, data):
    """Token by token with plain passes in float64, one example at a time."""
    kept = model.adapter.model.eval().float

    def log_probabilities(example):
        [row] = model.encoder.all([example])
        if model.encoder.encoder_decoder:
            given = {"input_ids": torch.tensor([row.prompt]), "labels": torch.tensor([row.answer])}
            logits = model.adapter.model.double()(**given).logits[0]
        else:
            whole = torch.tensor([row.prompt + row.answer])
            logits = model.adapter.model.double()(input_ids=whole).logits[0]
            logits = logits[len(row.prompt) - 1 : -1]
        found = logits.double().log_softmax(-1)
        kept()
        return found

    sums, tokens = 0.0, 0
    for example in data.test:
        with torch.no_grad():
            with model.after(stage - 1):
                before = log_probabilities(example)
            with model.after(stage):
                after = log_probabilities(example)
        sums += float((before.exp() * (before - after)).sum())
        tokens += len(before)
    return sums / tokens


@pytest.fixture(scope="module", params=["llama", "t5"])
def measured(request, tmp_path_factory):
    """A run of two tasks and one that is only tested, with KL by stage."""
    folder = tmp_path_factory.mktemp("moved")
    stream = write_stream(folder, "colour", "animal", "fruit")
    text = stream.read_text(encoding="utf-8").replace("  train: fruit-train.jsonl\n", "")
    stream.write_text(text, encoding="utf-8")
    settings = {**LEARNING, "epochs": 2, "measure_kl": True}
    asked = config(request.getfixturevalue(request.param), stream, settings)
    results = run(asked, folder / "out")
    return folder / "out", results


def test_it_is_that_of_plain_passes_in_float64(measured):
    out, _ = measured
    model = ContinualModel.open(out)
    tests = {data.name: data for data in model.stream}
    for record in model.records:
        for task in record.kl.keys() & tests.keys():
            exact = plain_kl(model, record.index, tests[task])
            assert record.kl[task] == pytest.approx(exact, rel=2e-4)
            assert exact > 1e-4
    last = len(model.records)
    assert moved(model, last, list(tests.values())) == pytest.approx(
        {task: model.records[-1].kl[task] for task in tests}
    )


def test_it_stands_in_the_record_the_results_and_tables(measured, tmp_path):
    out, results = measured
    one, two = ModelDirectory(out).stages()
    assert one.kl.keys() == {"colour", "fruit"}
    assert two.kl.keys() == {"colour", "animal", "fruit"}
    assert results["tasks"] == ["colour", "animal", "fruit"]
    assert results["kl"]["matrix"][0] == [one.kl["colour"], None, one.kl["fruit"]]
    assert results["kl"]["own"] == (one.kl["colour"] + two.kl["animal"]) / 2
    assert results["kl"]["earlier"] == two.kl["colour"]
    assert results["kl"]["only_tested"] == (one.kl["fruit"] + two.kl["fruit"]) / 2
    assert one.seconds["kl"] > 0
    made = row(ModelDirectory(out), None)
    assert "measure_kl" not in made["configuration"]["settings"]
    (tmp_path / "ledger.jsonl").write_text(json.dumps(made) + "\n", encoding="utf-8")
    [table] = tables([tmp_path / "ledger.jsonl"], ["kl"])
    assert table.columns[2:5] == ["KL, own task", "KL, earlier tasks", "KL, only tested"]
    assert table.rows[0][2].mean == results["kl"]["own"]


def test_without_the_setting_nothing_changes(measured, tmp_path):
    out, results = measured
    directory = ModelDirectory(out)
    document = directory.config()
    shutil.copytree(out.parent, tmp_path / "again", ignore=shutil.ignore_patterns("out"))
    asked = config(
        document["model"],
        tmp_path / "again" / "stream.yaml",
        {**LEARNING, "epochs": 2},
    )
    plain = run(asked, tmp_path / "out")
    assert "kl" not in plain
    assert plain["accuracy_matrix"] == results["accuracy_matrix"]
    for ours, theirs in zip(
        directory.stages(), ModelDirectory(tmp_path / "out").stages(), strict=True
    ):
        same = {
            n: h for n, h in ours.files.items() if n.startswith("update/") and "config" not in n
        }
        assert same.items() <= theirs.files.items()
    assert "measure_kl" not in ModelDirectory(tmp_path / "out").config()["settings"]


def test_equal_logits_are_0_apart_and_large_ones_are_numbers():
    logits = torch.tensor([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4], [0.0, float("-inf"), 0.0]])
    assert divergences(logits, logits).tolist() == [0, 0, 0]
    found = divergences(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 2.0]]))
    p = torch.tensor([0.0, 2.0], dtype=torch.float64).softmax(0)
    assert float(found) == pytest.approx(float(-0.5 * (2 * p).log().sum()))


def test_a_task_on_which_it_is_not_finite_is_left_out(measured, monkeypatch):
    model = ContinualModel.open(measured[0])
    diverged = lambda then, now: torch.full((len(now),), float("nan"))  # noqa: E731
    monkeypatch.setattr("nlora.continual.movement.divergences", diverged)
    assert moved(model, 2, model.stream) == {}
