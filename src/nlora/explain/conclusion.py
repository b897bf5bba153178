"""What `explain` has found, in one sentence: which part most of the loss is, and what helps."""

from collections.abc import Mapping
from typing import Any

HELPS = {
    "off the list": "answers among the labels bring it back, which `nlora predict` gives",
    "bias": "an offset per label brings it back; `nlora explain --dev` says whether that holds, "
    "and `nlora predict` then does it",
    "inaccessible": "the model has it and does not say it; `--relearn 10` measures what a few "
    "examples of the task bring back",
    "gone": "it has to be learned again; replay, or an adapter per task found by the text, would "
    "have kept it",
}
"""By part of a loss (`explain.parts`)."""


def conclusion(found: Mapping[str, Any]) -> str | None:
    """The sentence, of the mean over the tasks learned before the last stage; None without any."""
    over = found.get("over_tasks")
    if not over:
        return None
    split = {part: value for part, value in over["parts"].items() if value is not None}
    lost, whose = sum(split.values()), ", ".join(over["tasks"])
    if not split or lost <= 0:
        return f"Nothing is lost of {whose}, on average."
    most = max(split, key=lambda part: split[part])
    said = f"Of {lost:.1f} points lost of {whose} the largest part"
    if most == "gone" and "inaccessible" not in split:
        return (
            f"{said} is not brought back by offsets ({split[most]:.1f}); without a probe nothing "
            "tells whether the model still has it (`nlora explain --probe 200`)."
        )
    return f"{said} is {most} ({split[most]:.1f}): {HELPS[most]}."
