"""`nlora compare --explain`, also of cells that were finished before, and its tables."""

import json
import shutil

import pytest

from nlora.explain.asked import Options
from nlora.explain.summary import Wanted
from nlora.report.ledger import read
from nlora.report.tables import tables
from tests.calling import call
from tests.report.rows import grid, write
from tests.runs import LEARNING, write_stream


@pytest.fixture(scope="module")
def place(llama, tmp_path_factory):
    """A folder, and the command that compares there; one cell is finished, and one explained."""
    folder = tmp_path_factory.mktemp("explained")
    stream = write_stream(folder, "colour", "animal", train=24)
    settings = [p for k, v in {**LEARNING, "epochs": 2}.items() for p in ("--set", f"{k}={v}")]

    def command(*more):
        line = ["compare", "--stream", stream, "--model", llama, "--out", folder / "out"]
        return call(*line, *settings, *more)

    assert command("--methods", "seq-lora").exit_code == 0
    before = read(folder / "out" / "ledger.jsonl")
    done = command("--methods", "seq-lora,per-task", "--explain")
    assert done.exit_code == 0, done.output
    return folder / "out", command, before


def test_cells_finished_before_are_explained_and_else_as_they_were(place):
    out, _, [before] = place
    rows = {row["cell"]["method"]: row for row in read(out / "ledger.jsonl")}
    explained = rows["seq-lora"].pop("explained")
    assert rows["seq-lora"] == before
    whole = json.loads((out / "stream/seq-lora/seed-0/explain/explained.json").read_text())
    task = explained["tasks"]["colour"]
    assert task["parts"] == pytest.approx(whole["tasks"]["colour"]["lost"][0]["parts"], rel=1e-3)
    lost = before["accuracy_matrix"][0][0] - before["accuracy_matrix"][1][0]
    assert sum(task["parts"].values()) == pytest.approx(lost, abs=0.1)
    assert rows["per-task"]["explained"]["over_tasks"]["parts"]["gone"] == 0


def test_what_is_explained_is_not_explained_again(place):
    out, command, _ = place
    ledger = (out / "ledger.jsonl").read_bytes()
    again = command("--methods", "seq-lora,per-task", "--explain")
    assert again.exit_code == 0
    assert "asking" not in again.output
    assert (out / "ledger.jsonl").read_bytes() == ledger


def test_quickly_explained_it_is_asked_less_and_wholly_explained_afterwards(place, tmp_path):
    out, command, _ = place
    ledger = (out / "ledger.jsonl").read_bytes()
    assert command("--methods", "seq-lora,per-task", "--explain", "--quick").exit_code == 0
    assert (out / "ledger.jsonl").read_bytes() == ledger  # all that it asks for is there
    rows = {}
    for more in (["--quick"], []):
        done = command("--methods", "seq-lora", "--explain", *more, "--out", tmp_path)
        assert done.exit_code == 0, done.output
        [row] = read(tmp_path / "ledger.jsonl")
        rows[len(more)] = row["explained"]
    task, whole = (rows[quick]["tasks"]["colour"] for quick in (1, 0))
    assert rows[1]["kinds"] == ["train", "self"]
    assert rows[1]["probe"] == rows[1]["shift"] == rows[1]["gradients"] == 0
    assert task["way"] == whole["way"]
    assert task["parts"]["bias"] == whole["parts"]["bias"]
    assert task["now"]["probe"] is None
    assert whole["now"]["probe"] is not None


def test_a_cell_whose_folder_is_gone_keeps_its_row(place, tmp_path):
    out, command, _ = place
    ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    kept = out / "stream/per-task"
    shutil.move(kept, tmp_path / "moved")
    try:
        for row in ledger:
            row.pop("explained")
        write(out / "ledger.jsonl", ledger)
        done = command("--methods", "per-task", "--explain")
        assert "seq-lora, seed 0 is not explained" not in done.output
        assert "stream, per-task, seed 0 is not explained" in done.output
        assert done.exit_code == 1  # what was asked for is not there
        assert [row for row in read(out / "ledger.jsonl") if "error" in row] == []
    finally:
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(tmp_path / "moved", kept)
        command("--methods", "seq-lora,per-task", "--explain")


