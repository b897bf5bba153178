"""`tiny-t5`, the model inside the package."""

import random

import pytest

from nlora.backbones.catalog import catalog, fetch, find
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task
from nlora.evaluation.normalise import normalise

TEXTS = (
    "The goalkeeper saved two penalties and the team won the match in front of a full stadium.",
    "Boil the potatoes for twenty minutes, then add butter, salt and a little nutmeg.",
    "The telescope found a faint galaxy whose light left it before the earth was formed.",
    "The bank raised its interest rates and the shares of the company fell sharply.",
    "The nurse measured the patient's blood pressure and called the surgeon.",
)
LABELS = ("soccer", "kitchen and cuisine", "stars & planets", "money-lending", "medical care")


@pytest.fixture(scope="module")
def folder():
    return fetch("tiny-t5")


@pytest.fixture(scope="module")
def loaded(folder):
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder)


def test_it_comes_with_the_package_and_is_whole(folder):
    entry = next(e for e in catalog(verify=True) if e.name == "tiny-t5")
    assert (entry.fetched, entry.problem, entry.path) == (True, None, folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 25_000_000
    assert "learning_rate" in find("tiny-t5").recommended["lora"]


def test_its_card_names_the_teacher_the_data_and_the_command(folder):
    card = (folder / "README.md").read_text(encoding="utf-8")
    for needed in ("all-MiniLM-L6-v2", "Apache-2.0", "training_tools.tiny_t5.train", "CC BY-SA"):
        assert needed in card


def test_its_weights_are_in_half_precision_and_nothing_is_missing(folder):
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForSeq2SeqLM

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    _, told = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_answers_come_back_as_their_labels_are_written(loaded):
    _, tokenizer = loaded
    labels = ("e-mail", "R&D", "Sci / Tech", "Society & Culture", "C++", "node.js (old)", "a, b")
    for label in labels:
        ids = tokenizer(label).input_ids
        assert ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == label.lower()


def test_it_answers_with_a_listed_option_whatever_their_order(loaded):
    from nlora.evaluation.answers import answer

    model, tokenizer = loaded
    encoder = Encoder(tokenizer, Prompter(), encoder_decoder=True)
    rng, answers = random.Random(0), []
    for _ in range(4):
        labels = list(LABELS)
        rng.shuffle(labels)
        ask = "What is the topic of the following paragraph? Choose one from the option."
        task = Task("topics", ask, tuple(labels))
        examples = [Example(task, t, a) for t, a in zip(TEXTS, LABELS, strict=True)]
        answers.append(answer(model, encoder, examples))
    flat = [p for row in answers for p in row]
    assert sum(normalise(p.text) in {normalise(a) for a in LABELS} for p in flat) >= 19
    assert sum(p.correct for p in flat) >= 12
