"""How labels are chosen, as commands are told: `auto`, `likely`, or `matched`."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError, option, unknown

if TYPE_CHECKING:
    from nlora.continual.answering import Correct
    from nlora.continual.export import Describe
    from nlora.continual.model import ContinualModel

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


def offsets_by(how: str) -> "Describe | None":
    """What is written beside an exported model: offsets by task and label, with the rule."""
    correct = correct_by(how)
    return partial(_offsets, correct) if correct else None


def _offsets(correct: "Correct", model: "ContinualModel") -> Mapping[str, Any]:
    from nlora.continual.offsets import as_file, stored

    labels = {data.name: data.task.labels or () for data in model.stream}
    found = correct(model, list(labels))
    return as_file({name: stored(made, labels[name]) for name, made in found.items()})
