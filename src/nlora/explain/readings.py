"""The readings of a task's answers after each stage, from looks and from what the run has kept."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from nlora.data.comparing import comparison
from nlora.evaluation.matching import Correction
from nlora.explain.asked import SHIFT, Learned, Questions, newest_kind
from nlora.explain.looks import Look
from nlora.explain.parts import Reading
from nlora.explain.probe import probed
from nlora.explain.shift import cka, cosine
from nlora.explain.sources import Known, Scores, corrections

if TYPE_CHECKING:
    from nlora.store.directory import ModelDirectory

Kept = dict[int, dict[str, list[dict[str, Any]]]]
"""The answers that a run has kept (`predictions.jsonl`), by stage and task, in the tests' order."""


def kept_answers(directory: "ModelDirectory") -> Kept:
    """What the model answered to its tests by the protocol, after each stage that tested them."""
    zero = directory.zero_shot()
    tested = [*([zero] if zero else []), *directory.stages()]
    return {record.index: directory.predictions(record) for record in tested}


def readings(
    known: Learned,
    questions: Questions,
    looks: Mapping[Look, ndarray],
    kept: Kept,
    standing: Mapping[int, Correction],
) -> dict[int, Reading]:
    """The readings of a task with labels after each stage that was looked at.

    `standing` are the offsets that are a part of the model after a stage: it answers with them, by
    the protocol and where it may choose among the labels.
    """
    return {
        stage: _reading(known, questions, looks, kept.get(stage, {}), stage, standing.get(stage))
        for stage in known.stages
    }


def _reading(
    known: Learned,
    questions: Questions,
    looks: Mapping[Look, ndarray],
    kept: Mapping[str, list[dict[str, Any]]],
    stage: int,
    standing: Correction | None,
) -> Reading:
    right = np.array(known.indices(known.data.test))
    now = _scores(looks, known, stage, stage)
    # What was stored right after the task; before it, nothing was.
    then = _scores(looks, known, known.stage, stage) if stage >= known.stage else {}
    dev = questions.dev(known) if "dev" in now else ()
    truth = Known(known.indices(known.data.train), known.indices(dev))
    test = now["test"]
    matched = {
        source: made(test).argmax(1) == right
        for source, made in corrections(then, now, truth).items()
    }
    free = listed = None
    answers = kept.get(known.data.name, [])[: len(right)]
    if len(answers) == len(right):  # before tests were added, fewer were asked
        form = comparison(known.labels)
        labels = {form(label) for label in known.labels}
        free = np.array([bool(row["correct"]) for row in answers])
        listed = np.array([form(row["text"]) in labels for row in answers])
    among = (standing(test) if standing else test).argmax(1) == right
    return Reading(free, among, matched, _probe(known, questions, looks, stage), listed)


def moved(
    known: Learned, looks: Mapping[Look, ndarray], pulled: Mapping[int, float]
) -> dict[int, dict[str, float]]:
    """By later stage, how far it moved the states that the task's answers begin from, and whether
    its gradient pointed where the task's own did (`pulled`, cosines by stage)."""
    name = known.data.name
    states = {
        look.stage: found
        for look, found in looks.items()
        if (look.task, look.kind) == (name, SHIFT)
    }
    found = {
        stage: {"cosine": cosine(states[stage - 1], after), "cka": cka(states[stage - 1], after)}
        for stage, after in sorted(states.items())
        if stage - 1 in states
    }
    for stage, value in pulled.items():
        found.setdefault(stage, {})["gradients"] = value
    return found


def _scores(looks: Mapping[Look, ndarray], known: Learned, stage: int, later: int) -> Scores:
    """The scores after a stage by kind of text, the newest texts being those of `later`."""
    newest = newest_kind(later)
    found = {
        "newest" if look.kind == newest else look.kind: scores
        for look, scores in looks.items()
        if (look.task, look.stage, look.what) == (known.data.name, stage, "scores")
    }
    return {kind: scores for kind, scores in found.items() if not kind.startswith("newest-")}


def _probe(
    known: Learned, questions: Questions, looks: Mapping[Look, ndarray], stage: int
) -> ndarray | None:
    """Which test answers a probe reads out right, learned from the stage's own states."""
    name = known.data.name
    train = looks.get(Look(stage, name, "train", "states"))
    if train is None:
        return None
    labels = np.array(known.indices(questions.probed(known)))
    right = np.array(known.indices(known.data.test))
    return probed(train, labels, looks[Look(stage, name, "test", "states")]) == right
