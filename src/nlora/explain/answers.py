"""How labels are chosen, as commands are told: `auto`, `likely`, or `matched`."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from nlora.errors import NloraError, option, unknown

if TYPE_CHECKING:
    from nlora.continual.answering import Correct
    from nlora.continual.export import Match
    from nlora.continual.model import ContinualModel
    from nlora.store.records import Offsets

WAYS = AUTO, LIKELY, MATCHED = "auto", "likely", "matched"


def correct_by(how: str, free: bool = False) -> "Correct | None":
    """What corrects a model's scores. Raises NloraError for what is no way to choose a label.

    `auto` matches the answers to tasks of which `nlora explain --dev` has found that it helps.
    """
    if how not in WAYS:
        raise unknown("way to answer", how, WAYS)
    if how == LIKELY or (free and how == AUTO):
        return None
    if free:
        raise NloraError(
            f"free answers are no labels; leave {option('free', True)} or "
            f"{option('answers', MATCHED)} out"
        )
    from nlora.explain.matched import matched, where_it_helps

    return matched if how == MATCHED else where_it_helps


def offsets_by(how: str) -> "Match | None":
    """What finds the offsets that are written beside an exported model, by task and label."""
    correct = correct_by(how)
    return partial(_offsets, correct) if correct else None


def _offsets(correct: "Correct", model: "ContinualModel") -> Mapping[str, "Offsets"]:
    from nlora.continual.offsets import stored

    labels = {data.name: data.task.labels or () for data in model.stream}
    return {n: stored(made, labels[n]) for n, made in correct(model, list(labels)).items()}
