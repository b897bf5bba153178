"""What is known of a model: results of its stages, a new measurement, its history, its answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from nlora.api.result import Result, Shown, number, numbers
from nlora.data.messages import conversation
from nlora.report.averaged import fewer, in_words
from nlora.report.table import Cell, Table, Value

if TYPE_CHECKING:
    from nlora.continual.answering import Answer

_METRICS = (
    *("average_accuracy", "learning_accuracy", "forgetting"),
    *("backward_transfer", "forward_transfer"),
)
_MEASURED = {
    "task": "task",
    "tests": "examples",
    "accuracy": "accuracy",
    "recorded": "recorded",
    "among labels": "among_labels",
    "off the list": "off_list",
}
_MOVED = {"own": "own task", "earlier": "earlier tasks", "only_tested": "only tested"}


class Results(Result):
    """`results.json`: the accuracy of every task after every stage, and what follows from it.

    >>> found = Results({"method": "n-lora", "tasks": ["mail"], "stages": ["mail"],
    ...     "zero_shot": None, "accuracy_matrix": [[50.0]], "average_accuracy": 50.0,
    ...     "learning_accuracy": 50.0, "forgetting": None, "backward_transfer": None,
    ...     "forward_transfer": None, "seconds": 1.0, "peak_memory_bytes": 0})
    >>> found.average_accuracy, found.records()
    (50.0, [{'number': 1, 'stage': 'mail', 'task': 'mail', 'accuracy': 50.0}])
    """

    @property
    def average_accuracy(self) -> float | None:
        """The mean over the learned tasks after the last stage, in per cent."""
        return self["average_accuracy"]

    @property
    def forgetting(self) -> float | None:
        """The mean of what each earlier task lost since its best, in points."""
        return self["forgetting"]

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, learned or only tested."""
        return self["tasks"]

    def records(self) -> list[dict[str, Any]]:
        """A row per stage and task that was tested then; stage number 0 is before training."""
        rows = enumerate(self._rows(), start=1)
        listed = [(i, stage, row) for i, (stage, row) in rows]
        if self["zero_shot"]:
            listed = [(0, "zero-shot", self["zero_shot"]), *listed]
        return [
            {"number": i, "stage": stage, "task": task, "accuracy": value}
            for i, stage, row in listed
            for task, value in zip(self["tasks"], row, strict=True)
            if value is not None
        ]

    def _rows(self) -> list[tuple[str, list[float | None]]]:
        """Each stage with its row of the matrix; none where the matrix was left out."""
        return list(zip(self["stages"], self["accuracy_matrix"], strict=False))

    def tables(self) -> list[Table]:
        """The accuracy matrix, the metrics, and what tasks lost that are only tested."""
        rows: list[list[Cell]] = []
        if self["zero_shot"]:
            rows.append(["zero-shot", *numbers(self["zero_shot"])])
        for stage, row in self._rows():
            rows.append([f"after {stage}", *numbers(row)])
        title = f"{self['method']}: accuracy (%)"
        made = [
            Table("accuracy", title, ["", *self["tasks"]], rows),
            Table("metrics", "", ["metric", "value"], self._metrics()),
        ]
        if again := [task for task in self["tasks"] if f"{task} (2)" in self["stages"]]:
            made[0].notes.append(
                f"{', '.join(again)}: on the tests of all its stages; `nlora history` has those of "
                "each stage apart, and forgetting is measured on these"
            )
        untrained = self.get("only_tested", {})
        if untrained:
            columns = ["only tested", "at first", "now", "lost"]
            lost = [[name, *numbers(list(v.values()))] for name, v in untrained.items()]
            made.append(Table("only-tested", "", columns, lost))
        made[-1].notes += self.get("routing", {}).get("unclear", [])
        return made

    def _metrics(self) -> list[list[Cell]]:
        rows: list[list[Cell]] = [[n.replace("_", " "), number(self[n])] for n in _METRICS]
        if among := self.get("among_labels"):
            name = f"average accuracy among labels{in_words(fewer(self, 'among_labels'))}"
            rows.insert(1, [name, number(among["average_accuracy"])])
        if off := self.get("off_list"):
            name = f"answers off the list (%){in_words(fewer(self, 'off_list'))}"
            rows.append([name, number(off["average"])])
        for name, value in self.get("kl", {}).items():
            if name != "matrix" and value is not None:
                said = f"KL to the model before, {_MOVED[name]}"
                rows.append([said, Value(value, form=".3f")])
        rows.append(["seconds", round(self["seconds"])])
        rows.append(["peak memory (MB)", self["peak_memory_bytes"] // 1_000_000])
        return rows


class Evaluation(Result):
    """What a model scores, by task; `answers` has every answer."""

    @property
    def accuracy(self) -> dict[str, float]:
        """Per cent, or what else a task is measured by, by task."""
        return {row["task"]: row["accuracy"] for row in self["tasks"]}

    def records(self) -> list[dict[str, Any]]:
        """A row per task."""
        keys = ("metric", *_MEASURED.values())
        return [{key: row.get(key) for key in keys} for row in self["tasks"]]

    def tables(self) -> list[Table]:
        """A line per task."""
        shown = dict(_MEASURED)
        if self["data"] is not None:  # nothing was recorded of it
            del shown["recorded"]
        of = f" on {self['data']}" if self["data"] else ""
        title = f"{self['path']} after stage {self['after']}{of} (%)"
        rows = [
            [v if isinstance(v := row[key], str | int) else number(v) for key in shown.values()]
            for row in self["tasks"]
        ]
        told = "recorded" in shown and self["named"]
        notes = ["accuracy: the task is told; recorded: it is found by the text"] if told else []
        if again := self.get("learned_again"):
            notes.append(
                f"nothing is recorded of {', '.join(again)} on these tests after that stage: later "
                "ones have brought more of them, and perhaps labels"
            )
        return [Table("evaluation", title, list(shown), rows, notes)]


class History(Result):
    """The stages of a model: data, when, accuracy then and now, what is kept of the data."""

    def records(self) -> list[dict[str, Any]]:
        """A row per stage and task; one also for a stage without any."""
        rows = []
        for stage in self["stages"]:
            for task in stage["tasks"] or [{}]:
                used = (task.get("rows") or {}).get("train")
                rows.append(
                    {
                        "stage": stage["stage"],
                        "task": task.get("name", stage["name"]),
                        "when": stage["when"],
                        "rows": None if used is None else used[0],
                        "of": None if used is None else used[1],
                        **{key: task.get(key) for key in ("then", "now", "forgotten")},
                        "bytes": stage["bytes"],
                        "state": stage["state"],
                    }
                )
        return rows

    def tables(self) -> list[Table]:
        """The stages, and tasks that are only tested."""
        columns = ["stage", "task", "when", "rows", "then", "now", "forgotten", "MB", "state"]
        title = f"{self['path']}: {self['method']} on {self['base']}, {_mb(self['bytes'])} MB"
        rows: list[list[Cell]] = []
        for row in self.records():
            used = row["rows"] if row["rows"] == row["of"] else f"{row['rows']}/{row['of']}"
            scores = numbers([row[key] for key in ("then", "now", "forgotten")])
            when = row["when"][:10]  # the time is in the record
            size = _mb(row["bytes"])
            rows.append([row["stage"], row["task"], when, used, *scores, size, row["state"]])
        made = [Table("history", title, columns, rows)]
        if not rows:
            made[0].notes.append("no stage is committed yet: `nlora learn` goes on as it was begun")
        names = [row["task"] for row in self.records()]
        if len(set(names)) < len(names):
            made[0].notes.append(
                "then, now, forgotten: on the tests that the stage brought; `learn` and `evaluate` "
                "show a task on the tests of all its stages"
            )
        lost = [[one["name"], *numbers([one["before"], one["now"]])] for one in self["only_tested"]]
        if lost:
            made.append(Table("only-tested", "", ["only tested", "at first", "now"], lost))
        if self["held"]:
            from nlora.continual.holding import told  # slow, and seldom needed

            made[-1].notes.append(told(self["path"], self["held"]))
        if self["matched"]:
            names = ", ".join(self["matched"])
            made[-1].notes.append(f"answers matched, by offsets that a repaired stage has: {names}")
        untrained = {one["name"] for one in self["only_tested"]}
        if shared := self["shared"]:
            each = ", ".join(f"{task} {count}" for task, count in shared.items())
            made[-1].notes.append(f"test examples that several stages brought count once: {each}")
        made[-1].notes += [*_kept(self["kept"], untrained), *map(undone, self["undone"])]
        return made


class Exported(Result):
    """What was measured of an export: what it lost, by matrix too, and how it compares."""

    def records(self) -> list[dict[str, Any]]:
        """A row per number or text, named by its keys."""
        return [{"what": what, "value": value} for what, value in _scalars(self.to_json())]

    def tables(self) -> list[Table]:
        """The same without the numbers of every matrix."""
        whole = {key: value for key, value in self.items() if key != "by_matrix"}
        rows: list[list[Cell]] = [
            [what, value if isinstance(value, str | int) else number(value, ".3g")]
            for what, value in _scalars(whole)
        ]
        return [Table("export", "", ["what", "value"], rows)]


class Answers(Shown, Sequence["Answer"]):
    """Answers to texts, in their order."""

    def __init__(self, found: Sequence[Answer]) -> None:
        self._found = list(found)

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...
    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        return self._found[index]

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._found)

    def records(self) -> list[dict[str, Any]]:
        """A row per text."""
        return [answer._asdict() for answer in self._found]

    def tables(self) -> list[Table]:
        """A line per text; long texts are cut."""
        rows: list[list[Cell]] = [
            [_short(a.text), a.task, None if a.answer is None else _short(a.answer), _sure(a)]
            for a in self._found
        ]
        return [Table("answers", "", ["text", "task", "answer", "probability"], rows)]


def as_row(answer: Answer) -> dict[str, Any]:
    """An answer as JSON; what was not asked for is left out."""
    values = answer._asdict()
    if (turns := conversation(answer.text)) is not None:
        del values["text"]
        values = {"messages": [turn for turn in turns if turn["content"]], **values}
    optional = ("probabilities", "reason", "alike")
    return {k: v for k, v in values.items() if v or k not in optional}


def _sure(answer: Answer) -> Cell:
    """How likely the answer is among the task's labels."""
    among: Mapping[str, float] = answer.probabilities or {}
    return number(among.get(answer.answer or ""), ".2f")


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 2]} …"


def _scalars(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The numbers and texts in a JSON value, each with its keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _scalars(inner, (*place, str(key)))
    elif isinstance(value, str | int | float):
        yield " ".join(place), value


def _kept(kept: Mapping[str, Mapping[str, int]], untrained: Collection[str]) -> list[str]:
    """What of the data lies in the directory, in words; `untrained` tasks are only tested."""
    words = {"test": "test examples", "train": "training examples in the method's memory"}
    lines = []
    for kind, counts in kept.items():
        if counts:
            each = ", ".join(f"{task} {count}" for task, count in counts.items())
            few = sum(task in untrained for task in counts)
            more = (
                f"; {few} of these tasks {'is' if few == 1 else 'are'} only tested" if few else ""
            )
            lines.append(f"kept: {sum(counts.values())} {words[kind]} ({each}{more})")
    return lines or ["kept: no example"]


def undone(rollback: Mapping[str, Any]) -> str:
    """A rollback that can be undone, in words."""
    return f"set aside (rollback {rollback['number']}): {', '.join(rollback['stages'])}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"
