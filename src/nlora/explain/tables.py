"""What `explain` has found, as tables."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nlora.evaluation.statistics import COVERAGE
from nlora.explain.explained import BASE, BEFORE, source_marks
from nlora.explain.parts import PARTS
from nlora.report.explained import matched_by, matched_on
from nlora.report.table import Cell, Table, Value

Json = Mapping[str, Any]

READINGS = ("free", "among", "matched", "probe")


def tables(found: Json) -> list[Table]:
    """The tables of what was found; those that have no rows are left out."""
    make = (_losses, _readings, _ways, _sources, _helps, _relearned, _free_text)
    made = [table for table in (one(found) for one in make) if table.rows]
    return [_of_dev(table) for table in made] if found["on"] == "dev" else made


def _of_dev(table: Table) -> Table:
    """A table of dev examples, of which there are no answers by the protocol."""
    notes = [note.replace("test examples", "dev examples") for note in table.notes]
    if table.key == "losses":
        notes.append("dev examples are not asked by the protocol: free is among the labels here")
    return replace(table, title=f"{table.title}, by dev examples", notes=notes)


def _losses(found: Json) -> Table:
    """What was lost after each later stage, in parts."""
    rows: list[list[Cell]] = []
    for name, task in found["tasks"].items():
        for lost in task["lost"]:
            each = lost["by_example"]
            counts = f"{each['lost']} − {each['won']}"
            rows.append([name, lost["after"], *_parts(lost["parts"]), counts])
    if (over := found.get("over_tasks")) and len(over["tasks"]) > 1:
        rows.append(["mean", found["stages"][-1], *_parts(over["parts"]), None])
    notes = [
        "in points, by the readings below: lost (free) = off the list (what answers among the "
        "labels bring back) + bias (what an offset per label brings back) + inaccessible (what a "
        "linear probe still reads out) + gone; a part below zero is a gain",
        "answers: right then and wrong now − wrong then and right now",
    ]
    columns = ["task", "after", "lost", *PARTS, "answers"]
    return Table("losses", "What was lost since it was learned", columns, rows, notes)


def _parts(split: Json) -> list[Cell]:
    values = [split[part] for part in PARTS]
    total = sum(value for value in values if value is not None)
    return [_number(value, "+.1f") for value in (total, *values)]


def _readings(found: Json) -> Table:
    """The right answers behind the parts, right after the task and now."""
    rows: list[list[Cell]] = []
    for name, task in found["tasks"].items():
        read = {reading["stage"]: reading for reading in task["readings"]}
        then = next(r for r in task["readings"] if r["when"] == "right after it")
        for lost in task["lost"]:
            by = lost["matched_by"]
            rows.append([name, lost["after"], *_pairs(then, read[lost["stage"]], by)])
    if (over := found.get("over_tasks")) and len(over["tasks"]) > 1:
        by = matched_by(over["now"]["matched"])
        rows.append(["mean", found["stages"][-1], *_pairs(over["then"], over["now"], by)])
    columns = ["task", "after"]
    columns += [f"{reading} {moment}" for reading in READINGS for moment in ("then", "now")]
    notes = [
        "right answers to the test examples, in per cent, right after the task was learned and "
        "now. free: by the protocol; among: the most likely label; matched: with an offset per "
        "label that makes the label shares of the task's training texts right (of the test texts "
        "where there are no others); probe: logistic regression on the hidden state where the "
        "answer begins",
    ]
    return Table("readings", "The answers, read in four ways", columns, rows, notes)


def _pairs(then: Json, now: Json, by: str) -> list[Cell]:
    """Each reading then and now."""
    each = [(r["free"], r["among"], r["matched"].get(by), r["probe"]) for r in (then, now)]
    return [_number(value) for pair in zip(*each, strict=True) for value in pair]


def _helps(found: Json) -> Table:
    """By how much matched labels are more often right than the likeliest ones, by dev examples."""
    last = len(found["stages"])
    now = {
        name: lost["helps"]
        for name, task in found["tasks"].items()
        for lost in task["lost"]
        if lost["stage"] == last and found["on"] == "dev"
    }
    sources = dict.fromkeys(source for helps in now.values() for source in helps)
    rows: list[list[Cell]] = [
        [source, *(_estimate(helps.get(source, {}), "+.1f") for helps in now.values())]
        for source in sources
    ]
    notes = [
        "right answers among the labels with offsets minus without, after the last stage, in "
        f"points, with {COVERAGE:.0%} bootstrap intervals; where all of one is above 0 `nlora "
        "predict` matches the task's labels by itself"
    ]
    return Table("helps", "Whether offsets help", ["offsets from", *now], rows, notes)


def _ways(found: Json) -> Table:
    """How long the way from never learned to right after learning is, and what is left of it."""
    rows: list[list[Cell]] = []
    used: set[str] = set()
    for name, task in found["tasks"].items():
        read = {reading["when"]: reading for reading in task["readings"]}
        by = matched_by(read["never learned"]["matched"])
        used.add(by)
        points = [
            _number(read[when]["matched"][by]) if when in read else None
            for when in ("never learned", "before it", "right after it")
        ]
        last = task["lost"][-1] if task["lost"] else None
        now = _number(read["later"]["matched"][by]) if last else None
        left = [_estimate(last["kept"][z][by], ".0f") if last else None for z in (BASE, BEFORE)]
        rows.append([name, *points, now, _estimate(task["way"][BASE], ".1f"), *left])
    if over := found.get("over_tasks"):
        by = matched_by(over["now"]["matched"])
        moments = [_number(over[m]["matched"].get(by)) for m in ("never", "then", "now")]
        kept = [_estimate(over["kept"][z].get(by, {}), ".0f") for z in (BASE, BEFORE)]
        rows.append(["all earlier ones", moments[0], None, *moments[1:], None, *kept])
    columns = ["task", "never learned", "before it", "right after it", "now", "way"]
    columns += ["kept (%)", "kept, from before it (%)"]
    notes = [
        f"{matched_on(used)}; never learned: the base model; before it: the model that the task "
        "came to; way: right after it − never learned; kept: what is left of that, and of the way "
        "from before it; "
        f"in brackets {COVERAGE:.0%} bootstrap intervals over test examples (and tasks), "
        "left out where the way is too short to tell",
    ]
    return Table("ways", "How much of what was learned is left", columns, rows, notes)


def _sources(found: Json) -> Table:
    """What each source of offsets brings back after the last stage."""
    last = len(found["stages"])
    now = {
        name: reading
        for name, task in found["tasks"].items()
        for reading in task["readings"]
        if reading["stage"] == last
    }
    names = list(dict.fromkeys(source for reading in now.values() for source in reading["matched"]))
    over = found.get("over_tasks") or {"kept": {BASE: {}}}
    rows: list[list[Cell]] = []
    for label, pick in (
        ("free", lambda reading: reading["free"]),
        ("among labels", lambda reading: reading["among"]),
        *((name, lambda reading, n=name: reading["matched"].get(n)) for name in names),
    ):
        values = [pick(reading) for reading in now.values()]
        mean = None if None in values or not values else sum(values) / len(values)
        left = _estimate(over["kept"][BASE].get(label, {}), ".0f")
        cells = [_number(value) for value in values]
        rows.append(
            [label, *cells, _number(mean), left, source_marks(label) if label in names else ""]
        )
    notes = [
        "in per cent of test examples after the last stage, by where the offsets come from "
        "(docs/explain.md); kept: of the way over all earlier tasks",
    ]
    columns = ["offsets from", *now, "mean", "kept (%)", "needs"]
    return Table("sources", "What offsets bring back", columns, rows if now else [], notes)


def _relearned(found: Json) -> Table:
    rows: list[list[Cell]] = []
    for name, right in (found.get("relearned") or {}).items():
        readings = found["tasks"][name]["readings"]
        then = next(r for r in readings if r["when"] == "right after it")
        pairs = [(r["free"], r["among"]) for r in (then, readings[-1], right)]
        rows.append(
            [name, *(_number(value) for pair in zip(*pairs, strict=True) for value in pair)]
        )
    columns = ["task"]
    for reading in ("free", "among"):
        columns += [f"{reading} then", f"{reading} now", f"{reading} relearned"]
    notes = ["relearned: after a few steps on a few examples of the task, on a copy"]
    return Table("relearned", "What a few examples bring back", columns, rows, notes)


def _free_text(found: Json) -> Table:
    rows: list[list[Cell]] = []
    for name, stages in found["free_text"].items():
        for lost in stages:
            f1 = [_number(value) for value in lost["f1"]]
            shares = [_number(lost[key]) for key in ("then", "now")]
            of_lost = [_number(lost[key]) for key in ("found", "first", "form")]
            counts = f"{lost['lost']} − {lost['won']}"
            rows.append(
                [
                    name,
                    lost["after"],
                    *shares,
                    *f1,
                    counts,
                    *of_lost,
                    _number(lost["length"], ".2f"),
                ]
            )
    columns = ["task", "after", "exact then", "exact now", "F1 then", "F1 now", "lost − won"]
    columns += ["found (%)", "first word (%)", "form (%)", "length"]
    notes = [
        "of the lost answers: found: at least half of the words are right (F1); first word: the "
        "same as the right one's; form: alike in size, beginning and end; length: words now per "
        "word then",
    ]
    return Table("free-text", "Free answers", columns, rows, notes)


def _number(value: float | None, form: str = ".1f") -> Cell:
    return None if value is None else Value(value, form=form)


def _estimate(value: Json, form: str) -> Cell:
    if value.get("value") is None:
        return None
    return Value(value["value"], low=value.get("low"), high=value.get("high"), form=form)
