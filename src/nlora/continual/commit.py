"""What of a stage is written to the model directory."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nlora import processes
from nlora.continual.scored import draft_scores
from nlora.continual.tasks import brought
from nlora.data.task import TaskData
from nlora.evaluation.answers import Prediction, among_labels, off_list
from nlora.evaluation.metrics import by_label
from nlora.machine import peak_memory, versions
from nlora.methods.context import Stage
from nlora.store.atomic import draft_text
from nlora.store.records import Part, StageRecord, now, taken_out
from nlora.store.shelf import Shelf
from nlora.store.state import write_state


def record_of(stage: Stage, **more: Any) -> StageRecord:
    """The record of a stage that was learned, before it is tested."""
    return StageRecord(
        index=stage.index,
        name=stage.name,
        tasks=[data.task.to_json() for data in stage.tasks],
        fingerprints={data.name: data.fingerprint() for data in stage.tasks},
        sources={data.name: dict(data.origin) for data in stage.tasks if data.origin},
        seed=stage.seed,
        **more,
    )


def commit(
    model: Any,
    record: StageRecord,
    answers: Mapping[str, Sequence[Prediction]],
    kept: Sequence[TaskData],
    losses: Sequence[Mapping[str, float]] | None = None,
    update: bool = True,
    directory: Shelf | None = None,
) -> None:
    """Write a stage of a `ContinualModel`, as `filled` says.

    `directory` is another place than the model's. The main process alone writes.
    """
    write = filled(model, record, answers, kept, losses, update)
    place = directory or model.directory
    processes.on_main(lambda: place.commit(record, write))


def filled(
    model: Any,
    record: StageRecord,
    answers: Mapping[str, Sequence[Prediction]],
    kept: Sequence[TaskData],
    losses: Sequence[Mapping[str, float]] | None = None,
    update: bool = True,
) -> Callable[[Path], None]:
    """What fills the folder of a stage: its answers and losses, update and state; the record says
    what follows from the answers.

    The test examples of the `kept` tasks are kept. Without `losses` nothing was trained, and there
    is no update. With `update` off the stage brings none, but a state. It writes the model as it
    stands then.
    """
    record.tested = {task: len(rows) for task, rows in answers.items()}
    listed = {data.name: data.task.labels for data in model.stream}
    asked = {task: known for task in answers if (known := listed.get(task)) is not None}
    record.by_label = {task: by_label(answers[task], known) for task, known in asked.items()}
    record.off_list = {task: off_list(answers[task], known) for task, known in asked.items()}
    likely = {task: found for task in asked if (found := among_labels(answers[task]))}
    record.among_labels = model.measured(likely)
    record.parts = _parts(model, answers, likely)
    read = {d.name: {"bad_rows": d.bad_rows, "notes": list(d.notes)} for d in kept if d.notes}
    if read:
        record.notes["reading"] = read
    record.peak_memory_bytes = peak_memory()
    record.versions = versions()
    record.finished = now()

    def write(folder: Path) -> None:
        draft_text(folder / "predictions.jsonl", _jsonl(_answer_rows(answers)))
        draft_scores(model, answers, folder)
        tests = [e for data in kept for e in data.test]
        rows = [{"task": e.task.name, "text": e.text, "label": e.label} for e in tests]
        if tests:
            draft_text(folder / "test.jsonl", _jsonl(rows))
        if losses is None:
            return
        if update:
            draft_text(folder / "losses.jsonl", _jsonl(losses))
            model.adapter.save(folder / "update")
        (folder / "state").mkdir()
        write_state(folder / "state", model.method.state)
        if not any((folder / "state").iterdir()):
            (folder / "state").rmdir()

    return write


def _parts(
    model: Any, answers: Mapping[str, Sequence[Prediction]], likely: Mapping[str, Any]
) -> dict[str, dict[str, Part]]:
    """Of each task with several stages, how the tests that each stage brought were answered."""
    found: dict[str, dict[str, Part]] = {}
    out = taken_out(model.records)
    standing = [record for record in model.records if record.folder not in out]
    by_name: dict[str, list[TaskData]] = {}
    for data in model.stream:
        by_name.setdefault(data.name, []).append(data)
    for task in answers:
        stages = by_name.get(task, [])
        if len(stages) < 2:
            continue
        records = [r for r in standing if task in [known["name"] for known in r.tasks]]
        found[task] = {}
        for record, places in zip(records, brought(stages), strict=False):
            part = [answers[task][i] for i in places]
            beside = [likely[task][i] for i in places] if task in likely else None
            found[task][record.folder] = Part(
                rows=len(part),
                accuracy=model.measured({task: part})[task],
                among_labels=model.measured({task: beside})[task] if beside else None,
            )
    return found


def _answer_rows(answers: Mapping[str, Sequence[Prediction]]) -> list[dict[str, Any]]:
    return [
        {"task": task, "index": i, "text": p.text, "label": p.label, "correct": p.correct}
        | ({} if p.likely is None else {"likely": p.likely})
        for task, predictions in answers.items()
        for i, p in enumerate(predictions)
    ]


def _jsonl(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
