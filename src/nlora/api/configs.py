"""What is asked for as keyword arguments or on the command line, as one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora import processes
from nlora.api.arguments import check, plain
from nlora.errors import NloraError

if TYPE_CHECKING:
    from nlora.methods.base import Method

Place = str | Path


def configuration(
    settings: Mapping[str, Any] | None = None,
    recipe: str | None = None,
    config: Place | None = None,
    replay: str | float | None = None,
    neutral: Place | None = None,
    method: str | type[Method] | None = None,
    **given: Any,
) -> dict[str, Any]:
    """The values of a `RunConfig`: the recipe's, the file's over them, then those given.

    A class of one's own as `method` is registered under its name. Raises NloraError for a recipe
    or file that is none, and for settings that are no mapping.
    """
    check(settings=settings, recipe=recipe, config=config)
    from nlora.plan.config import DERIVED, read_mapping, with_todays_names

    values: dict[str, Any] = {}
    found_settings: dict[str, Any] = {}
    if recipe is not None:
        from nlora.recipes import recipe as find

        found = find(recipe)
        values = {"method": found.method, "stream": found.stream}
        found_settings = dict(found.settings)
    if config is not None:
        document = {k: v for k, v in read_mapping(Path(config)).items() if k not in DERIVED}
        stored = document.pop("settings", None) or {}
        if not isinstance(stored, dict):
            raise NloraError(f"{config}: 'settings' must be a mapping")
        values |= document
        found_settings |= stored
    given = {"method": method_name(method), **given}
    values |= {
        name: str(value) if isinstance(value, Path) else value
        for name, value in given.items()
        if value is not None
    }
    if processes.asked_to_shard():
        found_settings.setdefault("sharding", "fsdp")
    asked = with_todays_names(found_settings) | with_todays_names(plain(settings or {}))
    return {**values, "settings": asked | rehearsal(replay, neutral)}


def rehearsal(replay: str | float | None, neutral: Place | None) -> dict[str, Any]:
    """The settings that `replay` and `neutral` stand for."""
    found = {"replay": replay, "neutral": None if neutral is None else str(neutral)}
    return {name: value for name, value in found.items() if value is not None}


def method_name(method: str | type[Method] | None) -> str | None:
    """The name of a method; a class of one's own is registered under it."""
    if method is None or isinstance(method, str):
        return method
    from nlora.methods.registry import register

    return register(method)
