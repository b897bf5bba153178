"""What a training of one's own begins on top of: a model directory, or adapters of PEFT's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.adapters.given import Given, check_matrices, given
from nlora.adapters.peft_files import read_adapter
from nlora.backbones.catalog import name_of
from nlora.continual.building import stored_targets
from nlora.errors import NloraError, unknown
from nlora.methods.n_lora import NLoraSettings
from nlora.methods.parts.auto import AUTO
from nlora.plan.config import RunConfig, stored_config, with_todays_names
from nlora.plan.resolve import Choice, choose
from nlora.store.directory import ModelDirectory, StageRecord

if TYPE_CHECKING:
    from nlora.adapters.lora import Lora

LIKE = ("rank", "alpha", "target_modules", "consolidation")
"""The settings that all updates of a model have in common."""
ALSO = ("dropout", "prompt", "chat", "max_length", "max_text_tokens")
"""Those of a directory that hold unless another is given: how its tests are asked among them."""
OF_THE_SCRIPT = (
    *("epochs", "batch_size", "accumulation", "learning_rate", "schedule", "weight_decay"),
    *("max_grad_norm", "max_kl", "loss", "frozen_layers", "packing", "gradient_checkpointing"),
    *("precision", "quantization", "sharding", "deterministic", "checkpoint_every", "report_to"),
)
"""Those that decide nothing here: the script loads the model, and its trainer trains it."""


@dataclass
class Earlier:
    """The updates that are in force, and the settings that a new one shares with them."""

    model: str
    """The base model, as it was loaded."""
    precision: str
    directory: ModelDirectory | None = None
    records: list[StageRecord] = field(default_factory=list)
    """The stages that the directory had."""
    adapters: list[Given] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """Folders or Hub names of the adapters."""
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.adapters if self.directory is None else self.records)

    def put_into(self, adapter: Lora) -> None:
        """Let them be active in a fresh adapter, one after another.

        Raises NloraError where they adapt other matrices.
        """
        if self.directory is not None:
            paths = self.directory.update_paths(known=self.records)
            for path in paths[-1:]:  # all of a directory are alike
                check_matrices(read_adapter(path), adapter.factors())
            adapter.load(paths)
        for found in self.adapters:
            adapter.begin()
            adapter.put(found.factors(adapter.factors()))
            adapter.consolidate()


def earlier_updates(model: Any, previous: str | Path | Iterable[str | Path]) -> Earlier:
    """What `previous` names: a model directory alone, or adapters, oldest first.

    Raises NloraError for what is neither, and for a directory that no fresh LoRA adapter goes on.
    """
    one = isinstance(previous, str | os.PathLike)
    places = [str(place) for place in ([previous] if one else previous)]  # type: ignore[list-item,union-attr]
    precision = "fp32" if str(model.dtype) == "torch.float32" else "bf16"
    found = Earlier(name_of(str(model.name_or_path)), precision)
    directories = [place for place in places if (Path(place) / "model.json").is_file()]
    if not directories:
        found.sources = places
        found.adapters = [given(place) for place in places]
        found.settings = _like(found.adapters)
        return found
    if len(places) > 1:
        raise NloraError(
            f"{directories[0]} is a model directory, which is gone on from alone: it has all its "
            "updates; of one stage give the folder stages/*/update"
        )
    return _of_directory(found, ModelDirectory(Path(places[0])))


def _of_directory(found: Earlier, directory: ModelDirectory) -> Earlier:
    config = stored_config(directory)
    method = choose(config).method
    if method.adapter != "lora" or method.continues or method.scales_earlier:
        raise NloraError(
            f"{directory.path} holds method '{config.method}', and here each update is a LoRA "
            "adapter of its own on top of the others, as with n-lora"
        )
    precision = directory.precision()
    if precision not in (None, found.precision):
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[str(precision)]
        raise NloraError(
            f"{directory.path} is in {precision}; load the model with dtype=torch.{dtype}"
        )
    stored = with_todays_names(directory.config().get("settings", {}))
    found.directory, found.records = directory, directory.stages()
    stored = {"consolidation": "sum", **stored}
    known = (*LIKE, *ALSO)
    found.settings = {name: stored[name] for name in known if stored.get(name) is not None}
    if "target_modules" not in found.settings and (chosen := stored_targets(directory)):
        found.settings["target_modules"] = chosen
    return found


def _like(adapters: list[Given]) -> dict[str, Any]:
    """The settings of an update that has room for each adapter's."""
    if not adapters:
        return {}
    largest = max(adapters, key=lambda one: one.rank)
    return {**largest.settings(), "target_modules": adapters[0].target_modules}


def training_choice(
    earlier: Earlier,
    penalty: str,
    orthogonal: float | bool,
    weight: float | str,
    settings: Mapping[str, Any],
) -> Choice:
    """The method and settings that a new update is trained with.

    Raises NloraError as `choose`, and for settings that would not be in force.
    """
    for name in settings:
        if name in OF_THE_SCRIPT:
            raise NloraError(
                f"setting '{name}' decides nothing here, where your own script loads the model and "
                "trains it; set it there, and leave it out"
            )
    asked = {**{name: v for name, v in earlier.settings.items() if name in ALSO}, **settings}
    for name in LIKE:
        known = earlier.settings.get(name)
        if known is not None and asked.setdefault(name, known) != known and _fixed(earlier, name):
            raise NloraError(
                f"setting '{name}' is {asked[name]!r}, and that of the earlier updates is "
                f"{known!r}; leave it out"
            )
    if penalty == "none":
        asked["l1"] = 0.0
    elif isinstance(weight, str):
        if weight != "relative":
            raise unknown("weight", weight, ["relative", "a number"])
        asked.setdefault("l1", NLoraSettings.model_fields["l1"].default)
        asked["l1_unit"] = "relative"
    else:
        asked = {"l1_unit": "sum", **asked, "l1": weight}
    if found := [name for name, value in asked.items() if value == AUTO]:
        raise NloraError(
            f"setting '{found[0]}': a weight that is '{AUTO}' is found by a task's dev examples, "
            "which a training of one's own does not give; give a number"
        )
    overlap = 0.5 if orthogonal is True else float(orthogonal)
    if overlap:
        asked["orthogonality_weight"] = overlap
    return choose(
        RunConfig(
            model=earlier.model,
            method="o-lora" if overlap else "n-lora",
            settings={**asked, "precision": earlier.precision, "penalty": penalty},
        )
    )


def _fixed(earlier: Earlier, name: str) -> bool:
    """Whether a setting must be that of the earlier updates: an adapter fits into a larger rank."""
    return earlier.directory is not None or name == "target_modules"
