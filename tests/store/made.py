"""A model directory made by hand."""

import json

import torch
from safetensors.torch import save_file

from nlora.store.directory import StageRecord
from nlora.store.manifests import Manifest


def commit(directory, index, name, text="a text", **manifest):
    manifest = Manifest(**{"adds": [f"{index:03d}-{name}"], **manifest})
    record = StageRecord(index=index, name=name, manifest=manifest)

    def write(folder):
        row = {"task": name, "text": text, "label": "x"}
        line = json.dumps(row, ensure_ascii=False) + "\n"
        (folder / "test.jsonl").write_text(line, encoding="utf-8")
        (folder / "update").mkdir()
        save_file({"w": torch.ones(2) * index}, folder / "update" / "w.safetensors")

    directory.commit(record, write)
    return record
