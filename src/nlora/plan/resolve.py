"""A configuration resolved, once: everything below receives the plan and decides nothing again.

Precedence of settings, lowest first: defaults (an adapter's, then a method's own where its paper
has another optimiser), the model's recommended settings, a recipe, a configuration file, flags and
`key=value` overrides. A recipe, a file and flags are one `RunConfig` already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nlora.adapters.given import given_name
from nlora.backbones.catalog import EVERY, Base, check_hub, find
from nlora.backbones.hardware import bf16_is_faster
from nlora.data.streams import load_stream
from nlora.data.task import TaskData, sample
from nlora.errors import Faults, NloraError, option, unknown
from nlora.methods.base import ONE_PER_STAGE, Method
from nlora.methods.registry import Entry, setting_error
from nlora.methods.registry import method as entry_of
from nlora.plan.config import RunConfig, told
from nlora.plan.given import check_goes_on, check_names, known_task, settings_of
from nlora.plan.settings import RunSettings

if TYPE_CHECKING:
    from nlora.methods.context import Stage

ADAPTER_DEFAULTS: dict[str, dict[str, Any]] = {
    "full": {"learning_rate": 1e-4},
    "sparse": {"learning_rate": 3e-3},
}
"""Over all parameters LoRA's learning rate is too large, for sparse entries it is too small. Both
were chosen on dev, with agnews and dbpedia (docs/results/README.md)."""


@dataclass(frozen=True)
class Choice:
    """A method with its settings and the run's, before there is a model."""

    entry: Entry
    method: Method
    run: RunSettings

    def settings(self) -> dict[str, Any]:
        """All settings, flat, as `model.json` holds them (`plan.config.told`)."""
        own = self.method.settings.model_dump(mode="json")
        return told({**self.run.model_dump(mode="json"), **own})

    def check_lists(self, stages: int, exactly: bool = True) -> None:
        """Raise NloraError if a setting lists values for another number of stages.

        Without `exactly`, for fewer.
        """
        for settings in (self.run, self.method.settings):
            for name, info in type(settings).model_fields.items():
                value = getattr(settings, name)
                if ONE_PER_STAGE not in info.metadata or not isinstance(value, list):
                    continue
                if len(value) < stages or (exactly and len(value) > stages):
                    raise NloraError(
                        f"setting '{name}' lists {len(value)} values for {stages} stages; "
                        "give one value for all, or one per stage"
                    )


@dataclass(frozen=True)
class Plan(Choice):
    """A run as it will be done: method, settings, base model, precision and data are known.

    It can be sent to another process.
    """

    config: RunConfig
    """As it was asked."""
    base: Base
    """The base model, found and fingerprinted."""
    stream: tuple[TaskData, ...] = field(default=(), repr=False)
    """The tasks, with the examples that are used."""

    def stages(self) -> "list[Stage]":
        """What is trained one after another, after the stage that an adapter stands for.

        The task that the adapter knows, if it is told, is the first of the stream.
        """
        from nlora.methods.context import Stage

        seed, tasks = self.config.seed, trained(self.stream)
        planned: list[tuple[str, tuple[TaskData, ...]]] = []
        if self.config.from_adapter is not None:
            known = tasks[:1] if self.config.knows else []
            tasks = tasks[len(known) :]
            name = known[0].name if known else given_name(self.config.from_adapter)
            planned.append((name, tuple(known)))
        planned += self.method.stages(tasks)
        stages, known = [], set[str]()
        for index, (name, data) in enumerate(planned, start=1):
            names = {one.name for one in data}
            again = bool(names & known)
            number = (seed * 1000 + index) % 2**32  # NumPy's bound
            stages.append(Stage(index, name, data, seed=number, again=again))
            known |= names
        return stages

    @property
    def only_tested(self) -> list[TaskData]:
        """The tasks that are tested and not trained."""
        return [data for data in self.stream if data.only_tested]

    @property
    def tested_first(self) -> list[TaskData]:
        """The tasks that are tested before anything is trained."""
        return self.only_tested if self.config.evaluate == "seen" else list(self.stream)

    def stages_tested(self, number: int, stages: int) -> int:
        """Of so many `stages`, the tasks of how many are tested after stage `number`, at most."""
        return {"seen": number, "next": number + 1, "all": stages}[self.config.evaluate]

    def with_stream(self, stream: Sequence[TaskData]) -> "Plan":
        """The same plan over other tasks, whose examples are those that are used."""
        return replace(self, stream=tuple(stream))

    def check_metrics(self) -> None:
        """Raise NloraError for a metric of a task that is not known here."""
        for data in self.stream:
            self.method.metric(data.task)

    def with_precision(self, precision: str | None) -> "Plan":
        """The plan in the precision in which its directory was begun, if `auto` was asked for.

        A directory goes on as it began, also on a machine that would have chosen otherwise.
        """
        asked = self.config.settings.get("precision", "auto")
        if precision is None or asked != "auto" or precision == self.run.precision:
            return self
        return replace(self, run=self.run.model_copy(update={"precision": precision}))

    def __reduce__(self) -> tuple[Any, ...]:
        """As what it was resolved from: a method of a plug-in has no module to be imported by."""
        return _again, (self.config, self.base, self.stream, self.run.precision)


