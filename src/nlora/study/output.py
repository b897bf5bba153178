"""The folder of a comparison: what it was made from, its ledger, one process at a time.

compare.json     the grid: model, data, budget, settings as resolved; what is added must agree
ledger.jsonl     a row per finished cell, or its error
tuning.jsonl     a row per trial, where there is tuning
STREAM/METHOD/seed-N/    the model directory of each cell
tuning/          those of trials, by stream and method, while there is tuning
errors/          tracebacks of cells that failed for no fault of the user's
jobs/, rows/     jobs of a cluster, and the rows that they left (`study.cluster`)
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nlora.continual.agreement import FREE
from nlora.data.task import TaskData, digest
from nlora.errors import NloraError
from nlora.methods.parts.auto import automatic
from nlora.plan.config import LATER, with_todays_names
from nlora.plan.resolve import Choice, choose
from nlora.progress import Progress
from nlora.report import ledger
from nlora.store.atomic import check_creatable, write_json, write_text
from nlora.store.reading import Kind, check, read_json
from nlora.study.grid import Grid, stream_name

FORMAT = 1
FILE = "compare.json"
LEDGER, TUNING, ERRORS = "ledger.jsonl", "tuning.jsonl", "errors"
TRIALS = "tuning"
JOBS, ROWS = "jobs", "rows"
TRIAL = ("stream", "method", "trial")
"""What a row of `tuning.jsonl` is told by."""
DEV = " (dev)"
"""Behind a task's name, where its dev examples are told."""
_GROWS = ("data", "methods")
"""Streams and methods may be added to a grid; what is there already must be the same."""


class ComparedMethod(Kind):
    """A method of a grid, with all its settings."""

    settings: dict[str, Any]


class Compared(Kind):
    """`compare.json`."""

    settings: dict[str, Any]
    data: dict[str, dict[str, str]]
    methods: dict[str, ComparedMethod]


@contextmanager
def claimed(out: Path, grid: Grid) -> Iterator[None]:
    """Be the only comparison that writes here.

    Raises NloraError if another one is, if the folder holds something else, or a grid that
    disagrees; then nothing is changed.
    """
    path = out / FILE
    new = _described(grid)
    old = _read(out)
    _check_agreement(out, old, new)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            old = _read(out)  # another one may have been here a moment ago
            _check_agreement(out, old, new)
            write_json(path, {**new, **{part: _grown(old, new, part) for part in _GROWS}})
            yield
    except Timeout as error:
        raise NloraError(f"{out} is in use by another process") from error


def _grown(old: dict[str, Any], new: dict[str, Any], part: str) -> dict[str, Any]:
    known = old.get(part, {})
    return {**known, **{name: {**known.get(name, {}), **v} for name, v in new[part].items()}}


def check_grid(out: Path, grid: Grid) -> None:
    """Raise NloraError if the folder holds something else, or a grid that disagrees."""
    _check_agreement(out, _read(out), _described(grid))


def check_place(out: Path) -> None:
    """Raise NloraError if the folder holds something else than a comparison."""
    _read(out)


def record(out: Path, name: str, row: dict[str, Any], progress: Progress) -> None:
    """Write the row of the run `name`, a cell or a trial, and say so if it failed.

    The traceback of a bug is kept. An error of a cell that is finished (to explain it) changes
    nothing: the cell stands.
    """
    row = dict(row)
    trace = row.pop("traceback", None)
    path, same = (out / TUNING, TRIAL) if "trial" in row else (out / LEDGER, ("cell",))
    if "error" in row:
        row["error"] = str(row["error"]).replace(f"{out.absolute()}/", "").replace(f"{out}/", "")
        if path.name == LEDGER and _is_finished(path, row["cell"]):
            progress.message(f"{name} is not explained: {row['error']}")
            return
        progress.message(f"{name} failed: {row['error']}")
    ledger.write(path, row, same)
    if trace:
        path = out / ERRORS / f"{flat(name)}.txt"
        path.parent.mkdir(exist_ok=True)
        write_text(path, trace)
        progress.message(f"the traceback is in {path}")


def remove_empty(folder: Path) -> None:
    """Remove a folder and those in it, as far as they hold no file."""
    for path in sorted([folder, *folder.rglob("*")], reverse=True):
        with suppress(OSError):
            path.rmdir()


def flat(name: str) -> str:
    """A run's name as that of a file; no folder of a grid has spaces in it (`grid.folder`)."""
    return name.replace("/", " ")


def _is_finished(path: Path, cell: dict[str, Any]) -> bool:
    rows = ledger.lines(path) if path.is_file() else ()
    return any(row.get("cell") == cell and "error" not in row for row in rows)


