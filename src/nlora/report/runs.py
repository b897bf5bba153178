"""The runs of some ledgers, side by side: by model, precision and budget, method, stream, seed."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from nlora.data.streams import STREAMS
from nlora.errors import NloraError, unknown
from nlora.methods.settings import FREE, Settings
from nlora.report import ledger

ZERO_SHOT = "zero-shot"
_LISTED = 5
"""How many rows that are left out are listed."""

log = logging.getLogger("nlora")


@dataclass(frozen=True)
class Run:
    """A row of a ledger."""

    row: dict[str, Any]
    place: str
    """File and line, for messages."""
    stream: str
    label: str
    """The method, with the settings that are part of its name."""
    seed: int

    @property
    def error(self) -> str | None:
        """Why there are no numbers."""
        return self.row.get("error")

    @property
    def untrained(self) -> bool:
        """Whether there is nothing but the zero-shot row."""
        return untrained(self.label)

    @property
    def trained(self) -> list[str]:
        """The tasks, in order, without those that are only tested."""
        others = self.row.get("only_tested", {})
        return [task for task in self.row["tasks"] if task not in others]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as resolved."""
        return self.row["configuration"]["settings"]

    @property
    def budget(self) -> tuple[Any, ...]:
        """What must be equal for numbers to stand in one table."""
        c = self.row["configuration"]
        precision, base = c["settings"].get("precision"), self.row["base"]
        own = json.dumps(c["budgets"], sort_keys=True) if c.get("budgets") else None
        return (
            base.get("title"),
            base.get("revision") or c.get("model"),
            precision,
            c["max_train"],
            c["max_eval"],
            own,
        )


def untrained(label: str) -> bool:
    """Whether a label is that of the model as it is."""
    return label.split(":")[0] == ZERO_SHOT


_WITHOUT = {name: Settings.model_fields[name].default for name in FREE}
"""What settings of every method are where a row does not name them."""


@dataclass
class Section:
    """The runs of one model in one precision with one budget: what makes one set of tables."""

    title: str
    runs: list[Run]
    cells: dict[tuple[str, str], list[Run]] = field(init=False)
    """The finished runs of a method on a stream, by seed."""

    def __post_init__(self) -> None:
        self.cells = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            if run.error is None:
                self.cells.setdefault((run.label, run.stream), []).append(run)

    @property
    def methods(self) -> list[str]:
        """Labels in the order in which they came, without the zero-shot rows."""
        return [
            label for label in dict.fromkeys(run.label for run in self.runs) if not untrained(label)
        ]

    @property
    def streams(self) -> list[str]:
        """Those that have a name first."""
        found = list(dict.fromkeys(run.stream for run in self.runs))
        known = [name for name in STREAMS if name in found]
        return known + [name for name in found if name not in STREAMS]

    def of(self, label: str, stream: str | None = None) -> list[Run]:
        """The finished runs of a method, on one stream or on all."""
        streams = self.streams if stream is None else [stream]
        return [run for s in streams for run in self.cells.get((label, s), [])]

    def paired(self, one: str, other: str) -> "Section":
        """The runs of two methods on the streams and with the seeds that both have."""
        have = [{(run.stream, run.seed) for run in self.of(label)} for label in (one, other)]
        runs = [*self.of(one), *self.of(other)]
        return Section(self.title, [r for r in runs if (r.stream, r.seed) in have[0] & have[1]])

    def failures(self) -> list[str]:
        """A line for each run that failed."""
        failed = [run for run in self.runs if run.error]
        return [
            shorten(f"failed: {r.label} on {r.stream}, seed {r.seed}: {r.error}", 200)
            for r in failed
        ]


def sections(paths: Sequence[Path], methods: Sequence[str] = ()) -> list[Section]:
    """The runs of these ledgers, those of some methods if any are named.

    Raises NloraError for what is no ledger, for an unknown method, and for rows that cannot stand
    in one table: different runs of one method on one stream with one seed, or seeds and streams of
    one method that were run with different settings.
    """
    runs = [run for path in paths for run in runs_of(path)]
    if not runs:
        raise NloraError(f"{', '.join(map(str, paths))}: no runs")
    return in_sections(runs, methods)


