"""The public names: each is there, and is imported when it is asked for."""

import pytest

import nlora


def test_every_public_name_is_there_and_nothing_else():
    assert {name for name in nlora.__all__ if getattr(nlora, name) is None} == set()
    assert set(nlora.__all__) <= set(dir(nlora))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        nlora.trian  # noqa: B018
