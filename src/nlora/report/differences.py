"""The table of paired differences against a baseline, with bootstrap intervals."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from nlora.errors import NloraError
from nlora.evaluation.statistics import COVERAGE, SAMPLES, Differences, estimates
from nlora.report.footnotes import legend, marked
from nlora.report.ledger import unpack
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table, Value

_ROUNDED = 1e-3
"""By how much an accuracy in per cent may differ from itself."""

Answers = Mapping[str, np.ndarray]
"""By task and test example; an accuracy is the mean of 1 where the answer was right, else 0."""


def _at_the_end(run: Run) -> Answers:
    """Right or wrong after the last stage: average accuracy is the mean of these."""
    last = run.row["answers"]["stages"][-1]
    return {task: unpack(last[task]) for task in run.trained if task in last}


def _when_learned(run: Run) -> Answers | None:
    """Right or wrong right after each task; None where all tasks were learned at once."""
    tasks, stages = run.row["stages"], run.row["answers"]["stages"]
    if tasks != run.trained:
        return None
    return {task: unpack(stage[task]) for task, stage in zip(tasks, stages, strict=True)}


def _since_learned(run: Run) -> Answers | None:
    """What backward transfer is the mean of: −1 where a right answer was lost, 1 where one came."""
    then, now = _when_learned(run), _at_the_end(run)
    tasks = run.trained[:-1]
    if then is None or not tasks:
        return None
    return _minus(now, {task: then[task] for task in tasks})


PARTS: dict[str, Callable[[Run], Answers | None]] = {
    "average": _at_the_end,
    "learning": _when_learned,
    "backward": _since_learned,
}


def differences(section: Section, baseline: str, samples: int = SAMPLES) -> Table | None:
    """Average and learning accuracy and backward transfer minus the baseline's.

    Over the runs that both have, and the tasks that are measured by exact match. (Forgetting is not
    a mean over examples, for it takes the best of earlier stages; backward transfer is what can be
    paired.)
    """
    if baseline not in section.methods:
        return None
    graded = _graded(section)
    compared: dict[str, Differences] = {}
    paired: dict[str, list[tuple[Run, Run]]] = {}
    for label in section.methods:
        pairs = [] if label == baseline else _pairs(section, label, baseline)
        paired[label] = pairs
        for part, answers in PARTS.items():
            found = {
                (a.stream, a.seed): counted
                for a, b in pairs
                if (mine := answers(a)) is not None
                and (theirs := answers(b)) is not None
                and (counted := _minus(mine, theirs, graded))
            }
            if found:
                compared[f"{part} {label}"] = found
    found = estimates(compared, samples)
    rows: list[list[Cell]] = []
    shown = []
    for label in section.methods:
        values = [found.get(f"{part} {label}") for part in PARTS]
        if any(values):
            cells = [v and Value(v.mean, low=v.low, high=v.high, form="+.1f") for v in values]
            counts = [len({getattr(a, n) for a, _ in paired[label]}) for n in ("stream", "seed")]
            rows.append([marked(section, label), *cells, *counts])
            shown.append(label)
    if not rows:
        return None
    said = (
        "accuracy, or backward transfer (below zero: what was learned is lost), minus that of "
        f"{baseline} on the same order, seed and test examples, in points; in brackets the "
        f"{COVERAGE:.0%} bootstrap interval over orders, seeds and examples ({samples} samples). "
        "One order or one seed says nothing of others, and fewer than about five make the "
        "interval too narrow"
    )
    fewer = [f"without {', '.join(graded)}, whose metric is not exact match"] if graded else []
    title = f"Paired differences to {baseline}. {section.title}"
    columns = ["method", *PARTS, "orders", "seeds"]
    return Table("differences", title, columns, rows, [said, *fewer, *legend(section, shown)])


def _graded(section: Section) -> list[str]:
    """The tasks whose accuracy is not their share of right answers: another metric is theirs."""
    found: dict[str, None] = {}
    for run in section.runs:
        if run.error is not None or not _answered(run):
            continue
        stages = run.row["answers"]["stages"]
        for answers, accuracies in zip(stages, run.row["accuracy_matrix"], strict=True):
            for task, accuracy in zip(run.row["tasks"], accuracies, strict=True):
                right = answers.get(task) if task in run.trained else None
                if right and abs(100 * unpack(right).mean() - (accuracy or 0.0)) > _ROUNDED:
                    found[task] = None
    return list(found)


def _pairs(section: Section, label: str, baseline: str) -> list[tuple[Run, Run]]:
    """Runs with the same stream, seed and test examples.

    Raises NloraError for runs that say so and have other answers.
    """
    others = {(run.stream, run.seed): run for run in section.of(baseline) if _answered(run)}
    found = []
    for run in section.of(label):
        other = others.get((run.stream, run.seed))
        if other and _answered(run) and run.row.get("tests") == other.row.get("tests"):
            if _counts(run) != _counts(other):
                raise NloraError(
                    f"{run.place} and {other.place} have the same test examples ('tests'), but not "
                    "answers to the same ones ('answers')"
                )
            found.append((run, other))
    return found


def _answered(run: Run) -> bool:
    """Whether the row has answers after a stage."""
    return bool((run.row.get("answers") or {}).get("stages"))


def _counts(run: Run) -> dict[str, str]:
    """How many answers there are at the end, by task."""
    return {task: bits.split(":")[0] for task, bits in run.row["answers"]["stages"][-1].items()}


def _minus(mine: Answers, theirs: Answers, without: Collection[str] = ()) -> dict[str, np.ndarray]:
    return {
        task: mine[task].astype(int) - theirs[task].astype(int)
        for task in theirs
        if task not in without
    }
