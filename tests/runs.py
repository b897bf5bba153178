"""Small runs: made-up tasks as files, quick settings, and a look at what was written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nlora.plan.config import RunConfig
from nlora.store.directory import ModelDirectory
from nlora.store.manifests import Manifests

LABELS = {"colour": ("a", "b", "c"), "animal": ("d", "e", "f"), "fruit": ("b", "a", "d")}

FAST = {"precision": "fp32", "batch_size": 8, "max_new_tokens": 4}

LEARNING = {
    **FAST,
    "learning_rate": 6e-3,
    "target_modules": "all-linear",
    "epochs": 4,
}
"""With these the fixture `llama` learns the tasks of 24 examples, and forgets them again."""

THOROUGH = {**LEARNING, "learning_rate": 3e-3, "epochs": 8}
"""Twice the steps, half as long: of what a task takes from another, a part can be given back."""


def write_task(
    folder: Path, name: str, train: int = 12, test: int = 6, labels: bool = True, start: int = 0
) -> dict[str, Any]:
    """The entry of a stream, its two files written: the answer follows from the first letter."""
    answers = LABELS.get(name, ("a", "b", "c"))
    for split, first, count in (("train", start, train), ("test", start + 1000, test)):
        rows = [
            {"text": "xyz"[i % 3] * 3 + f" {first + i}", "label": answers[i % 3]}
            for i in range(count)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}-{split}.jsonl").write_text(lines, encoding="utf-8")
    entry = {"name": name, "train": f"{name}-train.jsonl", "test": f"{name}-test.jsonl"}
    if labels:
        entry |= {"instruction": f"Which {name}?", "labels": list(answers)}
    return entry


def write_stream(folder: Path, *names: str, **task: Any) -> Path:
    """A YAML stream of these tasks (default: all three), with its files."""
    entries = [write_task(folder, name, **task) for name in names or LABELS]
    path = folder / "stream.yaml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    return path


def config(
    model: Path | str, stream: Path | None, settings: Mapping[str, Any] = FAST, **values: Any
) -> RunConfig:
    """A configuration; `method` is inc-lora unless given."""
    values = {"method": "inc-lora", **values}
    return RunConfig(
        model=str(model), stream=stream and str(stream), settings=dict(settings), **values
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path, hidden ones too; the lock does not count."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: p.read_bytes() for name, p in sorted(found.items()) if name != ".lock"}


def manifests(out: Path) -> list[list[str]]:
    """The stages whose updates make up the model after each stage of a model directory."""
    records = ModelDirectory(out).stages()
    found = Manifests(records)
    return [found.after(record.index) for record in records]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Listener:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.titles: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def start(self, title: str, total: int) -> None:
        self.titles.append(title)

    def advance(self, count: int = 1, **values: float) -> None:
        pass

    def finish(self) -> None:
        pass
