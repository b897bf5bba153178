"""Published settings by method, model and order, as YAML: one file per method or kind of method.

>>> recipe("n-lora-t5-large-order-5").settings["l1"]
0.55
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nlora.errors import NloraError, unknown

Number = int | float
Settings = dict[str, Number | str | list[Number]]

MODELS = {
    "t5-large": "google-t5/t5-large",
    "t5-base": "google-t5/t5-base",
    "llama-7b": "huggyllama/llama-7b",
}
"""The models of the paper, and T5-large's smaller sister, by their short names."""

_UNPUBLISHED_FOR_BASE = "Nothing is published for T5-base: these are the values for T5-large."


class Recipe(BaseModel):
    """Settings of a published run. Lists have one value per task of `stream`.

    `stream` and `paper_model` tell what the settings were published for; they force nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    source: str
    method: str
    stream: str
    model: str
    published: Settings
    """What the source gives."""
    unpublished: Settings
    """What it does not give, and is used instead."""

    @property
    def settings(self) -> Settings:
        """All of them."""
        return {**self.published, **self.unpublished}

    @property
    def paper_model(self) -> str:
        """The model on the Hub."""
        return MODELS[self.model]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    settings: Settings = Field(default_factory=dict)
    unpublished: Settings = Field(default_factory=dict)
    note: str = ""


class _OfModel(_Part):
    source: str
    description: str
    orders: dict[str, _Part]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    methods: list[str]
    models: dict[str, _OfModel]

    def recipes(self) -> Iterator[Recipe]:
        for model, common in self.models.items():
            for stream, own in common.orders.items():
                for method in self.methods:
                    found = _recipe(method, model, stream, common, own)
                    yield found
                    if model == "t5-large":
                        yield _for_base(found)


def _recipe(method: str, model: str, stream: str, common: _OfModel, own: _Part) -> Recipe:
    return Recipe(
        name=f"{method}-{model}-{stream}",
        description=" ".join(filter(None, (common.description, own.note))),
        source=common.source,
        method=method,
        stream=stream,
        model=model,
        published={**common.settings, **own.settings},
        unpublished={**common.unpublished, **own.unpublished},
    )


def _for_base(large: Recipe) -> Recipe:
    return large.model_copy(
        update={
            "name": f"{large.method}-t5-base-{large.stream}",
            "description": f"{_UNPUBLISHED_FOR_BASE} {large.description}",
            "model": "t5-base",
            "published": {},
            "unpublished": large.settings,
        }
    )


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order of their names."""
    from omegaconf import OmegaConf

    found = []
    for file in files("nlora.recipes").iterdir():
        if file.name.endswith(".yaml"):
            content: Any = OmegaConf.to_container(OmegaConf.create(file.read_text("utf-8")))
            found += _File.model_validate(content).recipes()
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: recipe.name)}


def recipe(name: str) -> Recipe:
    """The recipe of this name. Raises NloraError with the nearest names if there is none."""
    if name not in recipes():
        raise unknown("recipe", name, recipes(), "`nlora methods --recipes` lists them")
    return recipes()[name]


def fitting(method: str, stream: str, model: str | None) -> Recipe | None:
    """The recipe of a method on a stream for one of `MODELS`; None where there is none."""
    return recipes().get(f"{method}-{model}-{stream}")


def published_for(asked: str, model: str) -> str:
    """The one of `MODELS` whose recipes a model is run with; `asked` may be `auto`.

    >>> published_for("auto", "google/t5-v1_1-base"), published_for("auto", "tiny-t5")
    ('t5-base', 't5-large')

    Raises NloraError for an unknown name, and for `auto` where nothing is like the model.
    """
    if asked != "auto":
        if asked not in MODELS:
            raise unknown("model with recipes", asked, MODELS)
        return asked
    name = model.lower()
    if "t5" in name:
        return "t5-base" if "base" in name else "t5-large"
    if "llama" in name:
        return "llama-7b"
    raise NloraError(
        f"nothing is published for a model like '{model}'; name one whose recipes it shall be run "
        f"with: --recipe {' or '.join(MODELS)}"
    )
