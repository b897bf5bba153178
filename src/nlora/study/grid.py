"""The grid of a comparison: streams × methods × seeds, each cell one run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from nlora.backbones.catalog import Base, find
from nlora.data.streams import load_stream
from nlora.data.task import TaskData
from nlora.errors import Faults, NloraError, unknown
from nlora.plan.config import RunConfig, parse_config
from nlora.plan.points import Point
from nlora.plan.resolve import Plan, resolve
from nlora.plan.settings import RunSettings
from nlora.recipes import fitting


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    stream: str
    label: str
    seed: int
    plan: Plan

    @property
    def name(self) -> str:
        """Its folder below the output folder."""
        return f"{folder(self.stream)}/{folder(self.label)}/seed-{self.seed}"

    @property
    def key(self) -> dict[str, Any]:
        """What it is called in the ledger."""
        return {"stream": self.stream, "method": self.label, "seed": self.seed}


@dataclass(frozen=True)
class Grid:
    """All that is asked of a comparison. Every method gets the same data, budget and settings."""

    model: str
    streams: tuple[str, ...]
    points: tuple[Point, ...]
    seeds: tuple[int, ...] = (0,)
    data: str | None = None
    max_train: int | None = None
    max_eval: int | None = None
    evaluate: str = "next"
    settings: dict[str, Any] = field(default_factory=dict)
    """For every method; a mapping is for the method of its name (`{"n-lora": {"l1": 0.1}}`), or the
    value of a setting that takes one (`peft_options`)."""
    plugin: str | None = None
    recipes: str | None = None
    """Each cell begins from the settings published for its method and stream, for this model (one
    of `recipes.MODELS`), where there are any."""
    tune: int = 0
    """Trials of tuning for each method and stream."""
    only: frozenset[tuple[str, str]] | None = None
    """Which streams with which points, by their labels, where not all of them are run."""

    def __post_init__(self) -> None:
        kinds = {
            "stream": [stream_name(s) for s in self.streams],
            "method": [p.label for p in self.points],
            "seed": [str(s) for s in self.seeds],
        }
        for kind, names in kinds.items():
            if not names:
                raise NloraError(f"a comparison needs a {kind}")
            folders = [folder(name) for name in names]
            twice = [n for n, f in zip(names, folders, strict=True) if folders.count(f) > 1]
            if twice:
                raise NloraError(f"{kind} '{twice[-1]}' is named twice, or like another")
        for name, value in self.settings.items():
            known = {p.method for p in self.points}
            if isinstance(value, dict) and name not in (known | RunSettings.model_fields.keys()):
                raise unknown("method with settings", name, known)

    @property
    def common(self) -> dict[str, Any]:
        """The settings of every method, without those of single ones."""
        methods = {p.method for p in self.points}
        given = self.settings.items()
        return {k: v for k, v in given if not (isinstance(v, dict) and k in methods)}

    @cached_property
    def tasks(self) -> dict[str, list[TaskData]]:
        """The tasks of every stream, by its name. Raises NloraError as `load_stream` does."""
        data = Path(self.data) if self.data else None
        faults = Faults()
        read = {s: faults.attempt(partial(load_stream, s, data)) for s in self.streams}
        faults.check()
        return {stream_name(s): tasks for s, tasks in read.items() if tasks is not None}

    @cached_property
    def base(self) -> Base:
        """The base model, found once for all cells."""
        return find(self.model)

    def settings_of(self, stream: str, point: Point) -> dict[str, Any]:
        """The settings that a point is run with: its own win over its method's, the common, and a
        recipe's."""
        published = fitting(point.method, stream_name(stream), self.recipes)
        of_method = self.settings.get(point.method)  # or a setting of that name, such as replay
        named = of_method if isinstance(of_method, dict) else {}
        own = {**self.common, **named, **point.settings}
        return {**(published.settings if published else {}), **own}

    def without_recipe(self) -> list[str]:
        """The cells (method on stream) for which nothing is published, though it was asked for."""
        if self.recipes is None:
            return []
        found = [(p, stream_name(s)) for s, p in self.pairs()]
        return [f"{p.label} on {s}" for p, s in found if not fitting(p.method, s, self.recipes)]

    def config(self, stream: str, point: Point, seed: int, **settings: Any) -> RunConfig:
        """What one cell asks for, with further settings (those that tuning chose)."""
        values = {
            "model": self.model,
            "method": point.method,
            "stream": stream,
            "data": self.data,
            "seed": seed,
            "max_train": self.max_train,
            "max_eval": self.max_eval,
            "evaluate": self.evaluate,
            "plugin": self.plugin,
            "settings": {**self.settings_of(stream, point), **settings},
        }
        return parse_config(values, f"cell {point.label}")

    def cell(self, stream: str, point: Point, seed: int, **settings: Any) -> Cell:
        """One run, resolved. Raises NloraError for all that is wrong with it."""
        name = stream_name(stream)
        config = self.config(stream, point, seed, **settings)
        return Cell(name, point.label, seed, resolve(config, self.tasks[name], self.base))

    def pairs(self) -> Iterator[tuple[str, Point]]:
        """Every stream with every point, or those of them that are run."""
        every = ((stream, point) for stream in self.streams for point in self.points)
        return (
            (stream, point)
            for stream, point in every
            if self.only is None or (stream, point.label) in self.only
        )


def stream_name(stream: str) -> str:
    """The short name of a stream: a YAML file goes by its name without folder and ending.

    >>> stream_name("Order-1"), stream_name("agnews, dbpedia"), stream_name("my/tasks.yaml")
    ('order-1', 'agnews,dbpedia', 'tasks')
    """
    path = Path(stream.strip())
    if path.suffix.lower() in (".yaml", ".yml") or path.is_file():
        return path.stem
    return stream.lower().replace(" ", "")


def folder(name: str) -> str:
    """A name in characters fit for a folder on any system.

    >>> folder("inc-lora:routing=input,consolidation=largest")
    'inc-lora,routing=input,consolidation=largest'
    """
    return re.sub(r"[^\w.+=,-]+", "-", name.replace(":", ","))


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds separated by commas. Raises NloraError for anything else.

    >>> parse_seeds("0,1,2")
    (0, 1, 2)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise NloraError(f"--seeds takes numbers such as 0,1,2, not '{text}'")
    return tuple(int(part) for part in parts)
