import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nlora.data.benchmark import DATASETS
from nlora.data.streams import ORDERS, load_stream, stream_names
from nlora.errors import NloraError, as_commands

WriteDataset = Callable[..., Path]


@pytest.fixture
def data(write_dataset: WriteDataset) -> Path:
    """All 15 data sets, and one more."""
    for folder in DATASETS.values():
        write_dataset(folder)
    return write_dataset("SC/Shop")


def problem(stream: str, data: Path | None) -> str:
    with pytest.raises(NloraError) as caught:
        load_stream(stream, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_orders_are_table_7():
    standard = {"dbpedia", "amazon", "yahoo", "agnews"}
    for name in ("order-1", "order-2", "order-3"):
        assert len(ORDERS[name]) == 4
        assert set(ORDERS[name]) == standard
    for name in ("order-4", "order-5", "order-6"):
        assert len(ORDERS[name]) == 15
        assert set(ORDERS[name]) == set(DATASETS)
    assert ORDERS["order-1"] == ("dbpedia", "amazon", "yahoo", "agnews")
    assert ORDERS["order-2"] == ("dbpedia", "amazon", "agnews", "yahoo")
    assert ORDERS["order-3"] == ("yahoo", "amazon", "agnews", "dbpedia")
    sequences = {
        "order-4": "MNLI, CB, WiC, COPA, QQP, BoolQA, RTE, IMDB, Yelp, Amazon, SST-2, DBpedia, "
        "Agnews, MultiRC, Yahoo",
        "order-5": "MultiRC, BoolQA, WiC, MNLI, CB, COPA, QQP, RTE, IMDB, SST-2, DBpedia, Agnews, "
        "Yelp, Amazon, Yahoo",
        "order-6": "Yelp, Amazon, MNLI, CB, COPA, QQP, RTE, IMDB, SST-2, DBpedia, Agnews, Yahoo, "
        "MultiRC, BoolQA, WiC",
    }
    for name, tasks in sequences.items():
        assert ", ".join(ORDERS[name]) == tasks.lower()


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_loads_by_name_in_its_order(data, name):
    assert tuple(t.name for t in load_stream(name.title(), data)) == ORDERS[name]


@pytest.mark.parametrize(
    ("stream", "names"),
    [
        ("agnews", ["agnews"]),
        ("ag, DBpedia ,shop", ["agnews", "dbpedia", "shop"]),
        ("Shop", ["shop"]),
    ],
)
def test_data_sets_load_alone_or_in_a_list(data, stream, names):
    assert [t.name for t in load_stream(stream, data)] == names


def test_a_yaml_stream_needs_no_data(tmp_path):
    for name, text in (("a", "One."), ("b", "Two.")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": text, "label": "x"}))
    for name in ("mine.yaml", "mine.YML", "mine"):
        (tmp_path / name).write_text("- {name: a, train: a.jsonl, test: b.jsonl}")
        assert [t.name for t in load_stream(str(tmp_path / name), None)] == ["a"]
    assert problem(str(tmp_path / "none.yaml"), None).startswith("no such file")


def test_the_demo_needs_no_data():
    pytest.importorskip("nlora.data.demo", reason="the demo stream is not there")
    assert len(load_stream("demo", None)) >= 4


def test_a_file_does_not_hide_a_data_set(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("yahoo").write_text("something else")
    assert [t.name for t in load_stream("yahoo", data)] == ["yahoo"]


@pytest.mark.parametrize("stream", ["order-1", "agnews", "ag,yahoo"])
def test_a_benchmark_stream_without_data_says_how_to_get_it(stream):
    with as_commands():
        message = problem(stream, None)
    assert all(hint in message for hint in ("--data", "NLORA_DATA", "nlora data download"))


@pytest.mark.parametrize(
    ("stream", "pattern"),
    [
        ("order-7", r"unknown stream 'order-7'; did you mean 'order-\d'"),
        ("dmo", r"did you mean 'demo'"),
        ("yaho", r"did you mean 'yahoo'"),
        ("agnews,shp", r"unknown data set 'shp'"),
        ("agnews,", r"unknown data set ''"),
        ("", r"unknown stream ''"),
        ("~no-such-user/x", "unknown stream"),
        ("shop" * 100, "unknown stream"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(data, stream, pattern):
    assert re.search(pattern, problem(stream, data))
    assert re.search(pattern, problem(stream, None))


def test_a_data_set_is_not_learned_twice(data):
    assert "'agnews' twice" in problem("ag,yahoo,AGnews", data)


def test_stream_names_are_the_demo_the_orders_and_those_of_other_papers():
    orders = [f"order-{i}" for i in range(1, 7)]
    assert stream_names() == ["demo", *orders, "trace", "superni-15", "superni-15-order-2"]
