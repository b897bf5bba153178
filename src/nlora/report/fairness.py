"""Whether the numbers of a table were got under like conditions: what its notes must say."""

from collections.abc import Callable, Sequence
from typing import Any

from nlora.report.runs import Run, Section

SAME = ("epochs", "batch_size", "max_length", "max_text_tokens", "max_new_tokens")
"""Settings of a run, not of a method, that a comparison of methods holds fixed."""


def fairness(section: Section) -> list[str]:
    """What was tuned, and which settings differ between methods or between a method's streams."""
    runs = [run for run in section.runs if not run.error and not run.untrained]
    return [*_tuning(runs), *_between_methods(runs), *_between_streams(runs)]


def _tuning(runs: Sequence[Run]) -> list[str]:
    """How much was tuned; nothing where the ledger does not say."""
    runs = [run for run in runs if "tuning" in run.row]
    trials = {len(run.row["tuning"]["trials"]) if run.row["tuning"] else 0 for run in runs}
    if not any(trials):
        return ["nothing was tuned: each method has the settings that it was run with"] * bool(runs)
    counts = " or ".join(str(count) for count in sorted(trials))
    return [f"settings chosen on dev in {counts} trials for each method and stream"]


def _between_methods(runs: Sequence[Run]) -> list[str]:
    notes = []
    for name in SAME:
        values = _values(runs, name, lambda run: run.label)
        if len({text for texts in values.values() for text in texts}) > 1:
            said = "; ".join(f"{label} {' and '.join(v)}" for label, v in values.items())
            notes.append(f"not the same for all methods: {name} ({said})")
    return notes


def _between_streams(runs: Sequence[Run]) -> list[str]:
    """Settings that differ between a method's streams, where they were not tuned."""
    notes = []
    runs = [run for run in runs if not run.row.get("tuning")]
    for label in dict.fromkeys(run.label for run in runs):
        mine = [run for run in runs if run.label == label]
        for name in sorted({name for run in mine for name in run.settings}):
            values = _values(mine, name, lambda run: run.stream)
            if name not in SAME and len({text for v in values.values() for text in v}) > 1:
                said = "; ".join(f"{' and '.join(v)} on {s}" for s, v in values.items())
                notes.append(f"{label} has not the same {name} on all streams ({said})")
    return notes


def _values(
    runs: Sequence[Run], name: str, group: Callable[[Run], str]
) -> dict[str, tuple[Any, ...]]:
    """The setting's values in each group of runs, as text."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        if name in run.settings:
            found.setdefault(group(run), {})[str(run.settings[name])] = None
    return {key: tuple(texts) for key, texts in found.items()}
