"""Published settings by model and order, as YAML.

>>> recipe("n-lora-t5-large-order-5").settings["l1"]
0.55
"""

from functools import cache
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from nlora.errors import unknown

Number = int | float


class Recipe(BaseModel):
    """Settings of a published run. Lists in `settings` have one value per task of `stream`.

    `stream` and `paper_model` tell what the settings were published for; they force nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    source: str
    method: str
    stream: str
    paper_model: str
    settings: dict[str, Number | str | list[Number]]


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes by name, in the order of their names."""
    from omegaconf import OmegaConf

    found = {}
    for file in sorted(files("nlora.recipes").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".yaml"):
            name = file.name.removesuffix(".yaml")
            content = OmegaConf.to_container(OmegaConf.create(file.read_text(encoding="utf-8")))
            found[name] = Recipe.model_validate({"name": name, **content})  # type: ignore[dict-item]
    return found


def recipe(name: str) -> Recipe:
    """The recipe of this name. Raises NloraError with the nearest names if there is none."""
    if name not in recipes():
        raise unknown("recipe", name, recipes())
    return recipes()[name]
