"""Which updates make up the model after a stage, in today's records and in those of before."""

import json
import random

import pytest

from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.manifests import Manifest, Manifests
from nlora.store.records import seal
from tests.runs import manifests


def grown(count, seed):
    """Records of stages of every kind, and the plain list of updates after each."""
    draw, records, lists = random.Random(seed), [], [[]]
    for index in range(1, count + 1):
        record = StageRecord(index=index, name="t")
        kind = draw.choice(["adds", "replaces", "rejected", "taken out", "on an earlier one"])
        on = draw.randrange(index) if kind == "on an earlier one" else index - 1
        name, earlier = record.folder, lists[on]
        manifest = Manifest(on=f"{on:03d}-t" if on else None)
        if kind == "replaces":
            manifest.without, manifest.adds = earlier[-1:], [name]
            lists.append([*earlier[:-1], name])
        elif kind == "rejected":
            lists.append(list(earlier))
        elif kind == "taken out":
            gone = draw.sample(earlier, len(earlier) // 3)
            manifest.without = gone
            lists.append([u for u in earlier if u not in gone])
        else:
            manifest.adds = [name]
            lists.append([*earlier, name])
        if on != index - 1 and on:
            record.notes["on_top_of"] = f"{on:03d}-t"
        record.manifest = manifest
        records.append(record)
    return records, lists


@pytest.mark.parametrize("seed", range(5))
def test_lists_are_those_of_adding_and_removing_by_hand(seed):
    records, lists = grown(30, seed)
    found = Manifests(records)
    assert [found.after(stage) for stage in range(31)] == lists
    gone = {"002-t", "005-t"}
    assert found.holding(gone) == {
        r.folder for r, updates in zip(records, lists[1:], strict=True) if gone & set(updates)
    }
    for stage in (1, 15, 30):
        held = [r.folder for r in records if found.holds(stage, r.folder)]
        assert held == sorted(lists[stage])


def committed(path, records):
    directory = ModelDirectory(path)
    with directory.locked():
        directory.write_config({"model": "m"})
        for record in records:
            directory.commit(record.model_copy(), lambda folder: None)
    return directory


def to_format_2(directory, lists):
    """Write the records as they were before they had manifests."""
    for path, updates in zip(sorted(directory.folder.iterdir()), lists[1:], strict=True):
        values = json.loads((path / "stage.json").read_text())
        del values["manifest"]
        values |= {"format": 2, "updates": updates}
        (path / "stage.json").write_text(json.dumps({**values, "sha256": seal(values)}))


@pytest.mark.parametrize("seed", range(2))
def test_a_directory_of_before_is_read_goes_on_and_is_copied_to_todays(seed, tmp_path):
    records, lists = grown(12, seed)
    old = committed(tmp_path / "old", records)
    to_format_2(old, lists)
    assert manifests(old.path) == lists[1:]
    last = StageRecord(index=13, name="t", manifest=Manifest(on="012-t", adds=["013-t"]))
    with old.locked():
        old.commit(last, lambda folder: None)
    assert manifests(old.path) == [*lists[1:], [*lists[-1], "013-t"]]
    new = ModelDirectory(tmp_path / "new")
    with new.locked():
        for record in old.stages():
            new.adopt(old, record)
    assert manifests(new.path) == manifests(old.path)
    formats = {json.loads(p.read_text())["format"] for p in new.folder.glob("*/stage.json")}
    assert formats == {3}


def test_a_record_does_not_grow_with_the_stages_below_it_even_in_memory(tmp_path):
    plain = [StageRecord(index=i, name="t") for i in range(1, 9)]
    old = committed(tmp_path / "old", plain)
    to_format_2(old, [[f"{i:03d}-t" for i in range(1, k + 1)] for k in range(9)])
    assert {len(record.manifest.adds) for record in old.stages()} == {1}
    assert {len(record.manifest.adds) for record in old.stages()} == {1}  # those in memory
