"""The examples run, at a tiny size: random models, a few tickets."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from nlora.store.directory import ModelDirectory
from tests.tiny import TEMPLATE

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """The module of an example, by its name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def learned(out):
    return [record.name for record in ModelDirectory(out).stages()]


def test_t5_with_the_seq2seq_trainer(example, t5, tmp_path):
    example("t5_seq2seq_trainer").main(tmp_path / "out", str(t5), months=2, rows=6)
    assert learned(tmp_path / "out") == ["tickets", "tickets"]


def test_a_plain_loop(example, llama, tmp_path):
    example("plain_loop").main(tmp_path / "out", str(llama), months=2, rows=6)
    assert learned(tmp_path / "out") == ["tickets", "tickets"]


def test_chats_with_the_sft_trainer(example, llama, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for file in llama.iterdir():
        (model / file.name).symlink_to(file)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = TEMPLATE
    (model / "tokenizer_config.json").unlink()
    tokenizer.save_pretrained(model)
    example("chats_sft_trainer").main(tmp_path / "out", str(model), months=2, rows=6)
    [first, second] = ModelDirectory(tmp_path / "out").stages()
    assert first.tasks[0]["chat"]
    assert second.updates == [first.folder, second.folder]


@pytest.mark.parametrize("name", ["practitioner", "researcher"])
def test_a_notebook_runs_from_top_to_bottom(name, example, t5, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example("tickets")
    shown = {}
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        assert not cell.get("outputs")  # what it prints is of somebody's machine
        code = "".join(cell["source"]).replace("rows=48", "rows=6").replace("epochs=4", "epochs=1")
        if cell["cell_type"] == "code":
            exec(code.replace('"tiny-t5"', repr(str(t5))), shown)
    directories = {"practitioner": ["desk"], "researcher": ["plain", "n-lora", "both", "stricter"]}
    for directory in directories[name]:
        assert learned(Path("runs") / directory)