def choose(config: RunConfig, recommended: Mapping[str, dict[str, Any]] | None = None) -> Choice:
    """The method and all settings of a configuration, without looking for its model or its data.

    `recommended` are a model's settings by adapter. Raises NloraError for an unknown or bad one.
    """
    entry = entry_of(config.method, Path(config.plugin) if config.plugin else None)
    own_names = set(entry.kind.Settings.model_fields)
    known = own_names | set(RunSettings.model_fields)
    for name in config.settings:
        if name not in known:
            raise unknown(f"setting of {config.method}", name, known)
    method = entry.build({k: v for k, v in config.settings.items() if k in own_names})
    choice = Choice(entry, method, _run_settings(config, method, recommended or {}))
    choice.check_lists(1, exactly=False)  # a list of no values
    return choice


def _run_settings(
    config: RunConfig, method: Method, recommended: Mapping[str, dict[str, Any]]
) -> RunSettings:
    values = {
        **ADAPTER_DEFAULTS.get(method.adapter, {}),
        **method.run_defaults(),
        **recommended.get(EVERY, {}),
        **recommended.get(method.adapter, {}),
        **{k: v for k, v in config.settings.items() if k in RunSettings.model_fields},
    }
    try:
        run = RunSettings(**values)
    except ValidationError as error:
        raise setting_error(error) from error
    if run.batch_size % run.accumulation:
        raise NloraError(
            f"setting 'accumulation': {run.accumulation} does not divide "
            f"batch_size {run.batch_size}"
        )
    return run


def resolve(
    config: RunConfig,
    stream: Sequence[TaskData] | None = None,
    base: Base | None = None,
    whole: bool = True,
    precision: str | None = None,
) -> Plan:
    """The plan of a configuration: its method, settings, data and base model, each found once.

    `stream` stands in for the one that the configuration names, and `base` for the model that was
    found already, where a grid has the same one in every cell. With `whole` the stream is all that
    will be learned, and settings that list values must list one per stage. `precision` is that of
    a directory that goes on, where the settings leave it open. Raises NloraError for all that is
    wrong, before anything is downloaded where that is possible.
    """
    faults = Faults()
    choice = faults.attempt(lambda: choose(config))  # should not wait for a download
    if choice is not None and config.from_adapter is not None:
        check_goes_on(choice.method, config.from_adapter)
        settings = settings_of(config.from_adapter, config.settings)
        config = config.model_copy(update={"settings": settings})
    if stream is None:
        stream = faults.attempt(lambda: _stream(config))
    faults.check()
    assert choice is not None
    assert stream is not None
    method = choice.method
    if whole:
        method.check()
        if not trained(stream):
            raise NloraError("no task of the stream has training examples to learn from")
        stages = method.stages(trained(stream))
        if stages:
            choice.check_lists(len(stages) + (config.from_adapter is not None))
        elif config.evaluate == "seen":
            raise NloraError(
                f"{config.method} trains nothing: give {option('evaluate', 'next')}, or all"
            )
        if config.knows is not None:
            stream = [known_task(config.knows), *stream]
            check_names(stream)
        for data in stream:
            method.metric(data.task)
    if base is None:
        base = find(config.model)
        if whole:
            check_hub(base)
    run = _run_settings(config, method, base.recommended)
    if run.precision == "auto":
        chosen = precision or ("bf16" if bf16_is_faster() else "fp32")
        run = run.model_copy(update={"precision": chosen})
    tasks = tuple(sampled(data, config) for data in stream)
    method.check_tasks([data for data in tasks if data.train])
    return Plan(choice.entry, method, run, config, base, tasks)


def _stream(config: RunConfig) -> list[TaskData]:
    if config.stream is None:
        raise NloraError(f"which stream? give {option('stream')}; `nlora streams` lists them")
    return load_stream(config.stream, Path(config.data) if config.data else None)


def trained(stream: Sequence[TaskData]) -> list[TaskData]:
    """The tasks without those that are only tested."""
    return [data for data in stream if not data.only_tested]


def sampled(data: TaskData, config: RunConfig) -> TaskData:
    """At most `max_train` examples by the seed and `max_eval` that do not depend on it."""
    return replace(
        data,
        train=sample(data.train, config.max_train, config.seed),
        test=sample(data.test, config.max_eval, seed=0),
        rows=data.rows or (len(data.train), len(data.test)),
    )


def _again(config: RunConfig, base: Base, stream: tuple[TaskData, ...], precision: str) -> Plan:
    chosen = choose(config, base.recommended)
    run = chosen.run.model_copy(update={"precision": precision})
    return Plan(chosen.entry, chosen.method, run, config, base, stream)
