"""What a page is made from: runs in sections, the folders of their models, and what is missing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nlora.continual.history import history
from nlora.errors import NloraError
from nlora.report.ledger import rounded
from nlora.report.runs import Run, Section, in_sections, of_row, runs_of
from nlora.report.schema_explained import Explained
from nlora.store.directory import ModelDirectory
from nlora.store.reading import check, read_json
from nlora.store.records import committed
from nlora.study.grid import folder, stream_name
from nlora.study.output import LEDGER
from nlora.study.rows import described


@dataclass
class Material:
    """Sections, the runs whose models are there, and a line for whatever is not finished."""

    sections: list[Section] = field(default_factory=list)
    models: dict[str, Path] = field(default_factory=dict)
    """The model directory of a run by its `place`, where it is there."""
    failed: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    """What was measured of a model as it was before."""
    growing: bool = False
    """Whether there may be more later: a run is not finished, or more may be added to a grid."""

    def model(self, run: Run) -> ModelDirectory | None:
        """The folder of a run, if it is there."""
        path = self.models.get(run.place)
        return None if path is None else ModelDirectory(path)


def gather(paths: Sequence[Path]) -> Material:
    """What is known of model directories, folders of `nlora compare`, and ledgers.

    Raises NloraError for what is none of them, and for files that were changed.
    """
    found = Material()
    runs: list[Run] = []
    for path in paths:
        if (path / "model.json").is_file():
            runs += _alone(path, found)
        elif (path / "compare.json").is_file():
            runs += _grid(path, found)
            found.growing = True
        elif path.is_dir():
            raise NloraError(
                f"{path} is neither a model directory (model.json) nor a comparison (compare.json)"
            )
        else:
            runs += runs_of(path)
    found.sections = in_sections(_by_stages(_told_apart(runs))) if runs else []
    found.failed = [line for section in found.sections for line in section.failures()]
    found.growing = found.growing or bool(found.unfinished)
    return found


def _alone(path: Path, found: Material) -> Iterable[Run]:
    """The run of a model directory, as far as it is."""
    directory = ModelDirectory(path)
    line = _unfinished(directory)
    if line:
        found.unfinished.append(f"{path}: {line}")
    if not (path / "results.json").is_file():
        return
    document = directory.config()
    row = {**_as_it_stands(directory), **_explained(directory, found)}
    run = of_row(row, str(path))
    stream = document.get("stream")
    found.models[run.place] = path
    label = f"{run.label} (unfinished)" if line else run.label  # no seed of a finished one
    yield replace(run, label=label, stream=stream_name(stream) if stream else run.stream)


def _as_it_stands(directory: ModelDirectory) -> dict[str, Any]:
    """The row and the history of a directory, of the same stages though one come meanwhile."""
    while True:
        before = committed(directory.stages())
        row = rounded(described(directory, None), 12)
        row["history"] = history(directory)["stages"]
        if committed(directory.stages()) == before:
            return row


def _explained(directory: ModelDirectory, found: Material) -> dict[str, Any]:
    """What `nlora explain` has found of a run, as a ledger's row has it; nothing where it was not,
    or was asked of other stages than there are now, which is told.

    Raises NloraError where its file is damaged.
    """
    from nlora.explain.explain import FILE, FOLDER, is_of_today
    from nlora.explain.summary import summary

    path = directory.path
    file = path / FOLDER / FILE
    if not file.is_file():
        return {}
    try:
        read = read_json(file)
        if is_of_today(read, directory):
            told = summary(read)
            check(Explained, told, file)
            return {"explained": told}
        found.outdated.append(
            f"{path}: what `nlora explain` found is left out, since it is of other stages "
            f"({', '.join(read['stages'])}); `nlora explain {path}` asks again"
        )
        return {}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise NloraError(f"{file} is damaged; `nlora explain {path}` writes it anew") from error


def _grid(path: Path, found: Material) -> Iterable[Run]:
    """The finished cells of a comparison; those that were begun are named."""
    ledger = path / LEDGER
    places = set()
    for run in runs_of(ledger) if ledger.is_file() else ():
        place = path / folder(run.stream) / folder(run.label) / f"seed-{run.seed}"
        if not run.error:
            places.add(place)
            if (place / "model.json").is_file():
                found.models[run.place] = place
        yield run
    for begun in sorted(path.glob("*/*/seed-*/model.json")):
        if begun.parent not in places:
            line = _unfinished(ModelDirectory(begun.parent)) or "learned, and not in the ledger yet"
            found.unfinished.append(f"{begun.parent.relative_to(path)}: {line}")


def _unfinished(directory: ModelDirectory) -> str:
    """How far a run is that has not learned all its tasks; empty where it has."""
    planned = directory.config().get("tasks") or []
    records = directory.stages()
    learned = {task["name"] for record in records for task in record.tasks}
    missing = [name for name in planned if name not in learned]
    pending = directory.pending.record()
    if pending is not None:
        return f"'{pending.name}' is trained and not in force (nlora accept, or nlora discard)"
    if not missing or (not records and directory.config()["method"] == "zero-shot"):
        return ""
    done = len(planned) - len(missing)
    said = f"{done} of {len(planned)} tasks are learned" if done else "nothing is learned yet"
    return f"{said}; it is at work, or was stopped (the same command goes on with '{missing[0]}')"


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs of one method that were given as several folders are called by their folders, too."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, run in enumerate(runs):
        alike.setdefault((run.budget, run.label, run.stream, run.seed), []).append(number)
    told = list(runs)
    for numbers in alike.values():
        folders = [n for n in numbers if Path(runs[n].place).is_dir()]
        if len(numbers) > 1:
            for n, name in zip(folders, _differing([runs[n].place for n in folders]), strict=True):
                told[n] = replace(runs[n], label=f"{runs[n].label} ({name})")
    return told


def _differing(places: Sequence[str]) -> list[str]:
    """The ends of paths, as long as they must be to differ.

    >>> _differing(["a/out", "b/out", "/x/mine"])
    ['a/out', 'b/out', 'mine']
    """
    found = []
    for own in (parts := [Path(place).resolve().parts for place in places]):
        others = [other for other in parts if other != own]
        length = next(n for n in range(1, len(own) + 1) if own[-n:] not in [o[-n:] for o in others])
        found.append("/".join(own[-length:]))
    return found


def _by_stages(runs: Sequence[Run]) -> list[Run]:
    """Seeds of a method under one stream's name that have been through other stages go by these.

    Their columns are not of the same tasks, so no mean is over them.
    """
    known: dict[tuple[object, ...], set[str]] = {}
    keys = [(run.budget, run.label, run.stream) for run in runs]
    names = ["" if run.error else _named(run.row["stages"], run.row["tasks"]) for run in runs]
    for key, name in zip(keys, names, strict=True):
        if name:
            known.setdefault(key, set()).add(name)
    return [
        replace(run, stream=name) if name and len(known[key]) > 1 else run
        for run, key, name in zip(runs, keys, names, strict=True)
    ]


def _named(stages: Sequence[str], tasks: Sequence[str]) -> str:
    """Stages, and the tasks beside them, as the name of a stream.

    >>> _named(["mail", "news"], ["mail", "news"]), _named(["mail"], ["mail", "news"])
    ('mail,news', 'mail (and news)')
    """
    others = ",".join(task for task in tasks if task not in stages)
    return ",".join(stages) + (f" (and {others})" if others else "")
