"""A model directory: what is written is there whole, is read back, and only one process writes."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from nlora.errors import NloraError, of_disk
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from tests.runs import tree
from tests.store.made import commit


def test_a_stage_is_there_whole_or_not_at_all(directory):
    def fails(folder):
        (folder / "half.jsonl").write_text("half")
        raise RuntimeError("the power went")

    before = tree(directory.path)
    with directory.locked(), pytest.raises(RuntimeError):
        directory.commit(StageRecord(index=3, name="third"), fails)
    assert tree(directory.path) == before
    assert [r.name for r in directory.stages()] == ["first", "second"]


def test_a_full_disk_under_safetensors_is_one_line_and_leaves_no_stage(directory):
    def fails(folder):
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    before = tree(directory.path)
    with directory.locked(), pytest.raises(OSError, match="No space left") as error:
        directory.commit(StageRecord(index=3, name="third"), fails)
    said = of_disk(error.value)
    place = directory.path / "stages" / "003-third"
    assert said == f"{place}: No space left on device; make room there"
    assert tree(directory.path) == before


def test_what_cannot_be_written_is_looked_at_without_a_lock(directory, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    (directory.path / ".lock").unlink()
    with directory.locked():
        assert [r.name for r in directory.stages()] == ["first", "second"]
        with pytest.raises(OSError, match="Permission denied") as error:
            directory.check_writable()
    assert error.value.filename == str(directory.path)
    assert not (directory.path / ".lock").exists()


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="Windows does not tell")
def test_a_disk_that_nobody_may_write_is_told_from_a_folder_that_this_user_may_not(
    directory, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("os.statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(OSError, match="Read-only file system"):
        directory.check_writable()


def test_results_that_say_the_same_are_not_written_again(directory, monkeypatch):
    directory.write_results({"value": 1.5})

    def refused(path, text):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("nlora.store.directory.write_text", refused)
    directory.write_results({"value": 1.5})
    with pytest.raises(OSError):
        directory.write_results({"value": 2.5})


def test_what_was_committed_is_read_back(directory):
    first, second = directory.stages()
    assert (first.index, first.name) == (1, "first")
    assert sorted(second.files) == ["test.jsonl", "update/w.safetensors"]
    assert [p.parent.name for p in directory.update_paths()] == ["001-first", "002-second"]
    assert directory.zero_shot() is None


def test_the_updates_after_each_stage_are_those_of_its_manifest(directory):
    with directory.locked():
        commit(directory, 3, "third", adds=["003-third", "001-first"])  # the second is given up

    def named(stage):
        return [p.relative_to(directory.path).as_posix() for p in directory.update_paths(stage)]

    assert named(0) == []
    assert named(1) == ["stages/001-first/update"]
    assert named(2) == ["stages/001-first/update", "stages/002-second/update"]
    assert named(3) == named(None) == ["stages/003-third/update", "stages/001-first/update"]
    assert directory.update_path("003-third") == directory.update_paths()[0]


def test_a_directory_without_stages_has_no_updates_and_no_precision(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    assert made.update_paths() == []
    assert made.precision() is None
    with made.locked():
        made.write_config({"settings": {"precision": "bf16"}})
    assert made.update_paths(1) == []
    assert made.precision() is None


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
    ("config", "expected"),
    [({"settings": {"precision": "bf16"}}, "bf16"), ({"settings": {}}, "fp32"), ({}, "fp32")],
)
def test_the_precision_is_that_of_the_settings_once_anything_is_committed(
    tmp_path, index, config, expected
):
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config(config)
        commit(made, index, "x")
    assert made.precision() == expected


def test_a_stage_of_another_directory_is_copied_with_changed_fields(directory, tmp_path):
    def write(folder):
        (folder / "update" / "default").mkdir(parents=True)
        (folder / "update" / "default" / "w.bin").write_bytes(b"\x00\xff")

    other = ModelDirectory(tmp_path / "other")
    record = StageRecord(index=1, name="one", manifest=Manifest(adds=["001-one"]))
    with directory.locked():
        shutil.rmtree(directory.path / "stages")
        directory.commit(record, write)
    with other.locked():
        other.adopt(directory, record, seed=7, notes={"from": "there"})
    [adopted] = other.stages()
    assert (adopted.seed, adopted.notes) == (7, {"from": "there"})
    changed = {"seed", "notes"}
    assert adopted.model_dump(exclude=changed) == record.model_dump(exclude=changed)
    for name in record.files:
        there, here = directory.stage_path(record) / name, other.stage_path(adopted) / name
        assert here.read_bytes() == there.read_bytes()
    assert directory.stages()[0] == record


def test_results_are_read_back_as_they_were_written(directory):
    metrics = ("learning_accuracy", "forgetting", "backward_transfer", "forward_transfer")
    results = {
        **{"tasks": ["größe"], "stages": ["größe"], "zero_shot": None, "accuracy_matrix": [[71.5]]},
        **{"average_accuracy": 71.5, **dict.fromkeys(metrics)},
        **{"seconds": 2.5, "peak_memory_bytes": 0, "of a later version": {}},
    }
    with directory.locked():
        directory.write_results(results)
    assert directory.results() == results
    assert json.loads((directory.path / "results.json").read_text(encoding="utf-8")) == results


def test_stages_are_in_the_order_of_their_numbers(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        for index in (*range(1, 12), 0):
            commit(made, index, "x")
    for index in (5, 11):  # as if there were a thousand and more
        old = tmp_path / "out" / "stages" / f"{index:03d}-x"
        old.rename(old.with_name(f"{index:04d}-x"))
    assert [r.index for r in made.stages()] == list(range(1, 12))
    assert made.zero_shot().index == 0


def test_a_line_separator_inside_a_text_is_no_end_of_line(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    text = "one\u2028two\u0085three\x0cfour"
    with made.locked():
        commit(made, 1, "a", text=text)
    assert made.tests()["a"] == [{"task": "a", "text": text, "label": "x"}]


def test_all_test_examples_of_every_task_are_there_in_order(directory):
    rows = [{"task": task, "text": f"{task} {i}", "label": "x"} for i in (1, 2) for task in "ab"]

    def write(folder):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "test.jsonl").write_text(lines, encoding="utf-8")

    with directory.locked():
        directory.commit(StageRecord(index=3, name="third"), write)
    found = directory.tests()
    assert list(found) == ["first", "second", "a", "b"]
    assert found["a"] == [rows[0], rows[2]]
    assert found["b"] == [rows[1], rows[3]]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(directory):
    stages = directory.path / "stages"
    (stages / ".003-third" / "update").mkdir(parents=True)
    (directory.path / ".model.json-4711").write_text("{")
    (directory.path / ".results.json-4711").write_text("{")
    (stages / ".DS_Store").write_text("a file manager's")
    (stages / ".git").mkdir()
    (stages / ".003-a-file").write_text("not a folder")
    (directory.path / ".model.json-backup").write_text("mine")
    (directory.path / "notes.txt").write_text("mine")
    with directory.locked():
        pass
    assert {p.name for p in stages.iterdir() if p.name.startswith(".")} == {
        *(".DS_Store", ".git", ".003-a-file")
    }
    assert {p.name for p in directory.path.iterdir()} == {
        *(".lock", ".model.json-backup", "model.json", "notes.txt", "stages")
    }


def test_checkpoints_of_a_committed_stage_go_and_those_of_the_next_one_stay(directory):
    for name in ("002-second/step-4", "003-third/step-2", "003-third/.step-4"):
        (directory.path / "checkpoints" / name).mkdir(parents=True)
    with directory.locked():
        pass
    left = (p for p in (directory.path / "checkpoints").rglob("*") if p.is_dir())
    assert sorted(p.name for p in left) == ["003-third", "step-2"]


def test_only_one_process_may_write(directory):
    code = (
        "import sys; from pathlib import Path; from nlora.store.directory import ModelDirectory\n"
        "with ModelDirectory(Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(directory.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(NloraError, match="in use by another") as error, directory.locked():
            pass
        assert "\n" not in str(error.value)
    finally:
        other.kill()
        other.communicate()
    with directory.locked():  # a killed process holds no lock
        pass


def test_a_folder_that_holds_only_what_a_killed_start_left_is_taken(tmp_path):
    for name in (".lock", ".model.json-4711", "results.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "logs").mkdir()
    assert not ModelDirectory(tmp_path).exists()
    with ModelDirectory(tmp_path).locked():
        assert not (tmp_path / ".model.json-4711").exists()


def test_a_start_that_failed_leaves_no_folder(tmp_path):
    made = ModelDirectory(tmp_path / "out")
    with pytest.raises(RuntimeError), made.locked():
        raise RuntimeError("no such model")
    assert not made.path.exists()


def test_a_folder_that_was_there_stays_after_a_start_that_failed(tmp_path):
    with pytest.raises(RuntimeError), ModelDirectory(tmp_path).locked():
        raise RuntimeError("no such model")
    assert tmp_path.is_dir()


def test_folders_above_are_made(tmp_path):
    made = ModelDirectory(tmp_path / "runs" / "today" / "out")
    with made.locked():
        made.write_config({"model": "m"})
    assert made.config()["model"] == "m"


def test_a_lock_that_cannot_be_removed_hides_no_error(tmp_path, monkeypatch):
    """As on Windows, where a file that is open stays."""

    def unlink(path, missing_ok=False):
        raise PermissionError(13, "in use", str(path))

    def fail():
        monkeypatch.setattr(Path, "unlink", unlink)
        raise RuntimeError("no such model")

    with (
        pytest.raises(RuntimeError, match="no such model"),
        ModelDirectory(tmp_path / "out").locked(),
    ):
        fail()


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a b/c\\d:e", "日本", "..", "x\ny"])
def test_a_stage_stays_inside_whatever_its_name(tmp_path, name):
    made = ModelDirectory(tmp_path / "out")
    with made.locked():
        made.write_config({})
        commit(made, 1, "x")
        record = StageRecord(index=2, name=name)
        made.commit(record, lambda folder: None)
    assert made.stage_path(record).parent == made.path / "stages"
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert made.stages()[1].name == name


def test_a_stages_folder_has_its_name_where_a_file_may():
    assert StageRecord(index=12, name="Yelp full/v2").folder == "012-Yelp-full-v2"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions")
def test_every_file_of_a_stage_can_be_read_by_whom_can_read_its_record(directory):
    stage = directory.path / "stages" / "001-first"
    modes = {stat.S_IMODE(p.stat().st_mode) for p in stage.rglob("*") if p.is_file()}
    assert len(modes) == 1
