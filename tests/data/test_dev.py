"""Data sets that are tested on their dev examples."""

import json

from nlora.data.dev import copied_on_dev, on_dev
from nlora.data.streams import load_stream
from tests.tiny import task


def test_what_is_chosen_on_dev_never_sees_test():
    data = task()
    found = on_dev(data, 0)
    assert found.test == data.dev
    assert found.train == data.train
    tested = {e.text for e in data.test}

    published = type(data)(data.task, data.train, data.test, dev=data.test)
    found = on_dev(published, 0)
    assert not tested & {e.text for e in found.test}
    assert len(found.test) == 2  # a fifth of 12
    assert len(found.train) == 10
    assert {e.text for e in (*found.train, *found.test)} == {e.text for e in data.train}

    mixed = type(data)(data.task, data.train, data.test, dev=(*data.dev[:3], *data.test[:2]))
    assert on_dev(mixed, 0).test == data.dev[:3]


def test_a_text_that_is_held_out_is_not_trained_on_under_another_row():
    data = task()
    twice = type(data)(data.task, (*data.train, *data.train), data.test)
    found = on_dev(twice, 0)
    assert not {e.text for e in found.train} & {e.text for e in found.test}


def test_tests_that_are_in_training_are_neither_chosen_by_nor_trained_on():
    data = task()
    leaky = type(data)(data.task, (*data.train, *data.test), data.test)
    found, tested = on_dev(leaky, 0), {e.text for e in data.test}
    assert not tested & {e.text for e in (*found.train, *found.test)}
    shared = type(data)(data.task, (*data.train, *data.dev), data.test, data.dev)
    assert on_dev(shared, 0).train == data.train


def test_a_copy_is_the_same_data_set_on_dev(folder_of_two, tmp_path):
    written = copied_on_dev("news,films", folder_of_two, tmp_path / "dev", seed=1)
    before = load_stream("news,films", folder_of_two)
    after = load_stream("news,films", tmp_path / "dev")
    for old, made, new in zip(before, written, after, strict=True):
        assert new.fingerprint() == made.fingerprint() == on_dev(old, 1).fingerprint()
        assert new.task == old.task
    copied = {path.name: path.read_text() for path in (tmp_path / "dev").rglob("*.json")}
    assert not any("test of" in text for text in copied.values())
    assert json.loads((tmp_path / "dev/TC/news/test.json").read_text()) == json.loads(
        (folder_of_two / "TC/news/dev.json").read_text()
    )
