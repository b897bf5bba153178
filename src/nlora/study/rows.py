"""The row of a ledger that a finished run makes: its results, its geometry, and what made it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nlora
from nlora.continual.results import current
from nlora.continual.tasks import learned_tasks, only_tested, titles
from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.machine import machine
from nlora.methods.registry import method
from nlora.plan.budgets import value_at
from nlora.plan.config import LATER, with_todays_names
from nlora.report.ledger import pack, rounded
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.records import AnswerRow, taken_out
from nlora.study.alike import alike

THRESHOLDS = ("0.1rms", "1e-3")
"""Of collisions: relative to each matrix' own size, and absolute."""

_BESIDE = {"among_labels", "attention", "checkpoint_every", "measure_kl", "sharding"}
"""Settings that decide nothing of the results, only what is measured or kept beside them."""

_OF_STEPS = ("pairs", "per_adapter", "collisions")
"""What is kept of the changes of single stages, where one update is continued."""

_FILES = ("replay", "neutral")
"""Settings that may name a file."""

_CONFIGURATION = ("method", "tasks", "seed", "max_train", "max_eval", "evaluate", "settings")


def configuration(document: dict[str, Any]) -> dict[str, Any]:
    """What of a `model.json` decides the result. Folders and files go by their names."""
    model = Path(document["model"])
    name = model.name if model.is_absolute() else document["model"]
    found = {key: document[key] for key in _CONFIGURATION}
    settings = {k: v for k, v in document["settings"].items() if k not in _BESIDE}
    for key in _FILES:
        if isinstance(file := settings.get(key), str):
            settings[key] = Path(file).name
    return {"model": name, **found, "settings": settings}


def row(directory: ModelDirectory, made_by: str | None) -> dict[str, Any]:
    """The row of a model directory whose run is finished.

    `made_by` is the `commit` of nlora that trained it; `geometry` is that of the LoRA updates, as
    `nlora analyze --json` has it, with collisions and densities by matrix. Raises NloraError for a
    directory without results, and for one whose tasks are not those of its run any more.
    """
    if taken_out(directory.stages()):
        raise NloraError(f"{directory.path} has had a task taken out, so it is no run to compare")
    return described(directory, made_by)


def described(directory: ModelDirectory, made_by: str | None) -> dict[str, Any]:
    """`row` of a model directory as it stands: unfinished, or with a task taken out again."""
    document = directory.config()
    found = configuration(document)
    wanted = _needs(document)
    records = directory.stages()
    by_title = dict(zip(titles(records), records, strict=True))
    if own := _own_budgets(document, by_title):
        found["budgets"] = own
    zero = directory.zero_shot()
    everything = [*([zero] if zero else []), *records]
    return {
        "configuration": found,
        "hash": digest(found),
        "base": document["base"],
        "needs": wanted,
        "data": {k: v for r in records for k, v in r.fingerprints.items()},
        "versions": document["versions"],
        "machine": machine(),
        **current(directory),
        "seconds_by": {
            kind: sum(r.seconds.get(kind, 0.0) for r in everything)
            for kind in ("training", "evaluation")
        },
        "trainable_parameters": [r.trainable_parameters for r in records],
        "costs": {name: _cost(r) for name, r in by_title.items()},
        "losses": {name: _last(directory, r) for name, r in by_title.items()},
        "notes": {name: r.notes for name, r in by_title.items()},
        "answers": {
            "zero_shot": _answers(directory, zero) if zero else None,
            "stages": [_answers(directory, r) for r in records],
        },
        "tests": _tests(directory),
        "alike": rounded(alike(learned_tasks(directory))),
        "commit": made_by,
        "geometry": _geometry(directory, wanted),
    }


