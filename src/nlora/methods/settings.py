"""The settings of methods, and those that every method has that trains on data.

Several methods share the latter, and none has code of its own for them: `loss` and `rehearsal` are
in `parts.answers`, `replay` and what belongs to it in `parts.rehearsal`, `frozen_layers` in
`parts.depth`. They combine freely, with one another and with what a method is.
"""

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from nlora.adapters.settings import Count, Strict
from nlora.errors import NloraError

LARGEST = 1e30
"""Of a setting: far below what fp32 can hold, so that a product of two factors is a number, too."""


MOST_MIXED = 0.99
"""Of a stage's examples that are mixed in: 99 times as many as its own."""


def _at_least_zero(value: Any) -> Any:
    if isinstance(value, str):
        return value
    for number in value if isinstance(value, list) else [value]:
        if not 0 <= number <= LARGEST:
            raise ValueError(f"must be a number of at least 0 (and at most {LARGEST:g})")
    return value


ONE_PER_STAGE = "one per stage"
"""Marks, in `Annotated`, a setting that may be a list of one value per stage."""

PerStage = Annotated[float | list[float], AfterValidator(_at_least_zero), ONE_PER_STAGE]
"""A setting of at least 0 with one value, or one per stage."""


def _or_auto(value: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise ValueError("must be a number, one per stage ([0.1, 0.2]), or auto")
    return value


Weight = Annotated[
    float | list[float] | Literal["auto"],
    BeforeValidator(_or_auto),
    AfterValidator(_at_least_zero),
    ONE_PER_STAGE,
]
"""The weight of a penalty: as `PerStage`, or found while a stage is trained (`parts.auto`)."""


OWN_ANSWERS = ("self", "by-label")
"""Values of `replay` by which a model rehearses its own answers, to texts that are no task's."""


def _replay(value: Any) -> Any:
    """A share as a number, words as they are, a file as an absolute path."""
    try:
        share = float(value) if isinstance(value, str | float | int) else None
    except ValueError:
        share = None
    if isinstance(value, bool) or not isinstance(value, str | float | int):
        raise ValueError("must be none, a share below 1, self, by-label, or a file")
    if share is not None:
        if not 0 < share <= MOST_MIXED:
            raise ValueError(
                f"must be a share above 0 and at most {MOST_MIXED} (or none, self, by-label, or a "
                "file)"
            )
        return share
    if value in ("none", *OWN_ANSWERS) or "://" in str(value):
        return value
    path = _file(str(value))
    nothing = not str(value).strip()
    if nothing or (not os.path.exists(path) and not {".", "/", os.sep} & set(str(value))):
        raise ValueError("must be none, a share below 1, self, by-label, or a file that is there")
    return path


def _file(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def share_or_number(of: str) -> AfterValidator:
    """That a setting is a share below 1, or a whole number of what it counts."""

    def check(value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError(f"must be a number of {of}, or a share below 1")
        return value

    return AfterValidator(check)


class Settings(Strict):
    """A method's own settings, validated where they enter. Subclasses add fields with help."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    loss: Literal["vocabulary", "among-labels"] = Field(
        "vocabulary",
        description="of an answer's tokens: the softmax over the whole vocabulary, or over what "
        "the task's labels allow next",
    )
    replay: Annotated[float | str, BeforeValidator(_replay)] = Field(
        "none",
        description="what later stages rehearse: a share of their examples, kept of each task "
        "(0.05); `self`, the model's own answers to neutral texts; `by-label`, those to what the "
        "base model writes about a task's question and labels; or a file of general examples",
    )
    replay_budget: Literal["on-top", "same"] = Field(
        "on-top",
        description="on-top: beside all of a stage's own examples; same: in place of some, so that "
        "a stage has as many as without",
    )
    reservoir: Count = Field(
        100, description="replay with a share or a file: examples kept of each task, or of the file"
    )
    replay_share: float | None = Field(
        None,
        gt=0,
        le=MOST_MIXED,
        description="replay with a file: the share of a stage's examples that it makes up (0.05); "
        "by default each of the reservoir comes once an epoch",
    )
    keep_by: Literal["uniform", "surprise", "text-surprise"] = Field(
        "uniform",
        description="which examples of a task are kept: drawn, every label with its share; those "
        "whose answers the model finds least likely after training (surprise), or whose texts "
        "before it (text-surprise: SuRe)",
    )
    neutral: Annotated[str, AfterValidator(_file)] | None = Field(
        None,
        description="replay=self: a file of texts that have nothing to do with any task; by "
        "default the base model writes some by itself",
    )
    neutral_texts: Count = Field(
        128, description="replay=self or by-label: how many texts each task is asked"
    )
    rehearsal: Literal["drawn", "soft"] = Field(
        "drawn",
        description="replay=self or by-label: an answer drawn from what the model thought of each "
        "label, or (soft) all of what it thought, as a divergence at the answer's tokens",
    )

    frozen_layers: Annotated[float, Field(ge=0, le=LARGEST), share_or_number("layers")] = Field(
        0,
        description="after the first stage: so many of the lowest layers, or this share below 1, "
        "stay as they are, with the input embeddings",
    )

    max_kl: PerStage = Field(
        0.0,
        description="end a stage early once KL(before ‖ now) at answers of its own training "
        "examples is beyond this, in nats; 0: never; one value or one per stage",
    )

    @model_validator(mode="after")
    def _one_climbs(self) -> "Settings":
        names = [name for name in type(self).model_fields if getattr(self, name) == "auto"]
        if len(names) > 1:
            raise ValueError(f"only one weight can be found at a time, not {' and '.join(names)}")
        return self

    @model_validator(mode="after")
    def _of_rehearsal(self) -> "Settings":
        other = {
            name
            for name in self.model_fields_set
            if getattr(self, name) != type(self).model_fields[name].default
        }
        needs = {"neutral": OWN_ANSWERS[:1], "neutral_texts": OWN_ANSWERS, "rehearsal": OWN_ANSWERS}
        for name, wanted in needs.items():
            if name in other and self.replay not in wanted:
                known = " or ".join(wanted)
                raise ValueError(
                    f"setting '{name}' needs replay={known}, and replay is {self.replay}"
                )
        for name in ("reservoir", "replay_budget"):
            if name in other and self.replay == "none":
                raise ValueError(f"setting '{name}' needs something to replay, and replay is none")
        if self.replay_share is not None and not self.replays_file:
            raise ValueError(
                f"setting 'replay_share' needs a file to replay, and replay is {self.replay}"
            )
        return self

    @property
    def replays_file(self) -> bool:
        """Whether `replay` is a file of general examples."""
        return isinstance(self.replay, str) and self.replay not in ("none", *OWN_ANSWERS)


FREE = tuple(Settings.model_fields)
"""The settings that every method has that trains on data."""


def per_stage(value: float | Sequence[float] | str, stage: int, name: str) -> float:
    """The value of a setting at stage 1, 2, …: one for all, or one per stage.

    That of `auto` is 1: the weight is found then. Raises NloraError if a list is too short.
    """
    if isinstance(value, str):
        return 1.0
    if not isinstance(value, Sequence):
        return value
    if stage > len(value):
        raise NloraError(
            f"setting '{name}' lists {len(value)} values, stage {stage} needs one more"
        )
    return value[stage - 1]
