import json
import shutil

import pytest

from nlora.analysis.adapters import read_adapters
from nlora.analysis.report import analyse
from nlora.analysis.words import explain
from nlora.errors import NloraError
from nlora.lowrank.supports import Threshold
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest
from nlora.store.records import seal

from .made import MODULES, tensors, write


def test_adapters_are_named_as_briefly_as_possible(tmp_path):
    a, b = (str(write(tmp_path / name)) for name in ("a", "b"))
    assert [x.name for x in read_adapters([a, b])] == ["a", "b"]
    other = str(write(tmp_path / "deep" / "a"))
    assert [x.name for x in read_adapters([a, other])] == [a, other]
    assert [x.name for x in read_adapters([a, b, a])] == [f"{a} #1", b, f"{a} #2"]


def test_different_ranks_and_scalings_are_no_obstacle(tmp_path):
    a = write(tmp_path / "a")
    b = write(tmp_path / "b", tensors(1, rank=5), r=5, use_rslora=True)
    found = read_adapters([str(a), str(b)])
    assert found[1].factors(next(iter(MODULES))).scaling == pytest.approx(8 / 5**0.5)


@pytest.mark.parametrize(
    "base",
    ["/models/Tiny/", "C:\\models\\tiny", None, "",
     "/c/models--somebody--tiny/snapshots/0123abcd"],
)  # fmt: skip
def test_copies_of_a_base_model_in_other_places_are_one_model(tmp_path, base):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", base_model_name_or_path=base)
    assert len(read_adapters([str(a), str(b)])) == 2