def _own_budgets(
    document: dict[str, Any], records: Mapping[str, StageRecord]
) -> dict[str, dict[str, Any]]:
    """By stage, what it was trained with that is not what `model.json` says; most runs: nothing."""
    known = {**LATER, **document, **with_todays_names(document["settings"])}
    found = {}
    for title, record in records.items():
        there = {name: v for name, v in record.budget.items() if name != "rows" and name in known}
        asked = {name: value_at(known[name], record.index) for name in there}
        if differ := {name: v for name, v in there.items() if v != asked[name]}:
            found[title] = differ
    return found


def commit() -> str | None:
    """The commit of nlora's source, "-dirty" if it was changed since; None outside a checkout."""
    folder = Path(nlora.__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")  # not in somebody else's
        return _git(folder, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _needs(document: dict[str, Any]) -> dict[str, Any]:
    """What the method of a `model.json` needs, for the footnotes of tables."""
    plugin = document.get("plugin")
    entry = method(document["method"], Path(plugin) if plugin else None)
    own = {
        k: v
        for k, v in with_todays_names(document["settings"]).items()
        if k in entry.kind.Settings.model_fields
    }
    built = entry.build(own)
    return {
        "task_identity": built.needs_task_id,
        "old_data": built.needs_old_data,
        "storage": built.storage_grows,
        "passes": built.extra_passes,
        "adapter": built.adapter,
    }


def _answers(directory: ModelDirectory, record: StageRecord) -> dict[str, str]:
    """Which test examples of each task were answered right, as `pack` writes it."""
    right: dict[str, list[bool]] = {}
    for prediction in directory.rows(record, "predictions.jsonl", AnswerRow):
        right.setdefault(prediction["task"], []).append(prediction["correct"])
    return {task: pack(rows) for task, rows in right.items()}


def _tests(directory: ModelDirectory) -> dict[str, str]:
    """A hash of each task's test examples: only answers to the same ones can be paired."""
    return {
        data.name: digest([[e.text, e.label] for e in data.test])
        for data in [*only_tested(directory), *learned_tasks(directory)]
    }


def _cost(record: StageRecord) -> dict[str, float]:
    """What a stage took: examples, optimiser steps, seconds, and bytes at most."""
    seconds = {kind: record.seconds.get(kind, 0.0) for kind in ("training", "evaluation")}
    memory = record.peak_memory_bytes
    return {
        "examples": record.examples,
        "steps": record.steps,
        **seconds,
        "peak_memory_bytes": memory,
    }


def _last(directory: ModelDirectory, record: StageRecord) -> dict[str, float]:
    """Each loss term's mean over the last quarter of the stage; none where nothing was trained."""
    steps = list(directory.steps(record))
    steps = steps[-max(len(steps) // 4, 1) :]
    names = [k for k in (steps[-1] if steps else ()) if k not in ("step", "epoch")]
    return {name: sum(step[name] for step in steps) / len(steps) for name in names}


def _geometry(directory: ModelDirectory, needs: dict[str, Any]) -> dict[str, Any] | None:
    if needs["adapter"] != "lora" or not directory.stages():
        return None
    from nlora.analysis.adapters import read_stages
    from nlora.analysis.report import analyse
    from nlora.analysis.steps import steps
    from nlora.lowrank.supports import Threshold

    try:
        adapters = read_stages(directory.path)
        thresholds = [Threshold.parse(text) for text in THRESHOLDS]
        found = analyse(adapters, thresholds, every_matrix=True)
        layers = {name: _layer(matrix) for name, matrix in found.pop("by_matrix").items()}
        if found["continues"]:
            each = analyse(steps(adapters), thresholds)
            found["steps"] = {name: each[name] for name in _OF_STEPS}
        return {**rounded(found), "layers": rounded(layers, 3)}
    except NloraError as error:  # a method may keep other updates than adapters
        return {"error": str(error).replace(f"{directory.path}/", "")}


def _layer(matrix: dict[str, Any]) -> dict[str, Any]:
    """Of one matrix, at the first threshold: mean collision rate, density of each update."""
    return {"acr": matrix["acr"], "density": [a["density"]["mean"] for a in matrix["per_adapter"]]}
