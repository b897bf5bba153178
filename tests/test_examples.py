"""The examples run, at a tiny size: random models, a few tickets."""

import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from nlora.errors import NloraError
from nlora.store.directory import ModelDirectory
from nlora.store.manifests import Manifest
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


@pytest.mark.parametrize(
    "name", ["chats_sft_trainer", "plain_loop", "random_t5", "t5_seq2seq_trainer", "tickets"]
)
def test_without_arguments_it_says_how_it_is_used(name, example, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert f"usage: {name}.py [-h]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["chats_sft_trainer", "plain_loop", "t5_seq2seq_trainer"])
def test_a_model_goes_by_its_built_in_name(name, example, tmp_path):
    with pytest.raises(NloraError, match="did you mean 'tiny-t5'"):
        example(name).main(tmp_path / "out", "tinyt5")


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
    assert second.manifest == Manifest(on=first.folder, adds=[second.folder])


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
