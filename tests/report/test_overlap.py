"""The tables of overlap, collisions and ratios."""

from statistics import fmean

import pytest

from nlora.report.formats import render
from nlora.report.table import text
from tests.report.rows import STANDARD, cells, geometry, row, with_geometry


def test_overlap_stands_by_order_with_the_size_of_the_updates(make):
    found = make(with_geometry(), "orthogonality")
    assert found.columns[0] == "stream"
    assert [r[0] for r in found.rows] == [*STANDARD, "average"]
    for shown in (cells(found, "order-2"), cells(found, "average")):
        assert (shown["OO o-lora"].mean, shown["OO n-lora"].mean) == pytest.approx((20, 4))
        assert (shown["AWOM o-lora"].mean, shown["AWOM n-lora"].mean) == pytest.approx((50, 0.5))
        assert shown["‖ΔW‖_F n-lora"].mean == pytest.approx(0.1)
    assert not any("replay" in column for column in found.columns)


def test_the_longer_side_of_the_overlap_runs_down(make):
    rows = [row(m, geometry=geometry(1.0, 1.0, 1.0, 0.1)) for m in "abc"]
    found = make(rows, "orthogonality")
    assert found.columns == ["method", "OO order-1", "AWOM order-1", "‖ΔW‖_F order-1"]
    assert [text(r[0]) for r in found.rows] == ["a", "b", "c"]


def test_an_adapter_that_is_continued_is_no_update_per_task(make):
    continued = {**geometry(1.0, 1.0, 1.0, 0.1), "continues": {"b": "a"}}
    rows = [*with_geometry(), row("seq-lora", geometry=continued)]
    assert "seq-lora" not in render([make(rows, "orthogonality")], "csv")


def test_ratios_are_how_many_times_lower(make):
    found = cells(make(with_geometry(), "ratios", baseline="o-lora"), "n-lora")
    names = ("ACR 0.1rms ×", "ACR 1e-3 ×", "OO ×", "AWOM ×", "‖ΔW‖_F ×", "GSR ×")
    assert [found[n].mean for n in names] == pytest.approx([3, 1, 5, 100, 10, 1])
    rows = with_geometry()
    mean = {
        m: fmean(r["average_accuracy"] for r in rows if r["cell"]["method"] == m)
        for m in ("n-lora", "o-lora")
    }
    assert found["average"].mean == pytest.approx(mean["n-lora"] - mean["o-lora"])


def test_ratios_are_of_the_seeds_that_both_have(make):
    rows = with_geometry()
    alone = row("o-lora", seed=7, geometry=geometry(9.0, 9.0, 9.0, 0.9))
    alone["average_accuracy"] = 1.0
    more = make([*rows, alone], "ratios", baseline="o-lora")
    assert cells(more, "n-lora") == cells(make(rows, "ratios", baseline="o-lora"), "n-lora")


def met(*rates, size=0.5):
    """What a stage of sparse updates notes."""
    return {"sparse": {"collision_rates": [*rates], "matrices": {"q": {"frobenius": size}}}}


def test_collisions_stand_beside_size_and_what_is_kept_and_learned(make):
    same = {"red": met(), "blue": met(0.06, size=1.5)}
    rows = [*with_geometry(), row("sparse-masks", notes=same), row("o-lora", "order-4")]
    found = make(rows, "collisions")
    assert [text(r[0]) for r in found.rows] == ["o-lora", "n-lora", "sparse-masks"]
    shown = cells(found, "n-lora")
    names = ("ACR 0.1rms", "ACR 1e-3", "GSR", "‖ΔW‖_F")
    assert [shown[n].mean for n in names] == pytest.approx([20, 25, 0.5, 0.1])
    for name, key in (
        *(("average", "average_accuracy"), ("learning", "learning_accuracy")),
        ("forgetting", "forgetting"),
    ):
        mine = fmean(r[key] for r in rows if r["cell"]["method"] == "n-lora")
        assert shown[name].mean == pytest.approx(mine)
    shown = cells(found, "sparse-masks")
    assert [shown[n] and shown[n].mean for n in names] == pytest.approx([6, 6, None, 1.0])
    assert shown["streams"] == "order-1"
