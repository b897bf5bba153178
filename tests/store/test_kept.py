"""Values that are kept: none is taken that was made of something else or changed since."""

import json

import pytest

from nlora.store.kept import keep, kept

VALUES = {"free": 1 / 3, "among": None, "text": "ä\u2028"}


def test_what_was_kept_is_had_again_to_the_bit(tmp_path):
    place = tmp_path / "not" / "there" / "yet.json"
    assert kept(place, "this") is None
    keep(place, "this", VALUES)
    assert kept(place, "this") == VALUES
    assert kept(place, "that") is None


@pytest.mark.parametrize("key", ["made_of", "values", "hash"])
def test_what_was_changed_or_is_not_whole_counts_as_none(key, tmp_path):
    place = tmp_path / "kept.json"
    keep(place, "this", VALUES)
    sound = json.loads(place.read_text())
    place.write_text(json.dumps({name: value for name, value in sound.items() if name != key}))
    assert kept(place, "this") is None
    place.write_text(json.dumps({**sound, key: {"free": 1 / 2}}))
    assert kept(place, "this") is None
    place.write_text(json.dumps(sound)[:-5])
    assert kept(place, "this") is None
