"""Tables of what `nlora compare --explain` found: what was lost, why, and how much is left."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from nlora.evaluation.statistics import COVERAGE
from nlora.report.accuracy import over_seeds
from nlora.report.footnotes import legend, marked
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value

Read = Callable[[Run], Any]

SELF_WRITTEN = ("self: answers, matched", "self: answers")
"""The sources of offsets that need no text of anybody's, the best that can be had first: answers to
what the base model writes are made what they were right after the task (`explain.sources`); the
second without training texts."""

_ZEROS, _KEPT = ("base", "before"), ("kept", "kept, from before")
_UNLISTED, _PROBED, _GONE = "off the list", "inaccessible", "gone"
_OWN, _TESTS = "train", "test"
"""The sources of offsets by which parts and ways are counted: the second where the first is not."""


def matched_by(matched: Collection[str]) -> str:
    """By which of the sources that there are parts and ways are counted."""
    return _OWN if _OWN in matched else _TESTS


def matched_on(used: Collection[str]) -> str:
    """For a caption: what the tasks' ways are matched on, of the sources that were used."""
    if _TESTS not in used:
        return "matched on the task's own training texts"
    if _OWN not in used:
        return (
            "matched on the task's test texts, an upper bound, since its training texts were not "
            "there"
        )
    return (
        "matched on the task's own training texts or, where they were not there, on its test texts "
        "(an upper bound), and where tasks are counted together then all of them so"
    )


def explained(section: Section) -> Table | None:
    """What answers are worth by each reading, what was lost, and what is kept, by stream."""
    runs = [run for run in section.runs if _has(run)]
    if not runs:
        return None
    parts = next((list(split) for run in runs if (split := _parts(run))), [])
    rows: list[list[Cell]] = []
    for stream, label, some in _groups(section):
        by = matched_by(set.intersection(*(set(_all(run)["matched"]) for run in some)))
        reads: list[Read] = [
            lambda run: _all(run).get("free"),
            lambda run: _all(run).get("among"),
            lambda run, by=by: _all(run)["matched"].get(by),
            lambda run: _first(_all(run)["matched"]),
        ]
        cells: list[Cell] = [over_seeds(some, read) for read in reads]
        cells += [over_seeds(some, read, "+.1f") for read in _losses(some, parts)]
        earlier = matched_by(set.intersection(*(_matched_now(run) for run in some)))
        cells += [_kept(some, lambda run, z=z, e=earlier: _left(_over(run), z, e)) for z in _ZEROS]
        cells.append(_kept(some, lambda run: _first(_over(run).get("kept", {}).get("base"))))
        rows.append([stream, marked(section, label), *cells, _seeds(some)])
    own = matched_on(_used(runs))
    notes = [
        "in per cent of test examples after the last stage, the mean over tasks with labels; free: "
        f"by the protocol; among: the most likely label; matched: with an offset per label, {own}; "
        "self: by what the base model writes, no text of any task",
        "lost and its parts: of the tasks before the last, in points since each was learned; kept: "
        "of the way from the base model, or the one that each task came to (before), to the one "
        f"right after it, {own} (self: now by what the base model writes); in %, with its "
        f"{COVERAGE:.0%} interval, or ± over seeds",
        "gone is what a probe does not read out; where not all seeds have one, what matching does "
        "not bring back",
        *legend(section, section.methods),
    ]
    columns = ["stream", "method", "free", "among", "matched", "matched, self", "lost", *parts]
    columns += [*_KEPT, "kept, self", "seeds"]
    return Table("explained", f"What was lost, and why. {section.title}", columns, rows, notes)


def explained_offsets(section: Section) -> Table | None:
    """What matching is worth by where the offsets come from, by stream."""
    runs = [run for run in section.runs if _has(run)]
    sources = list(dict.fromkeys(source for run in runs for source in _all(run)["matched"]))
    rows: list[list[Cell]] = []
    for stream, label, some in _groups(section):
        cells = [over_seeds(some, lambda run: _all(run).get("among"))]
        cells += [over_seeds(some, lambda run, s=s: _all(run)["matched"].get(s)) for s in sources]
        rows.append([stream, marked(section, label), *cells, _seeds(some)])
    if not sources:
        return None
    notes = [
        "right answers after the last stage (%), the mean over tasks with labels: the most likely "
        "label, and with an offset per label from those texts (test: an upper bound)",
        *legend(section, section.methods),
    ]
    columns = ["stream", "method", "among", *sources, "seeds"]
    return Table(
        "explained-offsets", f"Where offsets come from. {section.title}", columns, rows, notes
    )


