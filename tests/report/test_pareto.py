"""Which methods nothing else is better than."""

import pytest

from nlora.report.table import text
from tests.report.rows import (
    row,
    write,
)


def needing(method: str, chance: float, seconds: float, passes: float | None = None, **needed):
    needs = {"task_identity": False, "old_data": False, "storage": False, "adapter": "lora"}
    needs |= needed | ({} if passes is None else {"passes": passes})
    times = {"training": seconds, "evaluation": 1.0}
    return row(method, chance=chance, count=400, needs=needs, seconds_by=times)


FRONT = [
    needing("best", 0.9, 60, old_data=True),
    needing("same", 0.9, 60, old_data=True, storage=True),
    needing("plain", 0.7, 60),
    needing("slow", 0.6, 90, passes=2),
    needing("quick", 0.6, 30),
    needing("hardly-quicker", 0.5, 29),
]


def test_pareto_has_what_nothing_else_is_better_than(make):
    found = make(FRONT, "pareto")
    front = {str(text(r[0])).strip("†‡§"): r[-1] for r in found.rows}
    assert {label for label, said in front.items() if said == "yes"} == {"best", "plain", "quick"}
    assert set(front) == {"best", "same", "plain", "slow", "quick", "hardly-quicker"}
    by_label = {text(r[0]): dict(zip(found.columns, r, strict=True)) for r in found.rows}
    assert by_label["same‡§"]["old data"] == by_label["same‡§"]["storage per task"] == "yes"
    assert text(by_label["slow"]["extra passes"]) == "2"
    assert by_label["quick"]["extra passes"] is None  # a row of before they were counted
    assert text(by_label["slow"]["training (min)"]) == "1.50"


def test_pareto_is_a_picture_too(tmp_path):
    pytest.importorskip("matplotlib")
    from nlora.paper.pareto import draw
    from nlora.report.runs import sections

    [section] = sections([write(tmp_path / "ledger.jsonl", FRONT)])
    files = draw(section, tmp_path)
    assert [path.suffix for path in files] == [".pdf", ".svg", ".png"]
    assert "hardly-quicker" in files[1].read_text()
