"""A run whose folder, labels and texts are code for a browser, made once."""

import json

import pytest
import yaml

from nlora.continual.learning import run
from tests.once import once
from tests.runs import FAST, config

CODE = "<script>document.title='taken'</script>"
TASKS = {"one": ["<b>yes</b>", "no"], "two": ["a", 'b"']}


def _make(llama, folder):
    entries = []
    for number, (name, labels) in enumerate(TASKS.items()):
        entry = {"name": name, "instruction": f"Which? {CODE}", "labels": labels}
        for split in ("train", "test"):
            rows = [
                {"text": f"{split} {i} </td>{CODE}\u202e", "label": labels[i % 2]} for i in range(6)
            ]
            path = folder / f"{number}-{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            entry[split] = path.name
        entries.append(entry)
    (stream := folder / "stream.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    run(config(llama, stream, {**FAST, "epochs": 1}, evaluate="all"), folder / "<i>run")


@pytest.fixture(scope="session")
def nasty(llama, tmp_path_factory):
    """The model directory of a run over TASKS; copy it to change it."""
    return once("nasty", lambda folder: _make(llama, folder), tmp_path_factory) / "<i>run"
