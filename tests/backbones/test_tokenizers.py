"""Tokenizers that people bring: each works, or is refused in one line before training."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, ByT5Tokenizer

from nlora.backbones.catalog import find
from nlora.backbones.load import load
from nlora.continual.learning import run
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import Task
from nlora.errors import NloraError
from tests import tiny
from tests.runs import FAST, config, write_stream


def copied(model, to):
    return shutil.copytree(model, to / "model")


def test_a_folder_without_a_tokenizer_is_refused(llama, tmp_path):
    model = copied(llama, tmp_path)
    for path in model.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(NloraError, match="has no tokenizer files") as error:
        run(config(model, write_stream(tmp_path, "colour")), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "stages").exists()


def test_a_token_without_an_embedding_is_refused_by_name(llama, tmp_path):
    model = copied(llama, tmp_path)
    more = tiny.tokenizer(ends_with_eos=False)
    more.add_tokens(["colour"])  # of every instruction
    more.save_pretrained(model)
    with pytest.raises(NloraError, match=r"'colour' as id 259.*259 ids") as error:
        run(config(model, write_stream(tmp_path, "colour")), tmp_path / "out")
    assert "\n" not in str(error.value)


def test_tokens_without_an_embedding_that_nobody_writes_are_harmless(llama, tmp_path):
    model = copied(llama, tmp_path)
    more = tiny.tokenizer(ends_with_eos=False)
    more.add_special_tokens({"pad_token": "[PAD]"})
    more.add_tokens(["<image>"])
    more.save_pretrained(model)
    assert load(find(str(model)), torch.float32).tokenizer.pad_token_id == 1
    run(config(model, write_stream(tmp_path, "colour")), tmp_path / "out")


def test_a_slow_tokenizer_trains(t5, tmp_path):
    model = copied(t5, tmp_path)
    for path in model.glob("tokenizer*"):
        path.unlink()
    ByT5Tokenizer(extra_ids=0).save_pretrained(model)
    results = run(config(model, write_stream(tmp_path, "colour"), FAST), tmp_path / "out")
    assert results["accuracy_matrix"]


@pytest.mark.parametrize("budget", [3, 10, 50])
def test_a_slow_tokenizer_cuts_where_a_fast_one_does(budget):
    text = "Title: one two  three\nBody: four five six seven eight nine ten "
    task = Task("t")
    slow = Encoder(ByT5Tokenizer(extra_ids=0), Prompter(), True, max_text_tokens=budget)
    fast = Encoder(tiny.tokenizer(True), Prompter(), True, max_text_tokens=budget)
    assert slow.cut(task, text) == fast.cut(task, text)


def test_a_beginning_that_the_chat_template_writes_is_there_once():
    chatty = tiny.tokenizer(ends_with_eos=False)
    chatty.add_special_tokens({"bos_token": "<s>"})
    from tokenizers import processors

    chatty.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", chatty.bos_token_id)]
    )
    chatty.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    ids, _ = Encoder(chatty, Prompter(chat=True, tokenizer=chatty), False).prompt_ids(
        Task("t"), "x"
    )
    assert ids.count(chatty.bos_token_id) == 1
    ids, _ = Encoder(chatty, Prompter(), False).prompt_ids(Task("t"), "x")
    assert ids.count(chatty.bos_token_id) == 1


def test_a_tokenizer_with_neither_pad_nor_end_is_refused(llama, tmp_path):
    model = copied(llama, tmp_path)
    bare = tiny.tokenizer(ends_with_eos=False)
    bare.pad_token = bare.eos_token = None
    bare.save_pretrained(model)
    with pytest.raises(NloraError, match="no end token"):
        run(config(model, write_stream(tmp_path, "colour")), tmp_path / "out")


def test_a_reader_of_both_directions_is_made_a_decoder(tmp_path):
    from benchmarks.tiny_families import make

    make("bert", tmp_path)
    model = load(find(str(tmp_path)), torch.float32).model.eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    other = torch.tensor([[5, 6, 7, 9]])
    assert torch.equal(model(ids).logits[:, :3], model(other).logits[:, :3])
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.is_decoder is False
