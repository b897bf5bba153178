"""A finished run with its updates shrunk, or permuted: the same model, and nothing else."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from nlora.continual.learning import learn, run
from nlora.data.streams import load_stream
from nlora.report.ledger import read, write
from nlora.report.tables import tables
from nlora.store.directory import ModelDirectory
from nlora.store.records import AnswerRow
from nlora.study.altered import Finished
from nlora.study.permuting import permuted
from nlora.study.rescaling import rescaled, rescaled_row
from nlora.study.rows import row
from tests.calling import call
from tests.runs import LEARNING, config, tree, write_stream

RANK, S = 2, 32.0 / 2


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    """Two runs on the same two tasks."""
    folder = tmp_path_factory.mktemp("runs")
    stream = write_stream(folder, "colour", "animal", train=24)
    for method, own in (("inc-lora", {}), ("n-lora", {"l1": 0.5})):
        settings = {**LEARNING, "rank": RANK, **own}
        run(config(llama, stream, settings, method=method), folder / method)
    return folder


def alter(*arguments, command="rescale"):
    return call("study", command, *arguments)


def deltas(updates):
    """ΔW of each update by matrix, written out in float64."""
    found = []
    for update in updates:
        tensors = load_file(update / "adapter_model.safetensors")
        found.append(
            {
                name: S * tensors[name.replace("_A", "_B")].double() @ A.double()
                for name, A in tensors.items()
                if "lora_A" in name
            }
        )
    return found


def answers(directory, task):
    """The texts of all answers to a task after the last stage."""
    rows = directory.rows(directory.stages()[-1], "predictions.jsonl", AnswerRow)
    return [row["text"] for row in rows if row["task"] == task]


def norm(delta):
    return sum(float(d.square().sum()) for d in delta.values()) ** 0.5


def test_every_update_is_multiplied_and_measured(learned, tmp_path):
    finished = Finished.at(learned / "inc-lora")
    before = deltas(finished.updates)
    assert finished.sizes() == pytest.approx([norm(d) for d in before])
    made = rescaled(finished, [0.5, 0.25], tmp_path / "out")
    for found, expected, scale in zip(
        deltas(made.update_paths()), before, (0.5, 0.25), strict=True
    ):
        for name, delta in expected.items():
            torch.testing.assert_close(found[name], scale * delta, rtol=1e-6, atol=0)


def test_at_scale_one_it_is_the_run_itself_at_every_stage(learned, tmp_path):
    found = rescaled(Finished.at(learned / "inc-lora"), [1.0, 1.0], tmp_path / "out")
    once, again = (row(d, None) for d in (ModelDirectory(learned / "inc-lora"), found))
    for name in ("accuracy_matrix", "learning_accuracy", "forgetting", "answers", "losses"):
        assert once[name] == again[name]
    assert again["seconds_by"]["training"] == 0  # nothing was trained
    assert again.get("kl") is None


def test_without_its_updates_it_is_the_model_as_it_was(learned, llama, tmp_path):
    found = rescaled(Finished.at(learned / "inc-lora"), [0.0, 0.0], tmp_path / "out")
    base = run(
        config(llama, learned / "stream.yaml", method="zero-shot", evaluate="all"),
        tmp_path / "zero",
    )["zero_shot"]
    assert found.results()["accuracy_matrix"][-1] == base
    assert ModelDirectory(learned / "inc-lora").results()["accuracy_matrix"][-1] != base


def test_a_row_per_scale_and_one_at_the_sizes_of_another_run(learned, tmp_path):
    before = tree(learned)
    out = tmp_path / "rows.jsonl"
    told = [str(learned / "inc-lora"), "--scales", "0.5", "--beside", str(learned / "n-lora")]
    for _ in range(2):
        shown = alter(*told, "--out", out)
        assert shown.exit_code == 0, shown.stderr
        assert [line.rpartition(": ")[0] for line in shown.stdout.splitlines()] == [
            *("inc-lora:scale=0.5", "inc-lora:size=n-lora:l1=0.5")
        ]
    half, matched = read(out)
    assert half["cell"] == {"stream": "stream", "method": "inc-lora:scale=0.5", "seed": 0}
    assert half["configuration"]["settings"]["scale"] == 0.5
    assert [stage["scale"] for stage in half["notes"].values()] == [0.5, 0.5]
    assert matched["cell"]["method"] == "inc-lora:size=n-lora:l1=0.5"
    sizes = Finished.at(learned / "n-lora").sizes()
    own = Finished.at(learned / "inc-lora").sizes()
    assert sizes[0] < 0.9 * own[0]
    assert matched["configuration"]["settings"]["size"] == "n-lora:l1=0.5"
    scale = [stage["scale"] for stage in matched["notes"].values()]
    assert scale == pytest.approx([a / b for a, b in zip(sizes, own, strict=True)])
    assert half["hash"] != matched["hash"]
    (table,) = tables([out], ["collisions"])
    assert [r[0].label for r in table.rows] == ["inc-lora:scale=0.5", "inc-lora:size=n-lora:l1=0.5"]
    assert tree(learned) == before


def test_seeds_at_the_sizes_of_another_method_are_one_row_of_a_table(learned, tmp_path):
    finished = Finished.at(learned / "inc-lora")
    for seed, scales in enumerate(([0.5, 0.5], [0.25, 0.5])):
        made = rescaled_row(finished, "size", "n-lora", scales)
        made["cell"]["seed"] = seed
        write(tmp_path / "rows.jsonl", made)
    (table,) = tables([tmp_path / "rows.jsonl"], ["collisions"])
    assert [r[0].label for r in table.rows] == ["inc-lora:size=n-lora"]


def test_what_has_no_one_model_of_adapters_is_refused_in_one_line(llama, learned, tmp_path):
    stream = write_stream(tmp_path, "colour")
    run(config(llama, stream, method="de-lora"), tmp_path / "de")
    for told, said in (
        ([tmp_path / "de"], "de-lora does not make one model"),
        ([tmp_path / "nowhere"], "does not exist"),
        ([learned / "inc-lora", "--scales", "half"], "not 'half'"),
    ):
        refused = alter(*told, "--out", tmp_path / "rows.jsonl")
        assert refused.exit_code == 2
        (line,) = refused.stderr.splitlines()
        assert said in line
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_directory_that_grew_by_learn_is_altered_like_a_run(llama, tmp_path):
    """Also where it has a task that is only tested, and unless one was learned again."""
    stream = write_stream(tmp_path, "colour", "animal", "size", train=24)
    colour, animal, watched = load_stream(str(stream), None)
    out = tmp_path / "grown"
    watched = replace(watched, train=(), only_tested=True)
    learn(out, colour, config(llama, None, {**LEARNING, "rank": RANK}), watch=[watched])
    learn(out, animal)
    matrix = ModelDirectory(out).results()["accuracy_matrix"]
    found = rescaled(Finished.at(out), [1.0, 1.0], tmp_path / "same").results()
    assert found["tasks"] == ["colour", "animal"]
    assert found["accuracy_matrix"] == [[matrix[0][0], None], matrix[1][:2]]
    assert found["learning_accuracy"] is not None
    learn(out, replace(colour, train=colour.train[:12]))
    refused = alter(out, "--out", tmp_path / "rows.jsonl")
    assert refused.exit_code == 2
    assert "has learned 'colour' more than once" in refused.stderr


def test_permuted_updates_are_as_large_and_write_elsewhere(learned, tmp_path):
    finished = Finished.at(learned / "inc-lora")
    made = permuted(finished, 1, tmp_path / "out")
    first, last = (answers(d, "colour") for d in (finished.directory, made))
    assert first != last
    assert answers(finished.directory, "animal") == answers(made, "animal")
    before, after = deltas(finished.updates), deltas(made.update_paths())
    for old, new in zip(before, after, strict=True):
        for name, delta in old.items():
            spectra = [torch.linalg.svdvals(d) for d in (delta, new[name])]
            torch.testing.assert_close(*spectra)
            entries = [d.flatten().sort().values for d in (delta, new[name])]
            torch.testing.assert_close(*entries)
            assert not torch.allclose(delta, new[name])


def test_a_task_is_answered_by_its_own_model_under_later_permuted_updates(learned, tmp_path):
    run_itself = ModelDirectory(learned / "inc-lora").results()["accuracy_matrix"]
    out = tmp_path / "rows.jsonl"
    told = alter(learned / "inc-lora", "--seed", 3, "--out", out, command="permute")
    assert told.exit_code == 0, told.stderr
    assert told.stdout.startswith("inc-lora:permuted=3: ")
    (found,) = read(out)
    matrix = found["accuracy_matrix"]
    assert [matrix[k][k] for k in range(2)] == [run_itself[k][k] for k in range(2)]
    assert found["configuration"]["settings"]["permuted"] == 3
    assert [stage["permuted"] for stage in found["notes"].values()] == [3, 3]
