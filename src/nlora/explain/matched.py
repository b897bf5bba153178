"""Answers taken back to what they were: offsets that need no text of a task once it is over.

What the model answered right after a task to texts that the base model writes by itself is noted,
matched on the task's own training texts if these can be read; an offset per label and one scale
make it answer so today. All of it is kept in the model's folder (`looks`).
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from nlora.continual.offsets import in_force
from nlora.continual.self_written import self_written
from nlora.errors import NloraError, option
from nlora.evaluation.matching import Correction
from nlora.explain.asked import Learned, Options, Questions, learned
from nlora.explain.examples import examples_of
from nlora.explain.explain import FOLDER
from nlora.explain.helps import helped
from nlora.explain.looks import Look, Looks
from nlora.explain.sources import Known, corrections
from nlora.report.explained import SELF_WRITTEN

if TYPE_CHECKING:
    from nlora.continual.model import ContinualModel

KIND = "self"


def matched(model: "ContinualModel", names: Collection[str]) -> dict[str, Correction]:
    """The correction of the model's scores for each of these tasks that has labels, by name.

    Raises NloraError if the base model writes no texts.
    """
    options = Options(kinds=("train", KIND), probe=0)
    folder = model.directory.path / FOLDER
    stream = examples_of(model.directory, None, None, model.progress)
    tasks = [
        task
        for task in learned(model, stream, options)
        if task.data.name in names and task.data.task.labels is not None
    ]
    if not tasks:
        return {}
    written = self_written(model, options.texts, folder / "self-written.json")
    if not written:
        raise NloraError(
            "answers cannot be matched: the base model writes no texts of its own to match them by"
        )
    questions = Questions(options, (), written, {}, {})
    looks = Looks(model, folder, named=True)
    last = len(model.records)
    for task in tasks:
        wanted = _wanted(task, last)
        looks.take(pair for pair in questions.looks(task).items() if pair[0] in wanted)
    return {task.data.name: _correction(task, looks, last) for task in tasks}


def where_it_helps(model: "ContinualModel", names: Collection[str]) -> dict[str, Correction]:
    """`matched` for those of the tasks that `nlora explain --dev` has found it to help, of the
    stages as they are now, beyond its interval. Each is told.

    That was found against answers without any offsets, so a task that has some in force keeps
    these.
    """
    asked = set(names) - in_force(model.records).keys()
    found = {name: gain for name, gain in helped(model, SELF_WRITTEN).items() if name in asked}
    for name, gain in found.items():
        model.progress.message(
            f"{name}: labels are matched to how they were answered right after the task, which on "
            f"dev makes {gain.value:.1f} % more of them right [{gain.low:.1f}, {gain.high:.1f}] "
            f"({option('answers', 'likely')} does without)"
        )
    return matched(model, found) if found else {}


def _wanted(task: Learned, last: int) -> set[Look]:
    name = task.data.name
    return {Look(task.stage, name, "train"), *(Look(s, name, KIND) for s in (task.stage, last))}


def _correction(task: Learned, looks: Looks, last: int) -> Correction:
    found = {look: looks.found[look] for look in _wanted(task, last) if look in looks.found}
    then = {look.kind: scores for look, scores in found.items() if look.stage == task.stage}
    now = {KIND: found[Look(last, task.data.name, KIND)]}
    made = corrections(then, now, Known(task.indices(task.data.train)))
    return next(made[source] for source in SELF_WRITTEN if source in made)