def _losses(runs: list[Run], parts: Iterable[str]) -> list[Read]:
    """What reads the loss of one of these runs, and its parts; as if no probe had been taken where
    one of them has none, or a mean would mix what is gone by it with what matching does not bring
    back. Runs that are matched by other sources have no parts in common that depend on these."""
    alike = len({_by(task) for run in runs for task in _tasks(run).values()}) == 1
    probed = all(_parts(run).get(_PROBED) is not None for run in runs)

    def split(run: Run) -> dict[str, float | None]:
        found = dict(_parts(run))
        if not probed:
            unsaid = found.pop(_PROBED, None) or 0
            if (gone := found.get(_GONE)) is not None:
                found[_GONE] = gone + unsaid
        return found

    each: list[Read] = [
        lambda run, p=part: split(run).get(p) if alike or p == _UNLISTED else None for part in parts
    ]
    return [lambda run: _sum(split(run)), *each]


def explained_tasks(section: Section) -> Table | None:
    """The same task by task: how long each one's way is, and what is left of it."""
    rows: list[list[Cell]] = []
    for stream, label, some in _groups(section):
        for name in _tasks(some[0]):
            own = [run for run in some if name in _tasks(run)]
            rows.append([stream, marked(section, label), name, *_task_cells(own, name)])
    if not rows:
        return None
    notes = [
        "never, then, now: right answers (%) of the base model, right after the task and after the "
        f"last stage, {matched_on(_used(section.runs))}; way: then − never; kept: what of it is "
        "left; free and among: by the protocol and among the labels, now",
    ]
    columns = ["stream", "method", "task", "free", "among", "never", "then", "now", "way", *_KEPT]
    title = f"How much of each task is left. {section.title}"
    return Table("explained-tasks", title, columns, rows, notes)


def _task_cells(runs: list[Run], name: str) -> list[Cell]:
    by = matched_by(set.intersection(*(set(_tasks(r)[name]["then"]["matched"]) for r in runs)))

    def of(run: Run, moment: str) -> Mapping[str, Any]:
        task = _tasks(run)[name]
        return task.get(moment) or (task["then"] if moment == "now" else {})

    def matched(moment: str) -> Cell:
        return over_seeds(runs, lambda run: of(run, moment).get("matched", {}).get(by))

    return [
        over_seeds(runs, lambda run: of(run, "now")["free"]),
        over_seeds(runs, lambda run: of(run, "now")["among"]),
        *(matched(moment) for moment in ("never", "then", "now")),
        _kept(runs, lambda run: _tasks(run)[name]["way"]["base"], "+.1f"),
        *(_kept(runs, lambda run, z=z: _left(_tasks(run)[name], z, by)) for z in _ZEROS),
    ]


def _left(found: Mapping[str, Any], zero: str, by: str) -> Mapping[str, Any] | None:
    """What of the way from one of the zeros is left, by a source of offsets."""
    return found.get("kept", {}).get(zero, {}).get(by)


def _first(by_source: Mapping[str, Any] | None) -> Any:
    """What was found by the first of `SELF_WRITTEN` that there is."""
    return next((by_source[s] for s in SELF_WRITTEN if s in by_source), None) if by_source else None


def _by(task: Mapping[str, Any]) -> str:
    return matched_by(task["then"]["matched"])


def _used(runs: Iterable[Run]) -> set[str]:
    """The sources by which the tasks of some runs are counted."""
    return {_by(task) for run in runs if _has(run) for task in _tasks(run).values()}


def _kept(runs: list[Run], read: Callable[[Run], Any], form: str = ".0f") -> Cell:
    """An estimate: of one seed with its interval, of several their mean and spread."""
    if len(runs) > 1:
        return over_seeds(runs, lambda run: (read(run) or {}).get("value"), form)
    found = read(runs[0]) or {}
    if found.get("value") is None:
        return None
    return Value(found["value"], low=found.get("low"), high=found.get("high"), form=form)


def _groups(section: Section) -> Iterator[tuple[str, str, list[Run]]]:
    """By stream and method the runs that were explained, where there are any."""
    for stream in section.streams:
        for label in section.methods:
            if some := [run for run in section.of(label, stream) if _has(run)]:
                yield stream, label, some


def _has(run: Run) -> bool:
    """Whether a run was explained and has tasks with labels."""
    return run.error is None and bool(run.row.get("explained", {}).get("all_tasks"))


def _all(run: Run) -> Mapping[str, Any]:
    return run.row["explained"]["all_tasks"]


def _over(run: Run) -> Mapping[str, Any]:
    return run.row["explained"]["over_tasks"] or {}


def _matched_now(run: Run) -> set[str]:
    """The sources that all tasks before the last have now, by one of which their ways are."""
    return set((_over(run).get("now") or _all(run))["matched"])


def _parts(run: Run) -> Mapping[str, float | None]:
    return _over(run).get("parts", {})


def _tasks(run: Run) -> Mapping[str, Any]:
    return run.row["explained"]["tasks"]


def _sum(parts: Mapping[str, float | None]) -> float | None:
    return sum(v for v in parts.values() if v is not None) if parts else None


def _seeds(runs: list[Run]) -> str:
    return ", ".join(str(run.seed) for run in runs)
