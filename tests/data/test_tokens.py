"""Token ids kept on disk: found again, never wrong, never in the way."""

import os
from array import array

import pytest

from nlora.data import encode, tokens
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from tests import tiny

EXAMPLES = tiny.task(count=70).train
KEPT = [(array("i", [1, 2, 3]), False), (array("i", [4]), True), (array("i"), False)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def encoder(**settings) -> Encoder:
    return Encoder(tiny.tokenizer(False), Prompter(), False, **settings)


def files(cache):
    return sorted(cache.glob("*"))


def test_what_is_kept_comes_back():
    tokens.save("key", KEPT)
    assert tokens.load("key") == KEPT
    assert tokens.load("other") is None


def test_another_encoder_of_the_same_kind_does_not_tokenise_again(cache, monkeypatch):
    first = encoder().all(EXAMPLES)
    assert len(files(cache)) == 1
    monkeypatch.setattr(Encoder, "_fit", None)
    assert encoder().all(EXAMPLES) == first


@pytest.mark.parametrize("settings", [{"max_length": 80}, {"max_text_tokens": 5}])
def test_other_settings_or_examples_are_another_file(cache, settings):
    plain = encoder().all(EXAMPLES)
    assert encoder(**settings).all(EXAMPLES) != plain
    encoder().all(EXAMPLES[1:])
    released = Encoder(tiny.tokenizer(False), Prompter("released"), False)
    assert released.all(EXAMPLES) != plain
    assert len(files(cache)) == 4


def test_another_token_at_the_end_is_another_file(cache):
    encoder().all(EXAMPLES)
    other = tiny.tokenizer(False)
    other.eos_token = other.pad_token
    Encoder(other, Prompter(), False).all(EXAMPLES)
    assert len(files(cache)) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a file", b"x" * 5000])
def test_a_damaged_file_is_made_anew(cache, damage):
    whole = encoder().all(EXAMPLES)
    [path] = files(cache)
    good = path.read_bytes()
    path.write_bytes(damage or good[: len(good) // 2])
    assert encoder().all(EXAMPLES) == whole
    assert tokens.load(path.stem) is not None


def test_a_cache_that_cannot_be_written_does_no_harm(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    assert encoder().all(EXAMPLES)


def test_few_examples_are_not_kept(cache):
    encoder().all(EXAMPLES[: encode.WORTH_KEEPING - 1])
    assert files(cache) == []


def test_the_oldest_by_use_leave_when_there_is_no_room(cache, monkeypatch):
    tokens.save("a", KEPT)
    size = files(cache)[0].stat().st_size
    for age, name in ((300, "a"), (200, "b"), (100, "c")):
        tokens.save(name, KEPT)
        path = cache / f"{name}.npz"
        stat = path.stat()
        os.utime(path, (stat.st_atime - age, stat.st_mtime - age))
    assert tokens.load("a") is not None  # used just now
    monkeypatch.setattr(tokens, "MOST_BYTES", 3 * size)
    tokens.save("d", KEPT)
    assert [p.stem for p in files(cache)] == ["a", "c", "d"]
