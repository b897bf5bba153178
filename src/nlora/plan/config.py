"""What is asked for: a run's configuration as a file and the command line give it."""

import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from nlora.adapters.peft_config import read_config
from nlora.adapters.peft_files import adapter_folder
from nlora.backbones.catalog import BUILT_IN
from nlora.errors import NloraError, option, shown, unknown
from nlora.methods.settings import FREE, Settings
from nlora.plan.given import absolute_file
from nlora.store.directory import ModelDirectory

Evaluate = Literal["seen", "next", "all"]

DERIVED = ("format", "base", "tasks", "versions", "sha256")
"""What `model.json` holds beside the configuration."""

RENAMED = {"carrier": "adapter"}
"""Settings that had another name in nlora 0.1, and the one they have now."""
LATER: dict[str, Any] = {
    "attention": "auto",
    "checkpoint_every": "10min",
    "measure_kl": False,
    "packing": False,
    "sharding": "none",
    **{name: Settings.model_fields[name].default for name in FREE},
}
"""Settings that there were not always, and the value at which they leave no trace: configurations
and their hashes are then what they were before."""
RENAMED_VALUES = {("routing", "told"): "task"}
"""Likewise values of settings."""


def absolute(path: str) -> str:
    """The path as it is found from any working directory, `~` expanded."""
    # Unlike Path.expanduser, os.path leaves "~stranger" as it is, to be reported as missing.
    if "\0" in path:
        raise ValueError("cannot name a file: it holds a NUL")
    return os.path.abspath(os.path.expanduser(path))


def _absolute_folder(model: str) -> str:
    folder = absolute(model)
    return folder if os.path.isdir(folder) and model not in BUILT_IN else model


def _absolute_file(stream: str) -> str:
    return absolute(stream) if stream.lower().endswith((".yaml", ".yml")) else stream


class RunConfig(BaseModel):
    """A whole run: `model.json`, and what `--config` reads. Its paths are made absolute."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str, AfterValidator(_absolute_folder)]
    method: str
    stream: Annotated[str, AfterValidator(_absolute_file)] | None = None
    data: Annotated[str, AfterValidator(absolute)] | None = None
    seed: int = Field(default=0, ge=0)
    max_train: PositiveInt | None = None
    max_eval: PositiveInt | None = None
    evaluate: Evaluate = "seen"
    plugin: Annotated[str, AfterValidator(absolute)] | None = None
    from_adapter: Annotated[str, AfterValidator(_absolute_folder)] | None = None
    """A LoRA adapter of PEFT's that stands as the first stage."""
    knows: Annotated[str, AfterValidator(absolute_file)] | None = None
    """The task that it knows: NAME=FILE with its tests, or a YAML file of one entry."""
    settings: Annotated[dict[str, Any], AfterValidator(lambda s: with_todays_names(s))] = Field(
        default_factory=dict
    )
    """Run settings and the method's own, flat."""


def with_todays_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an earlier version of nlora named otherwise, under today's names.

    >>> with_todays_names({"carrier": "lora", "routing": "told"})
    {'adapter': 'lora', 'routing': 'task'}
    """
    found = {RENAMED.get(name, name): value for name, value in settings.items()}
    for (name, old), new in RENAMED_VALUES.items():
        if found.get(name) == old:
            found[name] = new
    return found


def told(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those of `LATER` that have the value which leaves no trace.

    >>> told({"rank": 8, "measure_kl": False})
    {'rank': 8}
    """
    missing = object()
    return {name: v for name, v in settings.items() if LATER.get(name, missing) != v}


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """A configuration from a file's or the command line's values. Raises NloraError."""
    known = set(RunConfig.model_fields)
    for name in values:
        if name not in known:
            raise unknown(f"key in {source}:", name, known)
    if values.get("from_adapter"):
        values = {"method": "n-lora", **values}
        if not values.get("model"):
            values["model"] = _base_of(str(values["from_adapter"]))
    elif values.get("knows"):
        raise NloraError(
            f"{option('knows')} says what an adapter knows; give {option('from_adapter')}, too"
        )
    try:
        return RunConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else source
        if first["type"] == "missing":
            raise NloraError(f"{source}: '{name}' is needed") from error
        said = first["msg"].removeprefix("Value error, ")
        raise NloraError(f"'{name}': {said}, not {shown(first['input'])}") from error


def _base_of(adapter: str) -> str:
    """The base model that an adapter's configuration names. Raises NloraError if it names none."""
    base = read_config(adapter_folder(adapter)).base_model
    if not base:
        raise NloraError(f"{adapter} does not say what its base model is; give {option('model')}")
    return base


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Values of `key=value` texts: numbers, lists and null are read as such (1e-3 is a number).

    >>> parse_overrides(["l1=1e-3", "epochs=[1,10]", "prompt=released"])
    {'l1': 0.001, 'epochs': [1, 10], 'prompt': 'released'}
    """
    from omegaconf import OmegaConf

    overrides = list(overrides)
    for text in overrides:
        if "=" not in text or not text.split("=", 1)[0].strip():
            raise NloraError(f"--set takes key=value, not '{text}'")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist(overrides))  # type: ignore[return-value]
    except Exception as error:
        given = textwrap.shorten(" ".join(overrides), 80, placeholder=" …")
        raise NloraError(f"--set {given}: {str(error).splitlines()[0]}") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON mapping; numbers such as 1e-3 are numbers in both. Raises NloraError."""
    from omegaconf import OmegaConf

    if not path.is_file():
        raise NloraError(f"{path} does not exist")
    try:
        value = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise NloraError(f"{path} is neither YAML nor JSON: {first}") from error
    if not isinstance(value, dict):
        raise NloraError(f"{path} must hold a mapping of keys to values")
    return value  # type: ignore[return-value]


def stored_config(directory: ModelDirectory) -> RunConfig:
    """The configuration in a directory's `model.json`. Raises NloraError if it is none."""
    path = directory.path / "model.json"
    values = {k: v for k, v in directory.config().items() if k not in DERIVED}
    try:
        return parse_config(values, str(path))
    except NloraError as error:
        raise error if str(path) in str(error) else NloraError(f"{path}: {error}") from error
