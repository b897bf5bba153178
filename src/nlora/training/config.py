"""A run's configuration: what is asked for, and what it resolves to.

Precedence, lowest first: defaults (a method's own where its paper has another optimiser), the
model's recommended settings, a recipe, a configuration file, flags and `key=value` overrides.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from nlora.data.prompts import PromptForm
from nlora.errors import NloraError, unknown
from nlora.methods.base import ONE_PER_STAGE, Method, PerStage
from nlora.methods.registry import Entry, method, setting_error
from nlora.models.catalog import BUILT_IN, EVERY

Evaluate = Literal["seen", "next", "all"]

Schedule = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]
"""Transformers' schedules that need no arguments of their own."""


def _positive(value: Any) -> Any:
    for number in value if isinstance(value, list) else [value]:
        if not number > 0:
            raise ValueError("must be greater than 0")
    return value


Count = Annotated[int, Field(gt=0, lt=2**31)]


class RunSettings(BaseModel):
    """Settings that are the same for every method."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Annotated[int | list[int], AfterValidator(_positive), ONE_PER_STAGE] = Field(
        1, description="passes over a stage's examples, one value or one per stage"
    )
    batch_size: Count = Field(16, description="examples per optimiser step")
    accumulation: Count = Field(
        1, description="micro-batches that a step's batch is split into, to save memory"
    )
    learning_rate: PerStage = Field(1e-3, description="one value or one per stage")
    schedule: Schedule = Field("constant", description="of the learning rate within a stage")
    optimizer: str = Field("adamw_torch", description="optimiser (Transformers' names)")
    weight_decay: float = Field(0.0, ge=0, description="of the optimiser")
    max_grad_norm: float = Field(1.0, ge=0, description="clip gradients at this norm; 0 for not")
    max_length: Count = Field(512, description="longest prompt, in tokens")
    max_text_tokens: Count | None = Field(None, description="cut the text alone to so many tokens")
    max_new_tokens: Count = Field(50, description="longest answer in evaluation")
    eval_tokens: Count = Field(2048, description="tokens in a batch of evaluation")
    rank: Count = Field(8, description="of LoRA")
    alpha: float = Field(32.0, gt=0, description="LoRA's α: ΔW = (α/rank)·B·A")
    dropout: float = Field(0.1, ge=0, lt=1, description="LoRA's dropout")
    target_modules: str | list[str] | None = Field(
        None, description="matrices that LoRA adapts; PEFT's choice for the model by default"
    )
    history_rank: Count = Field(
        128, description="bf16 models: rank beyond which the earlier updates are recompressed"
    )
    prompt: PromptForm = Field(
        "paper", description="paper: no data set name; released: with the Task/Dataset prefix"
    )
    chat: bool = Field(False, description="wrap prompts in the model's chat template")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto is bf16 where the hardware is faster with it"
    )
    shared_prefix: Literal["auto", "off"] = Field(
        "auto", description="auto reads what all prompts of a batch begin with only once"
    )
    gradient_checkpointing: bool = Field(False, description="save memory, take longer")
    deterministic: bool = Field(
        False, description="on a GPU: the same numbers each time, slower (a CPU always does)"
    )
    report_to: str = Field("none", description="a tracker that Transformers knows (tensorboard, …)")


def absolute(path: str) -> str:
    """The path as it is found from any working directory, `~` expanded."""
    # Unlike Path.expanduser, os.path leaves "~stranger" as it is, to be reported as missing.
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
    settings: dict[str, Any] = Field(default_factory=dict)
    """Run settings and the method's own, flat."""


DERIVED = ("format", "base", "tasks", "versions")
"""What `model.json` holds beside the configuration."""


class Plan(BaseModel):
    """A resolved configuration: the method built, every setting validated and filled in."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    config: RunConfig
    entry: Entry
    method: Method
    run: RunSettings

    def settings(self) -> dict[str, Any]:
        """All settings as resolved, flat, as `model.json` holds them."""
        own = self.method.settings.model_dump(mode="json")
        return {**self.run.model_dump(mode="json"), **own}

    def check_lists(self, stages: int, exactly: bool = True) -> None:
        """Raise NloraError if a setting lists values for another number of stages.

        Without `exactly`, for fewer.
        """
        for settings in (self.run, self.method.settings):
            for name, field in type(settings).model_fields.items():
                value = getattr(settings, name)
                if ONE_PER_STAGE not in field.metadata or not isinstance(value, list):
                    continue
                if len(value) < stages or (exactly and len(value) > stages):
                    raise NloraError(
                        f"setting '{name}' lists {len(value)} values for {stages} stages; "
                        "give one value for all, or one per stage"
                    )


def plan(config: RunConfig, recommended: dict[str, dict] | None = None) -> Plan:
    """Resolve a configuration. Raises NloraError for an unknown or bad setting.

    `recommended` are the model's settings by carrier.
    """
    entry = method(config.method, Path(config.plugin) if config.plugin else None)
    own_names = set(entry.kind.Settings.model_fields)
    run_names = set(RunSettings.model_fields)
    for name in config.settings:
        if name not in own_names | run_names:
            raise unknown(f"setting of {config.method}", name, own_names | run_names)
    own = {k: v for k, v in config.settings.items() if k in own_names}
    built = entry.build(own)
    run = {
        **CARRIER_DEFAULTS.get(built.carrier, {}),
        **built.run_defaults(),
        **(recommended or {}).get(EVERY, {}),
        **(recommended or {}).get(built.carrier, {}),
        **{k: v for k, v in config.settings.items() if k in run_names},
    }
    try:
        resolved = RunSettings(**run)
    except ValidationError as error:
        raise setting_error(error) from error
    if resolved.batch_size % resolved.accumulation:
        raise NloraError(
            f"setting 'accumulation': {resolved.accumulation} does not divide "
            f"batch_size {resolved.batch_size}"
        )
    return Plan(config=config, entry=entry, method=built, run=resolved)


CARRIER_DEFAULTS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 1e-4},
    "sparse": {"learning_rate": 3e-3},
}
"""Over all parameters LoRA's learning rate is too large, for sparse entries it is too small. Both
were chosen on dev, with agnews and dbpedia (docs/results/README.md)."""


def parse_config(values: dict[str, Any], source: str) -> RunConfig:
    """A configuration from a file's or the command line's values. Raises NloraError."""
    known = set(RunConfig.model_fields)
    for name in values:
        if name not in known:
            raise unknown(f"key in {source}:", name, known)
    try:
        return RunConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else source
        if first["type"] == "missing":
            raise NloraError(f"{source}: '{name}' is needed") from error
        raise NloraError(f"'{name}': {first['msg']}, not {first['input']!r}") from error


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
        raise NloraError(f"--set {' '.join(overrides)}: {str(error).splitlines()[0]}") from error