def test_adapters_of_different_models_are_refused_unless_said_to_be_one(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", base_model_name_or_path="somebody/huge")
    with pytest.raises(NloraError, match="'a' was trained on tiny, 'b' on huge"):
        read_adapters([str(a), str(b)])
    assert len(read_adapters([str(a), str(b)], same_base=True)) == 2


def test_adapters_of_other_matrices_are_compared_on_those_that_they_share(tmp_path):
    a = write(tmp_path / "a")
    last = "model.layers.1.self_attn.v_proj"
    fewer = tensors(modules={m: s for m, s in MODULES.items() if m != last})
    b = write(tmp_path / "b", fewer)
    for order in ([a, b], [b, a]):
        read = {x.name: x for x in read_adapters([str(x) for x in order])}
        assert list(read["a"].shapes) == list(read["b"].shapes) == [m for m in MODULES if m != last]
        assert "1 of its 4 matrices" in read["a"].notes[0]
        assert "left out (v_proj)" in read["a"].notes[0]
        assert read["b"].notes == []
    report = analyse(read_adapters([str(a), str(b)]), [Threshold.parse("0.1rms")])
    assert report["matrices"] == 3
    assert any("3 shared ones" in text for text in explain(report))


def test_adapters_that_share_no_matrix_are_refused(tmp_path):
    a = write(tmp_path / "a", tensors(modules={"model.layers.0.self_attn.q_proj": (6, 8)}))
    b = write(tmp_path / "b", tensors(modules={"model.layers.0.self_attn.v_proj": (4, 8)}))
    with pytest.raises(NloraError, match="share no matrix") as error:
        read_adapters([str(a), str(b)])
    assert "\n" not in str(error.value)


def test_adapters_of_matrices_of_another_size_are_refused(tmp_path):
    a = write(tmp_path / "a")
    last = "model.layers.1.self_attn.v_proj"
    c = write(tmp_path / "c", tensors(modules={**MODULES, last: (4, 9)}))
    with pytest.raises(NloraError, match=rf"{last} is \(4, 8\) in 'a' and \(4, 9\) in 'c'"):
        read_adapters([str(a), str(c)])
    d = write(tmp_path / "d", layer_replication=[[0, 1]])
    with pytest.raises(NloraError, match="replicate layers differently"):
        read_adapters([str(a), str(d)])


@pytest.mark.parametrize("name", ["../../nowhere", "no such folder", "a/../b", "one", "/nowhere/x"])
def test_what_is_neither_a_folder_nor_a_hub_name_is_not_asked_for(name):
    with pytest.raises(NloraError, match="neither a folder that exists nor a Hub name"):
        read_adapters([name])


def test_a_file_is_not_an_adapter(tmp_path):
    path = write(tmp_path / "a") / "adapter_model.safetensors"
    with pytest.raises(NloraError, match="is a file; give the adapter's folder"):
        read_adapters([str(path)])


# Model directories.


def directory(path, manifests, notes=None):
    """A model directory with a stage for each manifest, or list of what it adds."""
    found = ModelDirectory(path)
    found.path.mkdir()
    found.write_config({"method": "inc-lora"})
    for i, given in enumerate(manifests):
        manifest = given if isinstance(given, Manifest) else Manifest(adds=given)
        record = StageRecord(index=i + 1, name=f"task{i + 1}", manifest=manifest)
        record.notes = (notes or {}).get(record.index, {})
        found.commit(record, lambda folder, i=i: write(folder / "update", tensors(i)) and None)
    return path


def test_a_model_directory_stands_for_the_update_of_each_stage(tmp_path):
    path = directory(tmp_path / "m", [["001-task1"], ["001-task1", "002-task2"]])
    found = read_adapters([str(path)])
    assert [a.name for a in found] == ["task1", "task2"]
    assert [a.continues for a in found] == [None, None]
    with pytest.raises(NloraError, match="model directory and stands alone"):
        read_adapters([str(path), str(path / "stages/001-task1/update")])
    updates = [str(path / f"stages/00{i}-task{i}/update") for i in (1, 2)]
    assert [a.name for a in read_adapters(updates)] == updates


def test_a_stage_that_went_on_with_an_adapter_says_so(tmp_path):
    first, second, third = (f"00{i}-task{i}" for i in (1, 2, 3))
    went_on = Manifest(on=first, adds=[second], without=[first])
    path = directory(
        tmp_path / "m", [Manifest(adds=[first]), went_on, Manifest(on=second, adds=[third])]
    )
    assert [a.continues for a in read_adapters([str(path)])] == [None, "task1", None]


def test_what_was_taken_out_or_not_accepted_is_no_update_of_the_model(tmp_path):
    first, second, third = (f"00{i}-task{i}" for i in (1, 2, 3))
    two = [Manifest(adds=[first]), Manifest(on=first, adds=[second])]
    three = Manifest(on=second, without=[second])
    note = {3: {"taken_out": {"task": "task2", "stages": [second]}}}
    on_top = Manifest(on=third, adds=["004-task4"])
    out = directory(tmp_path / "m", [*two, three, on_top], notes=note)
    found = read_adapters([str(out)])
    assert [(a.name, a.continues) for a in found] == [("task1", None), ("task4", None)]
    rejected = directory(
        tmp_path / "r",
        [two[0], Manifest(on=first), Manifest(on=second, adds=[third])],
        notes={2: {"rejected": {}}},
    )
    found = read_adapters([str(rejected)])
    assert [(a.name, a.continues) for a in found] == [("task1", None), ("task3", None)]
    with pytest.raises(NloraError, match="no update left"):
        read_adapters([str(directory(tmp_path / "n", [two[0]], notes={1: {"rejected": {}}}))])


def test_a_changed_file_of_a_stage_is_noticed(tmp_path):
    path = directory(tmp_path / "m", [["001-task1"]])
    write(path / "stages/001-task1/update", tensors(7))
    with pytest.raises(NloraError, match="was changed or damaged"):
        read_adapters([str(path)])


def test_a_stage_cannot_point_outside_its_folder(tmp_path):
    path = directory(tmp_path / "m", [["001-task1"]])
    stage = path / "stages/001-task1/stage.json"
    record = json.loads(stage.read_text())
    record["files"]["../../../secret"] = "0" * 64
    stage.write_text(json.dumps({**record, "sha256": seal(record)}))
    with pytest.raises(NloraError, match="a path outside it"):
        read_adapters([str(path)])


def test_a_model_directory_without_adapters_is_refused(tmp_path):
    path = directory(tmp_path / "m", [])
    with pytest.raises(NloraError, match="no committed stage"):
        read_adapters([str(path)])
    path = directory(tmp_path / "n", [["001-task1"]])
    stage = path / "stages/001-task1"
    record = json.loads((stage / "stage.json").read_text())
    bare = {**record, "files": {}}
    (stage / "stage.json").write_text(json.dumps({**bare, "sha256": seal(bare)}))
    shutil.rmtree(stage / "update")
    with pytest.raises(NloraError, match="is no LoRA adapter"):
        read_adapters([str(path)])