def _described(grid: Grid) -> dict[str, Any]:
    model = grid.base
    choices = _choices(grid)
    dev = grid.tune > 0 or any(automatic(choice.method.settings) for _, choice in choices.values())
    return {
        "format": FORMAT,
        "model": {"title": model.title, "revision": model.weights},
        "max_train": grid.max_train,
        "max_eval": grid.max_eval,
        "evaluate": grid.evaluate,
        "tune": grid.tune,
        "settings": grid.common,
        "data": {name: _data(tasks, dev) for name, tasks in grid.tasks.items()},
        "methods": {
            label: {"method": method, "settings": choice.settings()}
            for label, (method, choice) in choices.items()
        },
    }


def _data(tasks: Sequence[TaskData], dev: bool) -> dict[str, str]:
    """Fingerprints of the tasks, and where they decide numbers of their dev examples."""
    found = {data.name: data.fingerprint() for data in tasks}
    if dev:
        found |= {f"{data.name}{DEV}": digest([e.to_json() for e in data.dev]) for data in tasks}
    return found


def _choices(grid: Grid) -> dict[str, tuple[str, Choice]]:
    """Every method with all its settings, so that a default that changes is noticed; on each stream
    by itself where recipes make them differ."""
    pairs = (
        {p.label: (grid.streams[0], p) for p in grid.points}
        if grid.recipes is None
        else {f"{p.label} on {stream_name(s)}": (s, p) for s, p in grid.pairs()}
    )
    return {
        label: (p.method, choose(grid.config(s, p, grid.seeds[0]), grid.base.recommended))
        for label, (s, p) in pairs.items()
    }


def _read(out: Path) -> dict[str, Any]:
    """`compare.json`, or nothing where the place is free or nothing was done in it."""
    path = out / FILE
    if path.is_file():
        value = read_json(path)
        if value.get("format") != FORMAT:
            raise NloraError(f"{path} is not a comparison's; choose another folder")
        check(Compared, value, path)
        return _with_todays_names(value) if _used(out) else {}
    if out.is_dir():
        if any(p.name != ".lock" and not p.name.startswith(f".{FILE}-") for p in out.iterdir()):
            raise NloraError(
                f"{out} is not a comparison's folder (no {FILE}) but not empty; choose another"
            )
    elif out.exists() or out.is_symlink():
        raise NloraError(f"{out} is a file; a folder is needed here")
    else:
        check_creatable(out)
    return {}


def _with_todays_names(grid: dict[str, Any]) -> dict[str, Any]:
    """The grid of an earlier version of nlora, its settings under today's names."""
    methods = {
        label: {**method, "settings": with_todays_names(method["settings"])}
        for label, method in grid["methods"].items()
    }
    return {**grid, "settings": with_todays_names(grid["settings"]), "methods": methods}


def _used(out: Path) -> bool:
    """Whether there is anything that another grid would spoil: a mistyped one begins nothing."""
    if any((out / JOBS).glob("*.json")):
        return True
    done = out / LEDGER
    rows = ledger.lines(done) if done.is_file() else ()
    runs = ("*/*/*", f"{TRIALS}/*/*/*")
    stages = (stage for run in runs for stage in out.glob(f"{run}/stages/*/stage.json"))
    return (out / TUNING).exists() or any("error" not in r for r in rows) or any(stages)


def _check_agreement(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise NloraError if what both have is not the same; settings that are newer may be added."""
    pairs = [(name, old[name], new.get(name)) for name in old if name not in _GROWS]
    pairs += [
        (
            f"{part}: {name}",
            _compared(_without_dev(old[part][name], new[part][name])),
            _compared(
                _without_dev(new[part][name], old[part][name]), old[part][name].get("settings")
            ),
        )
        for part in _GROWS
        for name in old.get(part, {}).keys() & new[part].keys()
    ]
    if known := old.get("methods"):
        pairs.append(("settings by stream, of a recipe", *map(_by_stream, (known, new["methods"]))))
    for name, a, b in sorted(pairs, key=lambda pair: pair[0]):
        if a != b:
            while isinstance(a, dict) and isinstance(b, dict):
                key = next(k for k in {**a, **b} if a.get(k, ...) != b.get(k, ...))
                name, a, b = f"{name}: {key}", a.get(key), b.get(key)
            raise NloraError(
                f"{out} holds a grid that disagrees with this one ({name} {a!r}, not {b!r}); "
                "choose another folder"
            )


def _without_dev(value: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Without dev examples that the other one says nothing of: they decided nothing there."""
    return {k: v for k, v in value.items() if k in other or not k.endswith(DEV)}


def _by_stream(methods: Collection[str]) -> bool:
    """Whether methods are told apart by stream, as they are where a recipe sets them."""
    return any(" on " in label for label in methods)


def _compared(value: dict[str, Any], known: Collection[str] | None = None) -> dict[str, Any]:
    """A stream or a method without settings that no number depends on, nor those not `known`.

    There were fewer when the folder was begun; of some it is known what they were (`LATER`).
    """
    if "settings" not in value:
        return value
    settings = {
        k: v
        for k, v in {**LATER, **value["settings"]}.items()
        if k not in FREE and (known is None or k in known or k in LATER)
    }
    return {**value, "settings": settings}
