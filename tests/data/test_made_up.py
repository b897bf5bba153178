"""Data sets whose labels are made-up words."""

import json

import pytest

from nlora.data.made_up import made_up, relabel
from nlora.data.streams import load_stream
from nlora.errors import NloraError


def test_only_the_labels_are_others(folder_of_two, tmp_path):
    data = folder_of_two
    words = relabel("news,films", data, tmp_path / "made", seed=3)
    before, after = load_stream("news,films", data), load_stream("news,films", tmp_path / "made")
    for old, new in zip(before, after, strict=True):
        became = words[old.name]
        assert new.task.labels == tuple(became[label] for label in old.task.labels or ())
        assert new.task.instruction == old.task.instruction
        for split in ("train", "dev", "test"):
            pairs = zip(getattr(old, split), getattr(new, split), strict=True)
            assert all((b.text, b.label) == (a.text, became[a.label]) for a, b in pairs)
    assert not set(words["news"].values()) & set(words["films"].values())
    assert made_up(2, "news", 3) == after[0].task.labels != made_up(2, "news", 4)


def test_nothing_is_overwritten_and_nothing_is_left_of_what_fails(folder_of_two, tmp_path):
    data = folder_of_two
    with pytest.raises(NloraError, match="exists already"):
        relabel("news", data, data)
    (tmp_path / "mail.csv").write_text("text,label\na: b,c\n")
    with pytest.raises(NloraError, match=r"mail.csv is no stream, which is a name, data sets"):
        relabel(str(tmp_path / "mail.csv"), data, tmp_path / "made")
    (tmp_path / "mail.csv").unlink()
    (data / "TC" / "free").mkdir()
    for split in ("train", "test"):
        rows = [{"label": "an answer", "sentence": "a question"}]
        (data / "TC" / "free" / f"{split}.json").write_text(json.dumps(rows))
    (data / "TC" / "free" / "task.json").write_text("{}")
    with pytest.raises(NloraError, match="'free' has no labels"):
        relabel("news,free", data, tmp_path / "made")
    # A task of a stream's file would be read back as another: its question is its own.
    rows = '[{"text": "a", "label": "World"}, {"text": "b", "label": "Sports"}]'
    (tmp_path / "rows.json").write_text(rows)
    task = "{name: news, instruction: 'Which?', labels: [World, Sports], "
    (tmp_path / "own.yaml").write_text(f"[{task} train: rows.json, test: rows.json}}]")
    with pytest.raises(NloraError, match="'news' has no labels, or is of no data folder"):
        relabel(str(tmp_path / "own.yaml"), data, tmp_path / "made")
    (tmp_path / "rows.json").unlink()
    (tmp_path / "own.yaml").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