def in_sections(runs: Sequence[Run], methods: Sequence[str] = ()) -> list[Section]:
    """`sections` of runs that were read already."""
    known = {run.label for run in runs}
    for name in methods:
        if name not in known:
            raise unknown("method in the ledger", name, known)
    wanted = {*methods} or known
    by_budget: dict[tuple[Any, ...], list[Run]] = {}
    for run in _by_tasks(runs):
        if run.label in wanted or untrained(run.label):
            by_budget.setdefault(run.budget, []).append(run)
    dropped: list[str] = []
    made = [Section(_title(b), _unique(found, dropped)) for b, found in by_budget.items()]
    if dropped:
        more = f"; and {len(dropped) - _LISTED} more" if len(dropped) > _LISTED else ""
        listed = "; ".join(dropped[:_LISTED])
        log.warning("%d of %d rows are left out: %s%s", len(dropped), len(runs), listed, more)
    return made


def _by_tasks(runs: Sequence[Run]) -> list[Run]:
    """Streams of one name that are of other tasks, as in ledgers of two people, name these, too."""
    tasks = [",".join(run.row["configuration"]["tasks"]) for run in runs]
    known: dict[str, set[str]] = {}
    for run, names in zip(runs, tasks, strict=True):
        known.setdefault(run.stream, set()).add(names)
    return [
        replace(run, stream=f"{run.stream} ({names})") if len(known[run.stream]) > 1 else run
        for run, names in zip(runs, tasks, strict=True)
    ]


def runs_of(path: Path) -> Iterable[Run]:
    """The runs of a ledger. Raises NloraError for what is none."""
    for number, row in enumerate(ledger.read(path), start=1):
        yield of_row(row, f"{path}, row {number}")


def of_row(row: dict[str, Any], place: str) -> Run:
    """The run of a row; a row of a single run has no name but its method's and its tasks'."""
    configuration = row["configuration"]
    tasks = configuration["tasks"]
    named = [name for name, order in STREAMS.items() if list(order) == tasks]
    cell = row.get("cell") or {}
    return Run(
        row=row,
        place=place,
        stream=cell.get("stream") or (named or [",".join(tasks)])[0],
        label=cell.get("method") or configuration["method"],
        seed=configuration["seed"],
    )


def _title(budget: tuple[Any, ...]) -> str:
    title, _, precision, train, test, own = budget
    sizes = [f"{n} {kind}" for n, kind in ((train, "training"), (test, "test")) if n is not None]
    counted = f"at most {' and '.join(sizes)} examples a task" if sizes else "all examples"
    if own is not None:
        counted += f", but for {', '.join(json.loads(own))}, with budgets of their own"
    return ", ".join(filter(None, (title, precision, counted)))


def _unique(runs: list[Run], dropped: list[str]) -> list[Run]:
    """Without repetitions; a failed run gives way to one that did not. What goes is `dropped`."""
    kept: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        key = (run.label, run.stream, run.seed)
        old = kept.get(key)
        if old is None or old.error:
            kept[key] = run
            if old is not None:
                dropped.append(f"{old.place}: a failed run that was done again")
        elif run.error:
            dropped.append(f"{run.place}: a failed run that was done again")
        elif run.row.get("hash") != old.row.get("hash"):
            raise NloraError(
                f"{old.place} and {run.place} are different runs of {run.label} on {run.stream} "
                f"with seed {run.seed}{_difference(old, run)}; make their tables separately"
            )
        elif run.row.get("accuracy_matrix") == old.row.get("accuracy_matrix") and (
            run.row.get("average_accuracy") == old.row.get("average_accuracy")
        ):
            dropped.append(f"{run.place}: the run of {old.place} once more")
        else:
            dropped.append(
                f"{run.place}: the run of {old.place}, once more with other numbers; the first "
                "counts"
            )
    first: dict[tuple[str, str], Run] = {}
    for run in (run for run in kept.values() if not run.error):
        other = first.setdefault((run.label, run.stream), run)
        if difference := _difference(other, run):
            raise NloraError(
                f"{other.place} and {run.place} are seeds of {run.label} on {run.stream} with "
                f"different settings{difference}; make their tables separately"
            )
    return list(kept.values())


def _difference(a: Run, b: Run) -> str:
    """The first setting that differs, for a message; one that only one has by what it is without,
    where that is known."""
    for name in dict.fromkeys([*a.settings, *b.settings]):
        one, two = (run.settings.get(name, _WITHOUT.get(name, ...)) for run in (a, b))
        if ... not in (one, two) and one != two:
            return f" ({name} {one!r} and {two!r})"
    return ""
