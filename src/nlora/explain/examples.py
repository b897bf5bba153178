"""The examples that a model was trained on, read again: a model directory keeps none of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlora.continual.again import again
from nlora.data.origin import read_again
from nlora.data.streams import load_stream
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, first_line
from nlora.plan.budgets import LIMITS
from nlora.plan.config import RunConfig, absolute, stored_config
from nlora.plan.resolve import sampled
from nlora.progress import Progress
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import taken_out


def examples_of(
    directory: ModelDirectory,
    stream: Sequence[TaskData] | str | None,
    data: Path | None,
    progress: Progress,
) -> list[TaskData]:
    """The tasks with the training examples that they were learned from, where they can be found.

    In the `stream` that is given, else in the files that a stage's record names, else in the stream
    that the directory was begun with. What cannot be found is told, and done without. Raises
    NloraError for a `stream` that was asked for and is none, or has none of the tasks. What a stage
    that was not accepted was trained on, no model has learned; what was taken out, no longer.
    """
    config, records = stored_config(directory), directory.stages()
    if stream is not None:
        there = _of(stream, data, config)
        _check_some(there, records)
    else:
        named = {name for record in records for name in record.fingerprints}
        sources = {name for record in records for name in record.sources}
        there = _begun_with(config, data, progress) if named - sources else {}
    found, earlier = [], {}
    seen: dict[str, set[str]] = {}
    """Texts of a task that any of its stages was trained or tested on."""
    unread: set[str] = set()
    """Tasks with a stage of which that is not known."""
    out = taken_out(records)
    for record in (r for r in records if r.folder not in out):
        limits = {name: (record.budget or config.model_dump()).get(name) for name in LIMITS}
        tasks = {value["name"]: Task.from_json(value) for value in record.tasks}
        accepted = "rejected" not in record.notes
        for name, fingerprint in record.fingerprints.items() if accepted else ():
            source = record.sources.get(name) if stream is None else None
            whole = there.get(name) if source is None else _read(name, source, earlier, progress)
            if whole is None:
                unread.add(name)
                continue
            used = sampled(whole, config.model_copy(update=limits))
            if used.fingerprint() == fingerprint:
                texts = seen.setdefault(name, set())
                texts |= {e.text for split in (whole.test, used.train) for e in split}
                found.append(replace(used, dev=_fresh(whole, texts, name not in unread)))
            else:
                unread.add(name)
                progress.message(
                    f"'{name}': these are not the examples that it was learned from, so its "
                    "training texts are left out"
                )
        earlier |= tasks
    return found


def _of(
    stream: Sequence[TaskData] | str, data: Path | None, config: RunConfig
) -> dict[str, TaskData]:
    if isinstance(stream, str):
        place = Path(absolute(str(data))) if data else Path(config.data) if config.data else None
        stream = load_stream(stream, place)
    return {known.name: known for known in stream}


def _begun_with(config: RunConfig, data: Path | None, progress: Progress) -> dict[str, TaskData]:
    """The tasks of the stream that a directory was begun with."""
    if config.stream is None:
        progress.message(
            "the folder does not say where all its training examples are (--stream NAME or "
            "FILE.yaml does): of the others, sources that need them, and the probe, are left out"
        )
        return {}
    try:
        return _of(config.stream, data, config)
    except NloraError as error:
        progress.message(f"no training examples, so no probe and fewer sources: {error}")
        return {}


def _check_some(there: Mapping[str, TaskData], records: Sequence[StageRecord]) -> None:
    """Raise NloraError if none of the tasks that were learned are there."""
    trained = list(dict.fromkeys(name for record in records for name in record.fingerprints))
    if trained and there.keys().isdisjoint(trained):
        raise NloraError(
            f"the stream has none of the tasks that were learned here: {', '.join(trained)}; it "
            f"has {', '.join(there)}"
        )


def _read(
    name: str, source: Mapping[str, Any], earlier: Mapping[str, Task], progress: Progress
) -> TaskData | None:
    """The task as its files are now, asked as one of the `earlier` tasks that it went on from."""
    try:
        found = read_again(source)
        return again(earlier[name], found) if name in earlier else found
    except NloraError as error:
        progress.message(
            f"'{name}': its training texts are left out, since they cannot be read again "
            f"(--stream says where they are): {first_line(error)}"
        )
        return None


def _fresh(whole: TaskData, seen: Collection[str], all_known: bool) -> tuple[Example, ...]:
    """Dev examples that are neither tested nor trained on; else training examples not used, where
    it is known of all stages which these are."""
    fresh = tuple(e for e in whole.dev if e.text not in seen)
    return fresh or tuple(e for e in whole.train if all_known and e.text not in seen)
