"""What of an explained run stands in the ledger's row of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nlora.data.task import digest
from nlora.explain.asked import Options
from nlora.explain.explain import explain
from nlora.explain.texts import neutral_texts
from nlora.progress import Progress
from nlora.report.ledger import rounded

DIGITS = 4
"""Significant ones, of figures in per cent."""
OF_COSINES = 9
"""Of what is near 1 and read by how far from it."""


@dataclass(frozen=True)
class Wanted:
    """That every cell of a comparison is explained, and how."""

    options: Options

    @cached_property
    def described(self) -> dict[str, Any]:
        """What decides the figures, as a row says it; of a file of neutral texts a hash of them."""
        asked = self.options.checked()
        counts = ("texts", "probe", "shift", "gradients")
        found = {**{name: getattr(asked, name) for name in counts}, "kinds": list(asked.kinds)}
        if asked.neutral is not None:
            found["neutral"] = digest(neutral_texts(asked.neutral, asked.texts))
        return found

    def is_in(self, row: Mapping[str, Any]) -> bool:
        """Whether a ledger's row has all that is asked for, or more, from as many texts."""
        known, asked = row.get("explained", {}), self.described
        more = [known.get(name, -1) >= asked[name] for name in ("probe", "shift", "gradients")]
        return (
            known.get("texts") == asked["texts"]
            and all(more)
            and set(asked["kinds"]) <= set(known.get("kinds", ()))
            and asked.get("neutral") in (None, known.get("neutral"))
        )

    def missing_in(self, row: Mapping[str, Any]) -> bool:
        """Whether a finished cell that was trained is still to be explained, as asked for now."""
        return "error" not in row and bool(row.get("stages")) and not self.is_in(row)

    def of(self, path: Path, progress: Progress) -> dict[str, Any]:
        """The figures of the run in a folder."""
        found = explain(path, replace(self.options, every_stage=False), progress)
        return {**self.described, **summary(found)}


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Readings then and now, parts, way and what of it is kept, by task and over tasks."""
    short = rounded(
        {
            "tasks": {name: _task(task) for name, task in found["tasks"].items()},
            "over_tasks": found["over_tasks"],
            "all_tasks": found["all_tasks"],
            "free_text": found["free_text"],
        },
        DIGITS,
    )
    for name, task in found["tasks"].items():
        short["tasks"][name]["moved"] = rounded(task["moved"], OF_COSINES)
    return short


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    read = {reading["when"]: reading for reading in task["readings"]}
    moments = {"never learned": "never", "right after it": "then", "later": "now"}
    names = ("free", "off_list", "among", "matched", "probe")
    last = task["lost"][-1] if task["lost"] else {}
    return {
        **{
            moment: {name: read[when][name] for name in names}
            for when, moment in moments.items()
            if when in read
        },
        "way": task["way"],
        "moved": task["moved"],
        **{name: last[name] for name in ("matched_by", "parts", "by_example", "kept") if last},
    }
