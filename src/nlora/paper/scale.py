"""How much of the paper's effort is spent: all of it, or a trial's."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2)
"""As many as the paper has."""
_SHORT: Mapping[str, object] = {"epochs": 1, "max_text_tokens": 8, "among_labels": False}
"""What a trial is set to: every run of the paper in minutes, to see that all of it works."""
_SHORT_OF: Mapping[str, Mapping[str, object]] = {
    "ewc": {"fisher_examples": 4},
    "lfpt5": {"prompt_length": 10, "pseudo_samples": 1, "candidates": 1},
    "prog-prompt": {"prompt_length": 5},
    "replay": {"buffer": 1},
}
"""Likewise, of the methods that are slowest beside their training steps."""
_TESTED = 32
"""A trial has one test for so many training examples."""
_WORKERS = 4
"""Runs of a trial at a time, at most; each takes up to 1 GB."""


@dataclass(frozen=True)
class Scale:
    """What the runs of all artefacts have in common."""

    model: str | None = None
    """None: the paper's own for each artefact."""
    recipes: str | None = "auto"
    """Whose recipes: `auto`, the artefact's own model's; None: the defaults of each method."""
    seeds: tuple[int, ...] = SEEDS
    data: str | None = None
    max_train: int | None = None
    max_eval: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """In words, what is less than the paper's; empty where nothing is."""
        if self.max_train is None:
            return ""
        settings = ", ".join(_told(self.settings))
        return (
            f"a trial: {self.max_train} training and {self.max_eval} test examples a task, "
            f"seeds {', '.join(map(str, self.seeds))}{f', {settings}' if settings else ''} "
            "(--seeds, --max-eval and --set change it)"
        )


def scale(
    *,
    seeds: tuple[int, ...] | None,
    max_train: int | None,
    max_eval: int | None,
    settings: Mapping[str, Any],
    **others: Any,
) -> Scale:
    """The scale that is asked for, with what was left open filled in.

    Without `max_train` that is the paper's: three seeds, all tests, whole texts. With it, it is a
    trial: one seed, one epoch, few tests and short texts.
    """
    if max_train is None:
        return Scale(seeds=seeds or SEEDS, max_eval=max_eval, settings=settings, **others)
    return Scale(
        seeds=seeds or SEEDS[:1],
        max_train=max_train,
        max_eval=max_eval or max(max_train // _TESTED, 2),
        settings={**_SHORT, **settings, **_of_methods(settings)},
        **others,
    )


def _of_methods(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A trial's settings of methods, of those that nobody has set otherwise.

    Of a method whose name is that of a setting (`replay`), none where this is set.
    """
    given = {method: settings.get(method, {}) for method in _SHORT_OF}
    return {
        method: {k: v for k, v in {**_SHORT_OF[method], **own}.items() if k not in settings}
        for method, own in given.items()
        if isinstance(own, Mapping)
    }


def _told(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from (f"{name}.{told}" for told in _told(value))
        else:
            yield f"{name}={value}"


def workers_of(scale: Scale) -> int:
    """Runs at a time where nobody says: one, but of a trial on CPUs one for each core."""
    import torch

    if scale.max_train is None or torch.cuda.is_available():
        return 1
    return min(os.cpu_count() or 1, _WORKERS)
