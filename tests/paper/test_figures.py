"""Figures that the paper lacks: what is drawn is what was measured."""

from pathlib import Path

import pytest

from nlora.paper.artefacts import MOVED
from nlora.paper.bars import figure_6
from nlora.paper.curves import curves, off_list
from nlora.paper.forest import forest
from nlora.paper.material import material
from nlora.paper.scatter import divergence, strength
from nlora.report.ledger import read
from tests.report.rows import STANDARD, row, watching, write

RESULTS = Path(__file__).parents[2] / "docs/results"


@pytest.fixture(scope="module")
def measured():
    pytest.importorskip("matplotlib")
    return material([RESULTS / "first-evidence.jsonl"])


def test_a_panel_per_method_has_a_line_per_task_from_the_stage_that_learns_it(measured):
    found = curves(measured)
    with found.drawn() as (_, axes):
        panels = {axis.get_title(): axis for axis in axes.flat if axis.get_visible()}
        assert list(panels) == list(dict.fromkeys(row[0] for row in found.data.rows))
        lines = {line.get_label(): line for line in panels["n-lora"].get_lines()}
        for number, task in enumerate(("dbpedia", "amazon", "yahoo", "agnews"), start=1):
            own = [row for row in found.data.rows if (row[0], row[2]) == ("n-lora", task)]
            assert lines[task].get_xdata().tolist() == [row[1] for row in own]
            assert lines[task].get_ydata().tolist() == [row[3].mean for row in own]
            assert [row[1] for row in own] == list(range(number, 5))
    rows = [
        row
        for row in read(RESULTS / "first-evidence.jsonl")
        if (row["cell"]["method"], row["cell"]["stream"]) == ("n-lora", "order-1")
    ]
    last = [row["accuracy_matrix"][3][0] for row in rows]
    value = next(r[3] for r in found.data.rows if r[:3] == ["n-lora", 4, "dbpedia"])
    assert value.mean == pytest.approx(sum(last) / len(last))


def test_a_task_that_is_only_tested_has_no_line(tmp_path):
    pytest.importorskip("matplotlib")
    plain, watched = (
        curves(material([write(tmp_path / f"{n}.jsonl", [made])])).data.rows
        for n, made in enumerate((row(), watching(row())))
    )
    assert plain == watched
    assert len(plain) == 10


def test_answers_that_are_no_label_are_drawn_by_method_and_order(tmp_path):
    pytest.importorskip("matplotlib")
    found = off_list(material([RESULTS / "since.jsonl"]))
    shares = {
        (row["cell"]["method"], row["cell"]["stream"]): row["off_list"]["average"]
        for row in read(RESULTS / "since.jsonl")
    }
    assert {(row[0], row[1]): row[2].mean for row in found.data.rows} == pytest.approx(shares)
    with found.drawn() as (_, axis):
        names = [label.get_text() for label in axis.get_yticklabels()]
        [first] = [line for line in axis.get_lines() if line.get_label() == "order-1"]
        points = zip(first.get_ydata(), first.get_xdata(), strict=True)
        for place, share in points:
            assert share == pytest.approx(shares[names[place], "order-1"])
    assert off_list(material([write(tmp_path / "none.jsonl", _rows())])) is None


def _rows(*weights):
    rows = [row("n-lora", chance=0.6), *(row(f"n-lora:l1={weight:g}") for weight in weights)]
    for one, weight in zip(rows[1:], weights, strict=True):
        one["configuration"]["settings"] |= {"l1": weight}
    return rows


def test_accuracy_is_drawn_over_the_penaltys_weight(tmp_path):
    pytest.importorskip("matplotlib")
    assert strength(material([write(tmp_path / "one.jsonl", _rows(0.1))])) is None  # a point
    found = strength(material([write(tmp_path / "two.jsonl", _rows(0.0, 0.1, 1.0))]))
    weights = [row[1].mean for row in found.data.rows]
    assert weights == [0.0, 0.1, 1.0]
    with found.drawn() as (_, axis):
        average, learning = axis.get_lines()
        assert average.get_xdata().tolist() == learning.get_xdata().tolist() == weights
        assert average.get_ydata().tolist() == [row[2].mean for row in found.data.rows]
        assert learning.get_ydata().tolist() == [row[3].mean for row in found.data.rows]
        assert average.get_label() == "order-1, average"


@pytest.mark.parametrize("where", ["settings", "base", "max_train"])
def test_a_run_that_differs_in_more_than_the_penalty_is_not_its_weight_0(tmp_path, where):
    rows = [row("n-lora"), row("inc-lora")]
    for one in rows:
        one["configuration"]["settings"] |= {"dropout": 0.1, "l1": float(one is rows[0])}
    same = figure_6(material([write(tmp_path / "same.jsonl", rows)]))
    assert same.data.rows[0][1].mean == rows[1]["average_accuracy"]
    other = {"settings": {"dropout": 0.0}, "base": {"title": "another"}, "max_train": 99}[where]
    if where == "max_train":
        rows[1]["configuration"][where] = other
    else:
        (rows[1] if where == "base" else rows[1]["configuration"])[where] |= other
    assert figure_6(material([write(tmp_path / "other.jsonl", rows)])).data.rows[0][1] is None


def test_a_correlation_is_in_the_picture_however_strong(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [row(seed=seed, stream=stream, drop=0.1) for stream in STANDARD for seed in range(3)]
    for made in rows:  # the more a task is known, the more it loses
        for stage, values in enumerate(made["accuracy_matrix"]):
            values[: stage + 1] = [(90 - 7 * t) * 0.5 ** (stage - t) for t in range(stage + 1)]
    found = forest(material([write(tmp_path / "ledger.jsonl", rows)]))
    with found.drawn() as (_, axes):
        drawn = [(axis, x) for axis in axes for line in axis.get_lines() for x in line.get_xdata()]
        assert max(abs(x) for _, x in drawn) > 0.8
        assert all(axis.get_xlim()[0] <= x <= axis.get_xlim()[1] for axis, x in drawn)


def test_no_method_has_the_colour_of_another(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [row(method, kl={"own": 1.0, "earlier": 0.5}) for method in MOVED]
    found = divergence(material([write(tmp_path / "ledger.jsonl", rows)]))
    with found.drawn() as (_, axes):
        for axis in axes:
            colours = {line.get_label(): line.get_color() for line in axis.get_lines()}
            assert list(colours) == list(MOVED)
            assert len({*colours.values()}) == len(MOVED)
