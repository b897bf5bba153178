"""`nlora explain`: what a model has lost of its tasks after later ones, and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlora import processes
from nlora.continual.agreement import stored_plan
from nlora.continual.offsets import correction, in_force
from nlora.continual.self_written import self_written, written_by_label
from nlora.data.task import TaskData, digest
from nlora.errors import NloraError
from nlora.evaluation.matching import Correction
from nlora.explain.asked import Learned, Options, Questions, learned
from nlora.explain.examples import examples_of
from nlora.explain.explained import Found, all_tasks, over_tasks
from nlora.explain.free_text import free_text
from nlora.explain.looks import Looks
from nlora.explain.readings import Kept, kept_answers, moved, readings
from nlora.explain.texts import neutral_texts
from nlora.progress import NoProgress, Progress
from nlora.store.atomic import write_json
from nlora.store.directory import ModelDirectory
from nlora.store.records import StageRecord, committed

FORMAT = 1
FOLDER, FILE, FILE_ON_DEV = "explain", "explained.json", "explained-on-dev.json"


def explain(
    path: Path,
    options: Options | None = None,
    progress: Progress | None = None,
    stream: Sequence[TaskData] | str | None = None,
    data: Path | None = None,
) -> dict[str, Any]:
    """What the model in a folder has lost of each task, and why; also RUN/explain/explained.json.

    Training and dev examples are those of the `stream` (a name, or the tasks themselves) in `data`,
    by default read where they were learned from. What was measured before is
    not measured again. Raises NloraError if there is no model, if it has learned nothing, or for
    options that cannot be.
    """
    if processes.count() > 1:
        raise NloraError("`nlora explain` runs in one process, without torchrun")
    options = (options or Options()).checked()
    progress = progress or NoProgress()
    directory = ModelDirectory(path)
    plan = stored_plan(directory)
    folder = path / FOLDER
    neutral = neutral_texts(options.neutral, options.texts) if options.neutral else []
    known = examples_of(directory, stream, data, progress)
    from nlora.continual.model import ContinualModel  # slow, and not for what is refused
    from nlora.explain.alignment import aligned

    model = ContinualModel.begin(plan, directory, progress)
    tasks = learned(model, known, options)
    listed = [task for task in tasks if task.data.task.labels is not None]
    wants_own = "self" in options.kinds and listed
    place = folder / "self-written.json"
    written = self_written(model, options.texts, place) if wants_own else []
    if wants_own and not written:
        progress.message("the base model writes no texts of its own; 'self' is left out")
    by_label = {
        task.data.name: written_by_label(
            model, task.data.task, options.texts, folder / f"by-label-{digest(task.data.name)}.json"
        )
        for task in listed
        if "by-label" in options.kinds
    }
    by_stage: dict[int, list[TaskData]] = {}
    for task in tasks:
        by_stage.setdefault(task.stage, []).append(task.data)
    questions = Questions(options, neutral, written, by_label, by_stage)
    looks = Looks(model, folder, on="dev" if options.on_dev else "test")
    looks.take(pair for task in listed for pair in questions.looks(task).items())
    pulled = aligned(looks, tasks, options.gradients)
    kept = {} if options.on_dev else kept_answers(directory)
    names = {0: "the base model", **{record.index: record.name for record in model.records}}
    explained = [
        Found(
            task,
            readings(task, questions, looks.found, kept, _standing(model.records, task)),
            names,
            moved(task, looks.found, pulled.get(task.data.name, {})),
        )
        for task in listed
    ]
    last = len(model.records)
    found = {
        "format": FORMAT,
        "method": plan.config.method,
        "stages": [record.name for record in model.records],
        "committed": committed(model.records),
        "on": "dev" if options.on_dev else "test",
        "texts": options.texts,
        "kinds": list(options.kinds),
        "tasks": {task.known.data.name: task.to_json() for task in explained},
        "free_text": _free_text(tasks, kept, names),
        "over_tasks": over_tasks(explained, last),
        "all_tasks": all_tasks(explained, last),
    }
    if options.relearn:
        from nlora.explain.relearn import relearned

        found["relearned"] = relearned(looks, listed, options.relearn)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / (FILE_ON_DEV if options.on_dev else FILE), found)
    return found


def is_of_today(found: Mapping[str, Any], directory: ModelDirectory) -> bool:
    """Whether what `explain` has found is of a folder's stages as they are now.

    Files of earlier versions say no times; there the names of the stages must be the same.
    """
    records = directory.stages()
    if "committed" in found:
        return found["committed"] == committed(records)
    return found["stages"] == [record.name for record in records]


def _free_text(tasks: Sequence[Learned], kept: Kept, names: dict[int, str]) -> dict[str, Any]:
    """By task without labels, what was lost after each later stage."""
    found: dict[str, Any] = {}
    for task in tasks:
        name = task.data.name
        if task.data.task.labels is not None or name not in kept.get(task.stage, {}):
            continue
        then = kept[task.stage][name]
        found[name] = [
            {"after": names[stage], "stage": stage, **free_text(then, answers[: len(then)])}
            for stage in task.later
            if (answers := kept.get(stage, {}).get(name))
        ]
    return found


def _standing(records: Sequence[StageRecord], known: Learned) -> dict[int, Correction]:
    """The offsets of a task that are a part of the model, by the stages after which they are."""
    found = {stage: in_force(records[:stage]).get(known.data.name) for stage in known.stages}
    return {s: correction(one, known.labels) for s, one in found.items() if one is not None}
