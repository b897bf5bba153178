"""What a stage has of its own: how many rows it uses, and the settings that may differ by stage."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nlora.errors import NloraError, setting
from nlora.methods.base import ONE_PER_STAGE
from nlora.methods.settings import FREE
from nlora.plan.config import LATER, RunConfig, with_todays_names
from nlora.plan.resolve import Choice, Plan, choose

if TYPE_CHECKING:
    from nlora.methods.context import Stage

LIMITS = ("max_train", "max_eval")
"""How many rows of a task are used. A later stage uses all, unless it is told otherwise."""

_ALSO = ("batch_size", "accumulation", *FREE)
"""Settings without a list of values that may differ by stage all the same."""


def own_settings(choice: Choice) -> list[str]:
    """The settings that a stage may have of its own: all that may list one value per stage."""
    fields = [
        (name, info)
        for settings in (choice.run, choice.method.settings)
        for name, info in type(settings).model_fields.items()
    ]
    return [name for name, info in fields if name in _ALSO or ONE_PER_STAGE in info.metadata]


def without_limits(config: RunConfig) -> RunConfig:
    """The configuration over all rows: the limits of a first stage are no later one's."""
    return config.model_copy(update=dict.fromkeys(LIMITS))


def with_settings_of(config: RunConfig, stored: Mapping[str, Any]) -> RunConfig:
    """The configuration with a directory's value of each own setting that it does not name.

    As it is where the two do not go together, to be refused for what else is different.
    """
    known = with_todays_names(stored.get("settings", {}))
    kept = {name: known[name] for name in own_settings(choose(config)) if name in known}
    whole = config.model_copy(update={"settings": {**kept, **config.settings}})
    try:
        choose(whole)
    except NloraError:
        return config
    return whole


def value_at(value: Any, index: int) -> Any:
    """A setting's value at stage 1, 2, …: of a list that has come to its end, the last.

    >>> value_at([0.1, 0.2], 3), value_at(0.1, 3)
    (0.2, 0.1)
    """
    return value[min(index, len(value)) - 1] if isinstance(value, list) else value


def at_stage(plan: Plan, index: int) -> tuple[Plan, list[str]]:
    """The plan with one value of each setting that lists several, and what to tell of it.

    Where a list has none for the stage its last value counts.
    """
    settings, said = plan.settings(), []
    values: dict[str, Any] = {}
    for name in own_settings(plan):
        if isinstance(given := settings.get(name), list):
            values[name] = value_at(given, index)
            if index > len(given):
                said.append(
                    f"setting '{name}' lists {len(given)} values and this is stage {index}: the "
                    f"last one, {values[name]}, counts ({setting(name)} gives another)"
                )
    if not values:
        return plan, said
    config = plan.config.model_copy(update={"settings": {**plan.config.settings, **values}})
    chosen = choose(config, plan.base.recommended)
    run = chosen.run.model_copy(update={"precision": plan.run.precision})
    return replace(plan, method=chosen.method, run=run, config=config), said


def budget(plan: Plan, stage: "Stage") -> dict[str, Any]:
    """What a stage is trained with, for its record: limits, own settings, and rows used of all."""
    settings, asked = plan.settings(), plan.config.settings
    # Of settings that leave no trace, those that were asked for: the directory may have others.
    settings |= {name: asked[name] for name in LATER.keys() & asked.keys() - settings.keys()}
    values = {name: settings[name] for name in own_settings(plan) if name in settings}
    return {
        **{name: getattr(plan.config, name) for name in LIMITS},
        **{name: value_at(value, stage.index) for name, value in values.items()},
        "rows": {data.name: data.used() for data in stage.tasks},
    }


def in_words(rows: Mapping[str, list[int]]) -> str:
    """How many rows of a task are used.

    >>> in_words({"train": [9, 90], "test": [6, 6]})
    '9 of 90 training rows, 6 of 6 test rows'
    """
    names = {"train": "training", "test": "test"}
    parts = [f"{used} of {there} {names[k]} rows" for k, (used, there) in rows.items()]
    return ", ".join(parts)


def check_same(plan: Plan, then: Mapping[str, Any], stored: Mapping[str, Any], task: str) -> None:
    """Raise NloraError if a plan asks for another budget than a task was learned with.

    A limit that is not told, and a setting that is the directory's (`stored`), asks for nothing.
    """
    settings, stored = {**LATER, **plan.settings()}, {**LATER, **stored}
    asked = {name: getattr(plan.config, name) for name in LIMITS}
    pairs = [(k, then.get(k), v) for k, v in asked.items() if v is not None]
    pairs += [
        (name, then[name], settings[name])
        for name in own_settings(plan)
        if name in then and settings[name] != stored.get(name)
    ]
    for name, old, new in pairs:
        if old != new:
            raise NloraError(
                f"'{task}' was learned with {name} {old}, not {new}; what is learned is not "
                "trained again"
            )