def test_another_file_of_neutral_texts_is_asked_about_anew(tmp_path):
    files = [tmp_path / name for name in ("a.txt", "b.txt")]
    for file in files:
        file.write_text("".join(f"{file.stem} {i}\n" for i in range(6)))
    one, other = (Wanted(Options(texts=6, neutral=file)) for file in files)
    row = {"explained": one.described}
    assert one.is_in(row)
    assert Wanted(Options(texts=6)).is_in(row)  # it asks for less
    assert not other.is_in(row)
    assert not one.is_in({"explained": {**one.described, "neutral": None}})
    assert not one.is_in({"explained": {"texts": 6, "probe": 200, "shift": 60, "gradients": 32}})


def test_seeds_with_a_probe_and_without_are_averaged_alike(place, tmp_path):
    [row] = [r for r in read(place[0] / "ledger.jsonl") if r["cell"]["method"] == "seq-lora"]
    other = json.loads(json.dumps(row))
    other["cell"]["seed"] = other["configuration"]["seed"] = 1
    parts = row["explained"]["over_tasks"]["parts"]
    other["explained"]["over_tasks"]["parts"] = {
        **{part: parts[part] for part in ("off the list", "bias")},
        "gone": parts["inaccessible"] + parts["gone"],
    }
    [table] = tables([write(tmp_path / "l.jsonl", [row, other])], ["explained"])
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["inaccessible"] is None
    for part, value in other["explained"]["over_tasks"]["parts"].items():
        assert cells[part].mean == pytest.approx(value)
    assert cells["lost"].mean == pytest.approx(sum(parts.values()))


def test_tables_show_what_was_found_where_rows_have_it(place, tmp_path):
    out, _, _ = place
    ledger = out / "ledger.jsonl"
    keys = ["explained", "explained-tasks", "explained-offsets"]
    whole, by_task, by_source = tables([ledger], keys)
    assert [row[1].label for row in whole.rows] == ["seq-lora", "per-task"]
    cells = dict(zip(whole.columns, whole.rows[0], strict=True))
    [row] = [row for row in read(ledger) if row["cell"]["method"] == "seq-lora"]
    assert cells["among"].mean == row["explained"]["all_tasks"]["among"]
    assert cells["lost"].mean == pytest.approx(
        sum(cells[part].mean for part in ("off the list", "bias", "inaccessible", "gone"))
    )
    found = row["explained"]
    for name, matched in {"matched": "train", "matched, self": "self: answers, matched"}.items():
        assert cells[name].mean == found["all_tasks"]["matched"][matched]
    assert cells["kept, self"].mean == found["over_tasks"]["kept"]["base"][matched]["value"]
    assert [row[2] for row in by_task.rows] == ["colour", "animal"] * 2
    cells = dict(zip(by_source.columns, by_source.rows[0], strict=True))
    assert cells["among"].mean == found["all_tasks"]["among"]
    for source, value in found["all_tasks"]["matched"].items():
        assert cells[source].mean == value
    for form in ("markdown", "latex", "csv", "json"):
        assert call("table", ledger, "--table", "explained", "--format", form).exit_code == 0
    old = write(tmp_path / "old.jsonl", grid())
    assert not [table for table in tables([old]) if table.key.startswith("explained")]


def test_what_is_kept_is_matched_as_the_earlier_tasks_are(place, tmp_path):
    [row] = [r for r in read(place[0] / "ledger.jsonl") if r["cell"]["method"] == "seq-lora"]
    found = row["explained"]
    del found["all_tasks"]["matched"]["train"]  # the newest task's training texts are not there
    [table] = tables([write(tmp_path / "l.jsonl", [row])], ["explained"])
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["matched"].mean == found["all_tasks"]["matched"]["test"]
    assert cells["kept"].mean == found["over_tasks"]["kept"]["base"]["train"]["value"]


def test_neutral_texts_are_for_explaining(place, tmp_path):
    _, command, _ = place
    nowhere = ("--neutral", tmp_path / "x")
    for more in (nowhere, ("--explain", *nowhere), ("--quick",)):
        assert command("--methods", "seq-lora", *more).exit_code == 2
