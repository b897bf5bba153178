"""What runs of a grid have in common, so that it is computed once.

The evaluation before training is the same for every method and seed, and the first stage for the
methods whose `first_stage` says so. The run that comes first computes it; others take a copy of
the committed stage, and are then as if they had done it themselves.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nlora.continual.agreement import document
from nlora.data.task import digest
from nlora.methods.base import overrides
from nlora.methods.settings import FREE
from nlora.plan.budgets import budget
from nlora.plan.config import told
from nlora.plan.resolve import Plan, trained
from nlora.store.directory import ModelDirectory

_EVALUATION = (
    *("prompt", "chat", "max_length", "max_text_tokens", "max_new_tokens", "eval_tokens"),
    *("among_labels", "precision", "quantization", "shared_prefix"),
)
"""Run settings that the answers of an untrained model depend on."""

_LATER_STAGES = {"frozen_layers", "rehearsal"}
"""Settings of every method that decide nothing of a first stage, nor of what it keeps."""


class Shared(NamedTuple):
    """What decides the evaluation before training, and the first stage. Equal is shared."""

    zero_shot: str | None = None
    first_stage: str | None = None


def shared(plan: Plan) -> Shared:
    """What a run with this plan has in common with others."""
    stream = plan.stream
    run = plan.run.model_dump(mode="json")
    base = plan.base.weights
    zero = first = None
    others = plan.only_tested
    names = sorted(data.name for data in others)
    measure = None
    if overrides(plan.method, "metric"):  # the same tests are measured in another way
        measure = [plan.method.name, plan.method.settings.model_dump(mode="json")]
    if before := plan.tested_first:
        tests = sorted(replace(data, train=()).fingerprint() for data in before)
        asked = {name: run[name] for name in _EVALUATION}
        zero = digest([base, asked, tests, names, measure])
    rule = _first_stage(plan)
    if rule is not None:
        tested = plan.stages_tested(1, len(stream))
        data = [data.fingerprint() for data in [*trained(stream)[:tested], *others]]
        made = [plan.method.adapter, rule, plan.config.seed]
        first = digest([base, run, *made, data, names, measure])
    return Shared(zero, first)


def _first_stage(plan: Plan) -> dict[str, Any] | None:
    """The method's own word; a subclass does not inherit it, since it may change the stage."""
    own = vars(type(plan.method)).get("first_stage")
    rule = own(plan.method) if own else None
    if rule is None:
        return None
    return {**rule, "free": told(plan.method.free.model_dump(include={*FREE} - _LATER_STAGES))}


def has(out: Path, stage: int) -> bool:
    """Whether a run has committed its evaluation before training (0), or its first stage (1)."""
    directory = ModelDirectory(out)
    return bool(directory.stages() if stage else directory.zero_shot())


def sources(
    out: Path, name: str, own: Shared, known: Mapping[str, Shared]
) -> tuple[Path | None, Path | None]:
    """Where the run `name` takes its evaluation before training and its first stage from, as
    `_source`; the latter only with the former, since after a stage nobody tests what was before."""
    zero, first = (_source(out, name, own, stage, known) for stage in (0, 1))
    if zero is None and own.zero_shot is not None and not has(out / name, 0):
        first = None
    return zero, first


def _source(
    out: Path, name: str, own: Shared, stage: int, known: Mapping[str, Shared]
) -> Path | None:
    """A run below `out`, of those known by their names, that has what the run `name` shares with
    it: its evaluation before training (0), or its first stage (1)."""
    if (key := own[stage]) is None:
        return None
    others = (out / other for other, its in known.items() if its[stage] == key and other != name)
    return next((path for path in others if has(path, stage)), None)


def adopt(plan: Plan, out: Path, zero: Path | None, first: Path | None) -> None:
    """Begin the run `out` with the zero-shot evaluation and the first stage of other runs.

    What the directory has already stays as it is. Raises NloraError if a file was changed.
    """
    directory = ModelDirectory(out)
    given = [(0, zero), (1, first)]
    wanted = [(stage, path) for stage, path in given if path and not has(out, stage)]
    if directory.stages() or not wanted:
        return
    with directory.locked():
        for stage, path in wanted:
            other = ModelDirectory(path)
            begun = other.config()
            if not directory.begun():  # though a run that failed may have been there
                directory.write_config(_document(plan, begun))
            record = other.stages()[0] if stage else other.zero_shot()
            assert record is not None
            notes = {**record.notes, "copied_from": "/".join(path.parts[-3:])}
            seed = record.seed if stage else plan.config.seed
            # A weight that decides nothing in a first stage may be another one here.
            own = budget(plan, plan.stages()[0]) if stage else record.budget
            directory.adopt(other, record, notes=notes, seed=seed, budget=own)


def _document(plan: Plan, other: dict[str, Any]) -> dict[str, Any]:
    """`model.json` as the run itself would write it, in the precision of the run it shares."""
    return {
        **other,
        **document(plan),
        "settings": {**plan.settings(), "precision": other["settings"]["precision"]},
    }
