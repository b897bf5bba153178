"""Of several processes that fail one says why, whatever else ends before it has."""

import threading
import time
from datetime import timedelta

import pytest
from torch.distributed import DistNetworkError, HashStore

from nlora import endings


class Gone:
    """The store of a process that has ended."""

    def __getattr__(self, name):
        def call(*_):
            raise DistNetworkError("connection was closed")

        return call


@pytest.fixture
def store(monkeypatch):
    """Of two processes, of which a test is the one whose rank it sets."""
    store = HashStore()
    monkeypatch.setattr(endings, "_stores", lambda: [store])
    monkeypatch.setattr(endings, "count", lambda: 2)
    monkeypatch.setattr(endings, "_PATIENCE", timedelta(seconds=0.05))
    return store


def be(monkeypatch, rank):
    monkeypatch.setattr(endings, "_first", None)
    monkeypatch.setattr(endings, "rank", lambda: rank)


def test_the_first_speaks_also_when_the_main_process_is_gone_since(store, monkeypatch):
    be(monkeypatch, 1)
    assert endings.first_to_fail()  # as its error passes `together`
    monkeypatch.setattr(endings, "_stores", lambda: [Gone()])
    said = []
    endings.say_once(lambda: said.append("why"))
    assert said == ["why"]


def test_the_others_end_when_the_first_has_spoken(store, monkeypatch):
    be(monkeypatch, 1)
    assert endings.first_to_fail()
    be(monkeypatch, 0)
    monkeypatch.setattr(endings, "_PATIENCE", timedelta(seconds=30))
    said = []

    def speak():
        time.sleep(0.2)
        said.append("why")
        store.set(endings._SAID, "")

    first = threading.Thread(target=speak)
    first.start()
    endings.say_once(lambda: said.append("and I"))
    assert said == ["why"]
    first.join()


@pytest.mark.parametrize("rank", [0, 1])
def test_where_the_first_was_killed_before_it_spoke_another_speaks(store, monkeypatch, rank):
    be(monkeypatch, 1 - rank)
    assert endings.first_to_fail()
    be(monkeypatch, rank)
    said = []
    endings.say_once(lambda: said.append("why"))
    assert said == ["why"]


@pytest.mark.parametrize("main_spoke", [True, False])
def test_who_finds_the_main_process_gone_speaks_if_that_has_not(store, monkeypatch, main_spoke):
    said = []
    if main_spoke:
        monkeypatch.setattr(endings, "_stores", lambda: [HashStore(), store])
        be(monkeypatch, 0)
        endings.say_once(lambda: said.append("why"))
    monkeypatch.setattr(endings, "_stores", lambda: [Gone(), store])
    be(monkeypatch, 1)
    endings.say_once(lambda: said.append("it is gone"))
    assert said == (["why"] if main_spoke else ["it is gone"])


def test_who_finds_all_keepers_gone_says_nothing(store, monkeypatch):
    be(monkeypatch, 1)
    monkeypatch.setattr(endings, "_stores", lambda: [Gone(), Gone()])
    endings.say_once(lambda: pytest.fail("one of them has said why"))
