"""How labels are chosen, as commands are told: `likely`, or `matched`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError, unknown

if TYPE_CHECKING:
    from nlora.continual.answering import Correct
    from nlora.continual.export import Describe
    from nlora.continual.model import ContinualModel

LIKELY, MATCHED = "likely", "matched"


def correct_by(how: str, free: bool = False) -> "Correct | None":
    """What corrects a model's scores. Raises NloraError for what is no way to choose a label."""
    if how not in (LIKELY, MATCHED):
        raise unknown("way to answer", how, (LIKELY, MATCHED))
    if how == LIKELY:
        return None
    if free:
        raise NloraError("--free answers are no labels; leave --free or --answers matched out")
    from nlora.explain.matched import matched

    return matched


def offsets_by(how: str) -> "Describe | None":
    """What is written beside an exported model: offsets by task and label, with the rule."""
    return _offsets if correct_by(how) else None


def _offsets(model: "ContinualModel") -> Mapping[str, Any]:
    from nlora.continual.offsets import as_file, stored
    from nlora.explain.matched import matched

    labels = {data.name: data.task.labels or () for data in model.stream}
    found = matched(model, list(labels))
    return as_file({name: stored(made, labels[name]) for name, made in found.items()})
