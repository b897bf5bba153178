"""What the functions return prints as a table, also in a notebook, and makes one of pandas."""

import sys

import pytest

import nlora
from nlora.api.results import Answers, History
from nlora.continual.answering import Answer
from nlora.continual.history import history
from nlora.store.directory import ModelDirectory


def test_results_print_and_give_a_row_per_stage_and_task(finished):
    found = nlora.load(finished("inc-lora").out).results
    text = str(found)
    assert "inc-lora: accuracy (%)" in text
    assert f"{found['accuracy_matrix'][1][0]:.1f}" in text
    html = found._repr_html_()
    assert html.count("<table>") == 2
    assert f"<td>{found.average_accuracy:.1f}</td>" in html
    table = found.to_pandas().pivot(index="number", columns="task", values="accuracy")
    assert table.loc[2, "colour"] == found["accuracy_matrix"][1][0]
    assert len(found.to_pandas()) == 3 * 2


def test_history_and_analysis_print(finished):
    out = finished("inc-lora").out
    kept = History(history(ModelDirectory(out)))
    assert "kept: 12 test examples (colour 6, animal 6)" in str(kept)
    assert list(kept.to_pandas()["rows"]) == [24, 24]
    found = nlora.analyze(out)
    assert "colour × animal" in str(found)
    assert "Geometry is no accuracy" in found._repr_html_()
    [pair] = found.records()
    assert pair["collision_rate"] == found.collision_rate
    for several, first in ((0.001, "0.001"), ([0.2, "0.1rms"], "0.2"), ("0.5rms", "0.5rms")):
        assert nlora.analyze(out, thresholds=several)["threshold"] == first
    with pytest.raises(nlora.NloraError, match="above which threshold"):
        nlora.analyze(out, thresholds=[])
    [alone] = nlora.analyze(out / "stages" / "001-colour" / "update").records()
    assert alone["frobenius"] > 0


def test_what_comes_from_data_neither_moves_the_cursor_nor_is_markup():
    found = Answers([Answer("a\x1b[31m <b>" + "word " * 30, "t", "[bold]x", {"[bold]x": 0.5})])
    assert "\x1b" not in str(found)
    assert "a\\x1b[31m <b>" in str(found)
    assert "[bold]x" in str(found)
    assert "&lt;b&gt;" in found._repr_html_()
    assert found[:1] == list(found)
    assert found.to_pandas()["answer"].tolist() == ["[bold]x"]


def test_without_pandas_all_but_to_pandas_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    found = Answers([Answer("a", "t", "x")])
    assert found.records()[0]["answer"] == "x"
    with pytest.raises(nlora.NloraError, match="pip install pandas"):
        found.to_pandas()
