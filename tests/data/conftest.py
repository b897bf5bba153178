"""Small data folders in the benchmark's layout, with made-up texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WriteDataset = Callable[..., Path]


@pytest.fixture
def write_dataset(tmp_path: Path) -> WriteDataset:
    """Writes `<tmp_path>/data/<folder>`; None: a part is not written; text goes as it is."""

    def write(folder: str = "SC/Shop", **parts: Any) -> Path:
        content = {
            "labels": ["good", "bad"],
            "train": [
                {"label": "good", "sentence": "A fine kettle."},
                {"label": "bad", "sentence": "The lid fell off."},
            ],
            "dev": [{"label": "good", "sentence": "It boils fast."}],
            "test": [{"label": "bad", "sentence": "It leaks."}],
        } | parts
        path = tmp_path / "data" / folder
        path.mkdir(parents=True)
        for part, value in content.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value, indent=1)
                (path / f"{part}.json").write_text(text, encoding="utf-8")
        return tmp_path / "data"

    return write


@pytest.fixture
def folder_of_two(tmp_path):
    """A data folder with two tasks, one of them without dev examples."""
    for name, labels, splits in (
        ("TC/news", ["World", "Sports"], ("train", "dev", "test")),
        ("SC/films", ["good", "bad", "neither"], ("train", "test")),
    ):
        (folder := tmp_path / "data" / name).mkdir(parents=True)
        (folder / "labels.json").write_text(json.dumps(labels))
        for split in splits:
            rows = [{"label": label, "sentence": f"{split} of {label}"} for label in labels]
            (folder / f"{split}.json").write_text(json.dumps(rows))
    return tmp_path / "data"
