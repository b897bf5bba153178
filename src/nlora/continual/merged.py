"""One plain model of a base and its updates, in fp32: of a model directory, or a PEFT adapter."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nlora.adapters.base import Adapter, ties_told
from nlora.adapters.given import Given
from nlora.adapters.lora import Lora
from nlora.backbones.catalog import Base
from nlora.backbones.load import Backbone, load, own_dtype
from nlora.continual.building import weights_dtype
from nlora.continual.cards import plain_model
from nlora.continual.model import ContinualModel
from nlora.continual.offsets import TOLD, beside
from nlora.continual.survival import PROMPTS, Change, changes, logits, parameters
from nlora.errors import NloraError
from nlora.plan.resolve import Plan
from nlora.progress import Progress
from nlora.store.directory import ModelDirectory
from nlora.store.records import Offsets

NEUTRAL = (
    "The meeting was moved to Thursday because two people were away.",
    "What is the capital of France?",
    "The service was slow, but the food was worth the wait.",
    "def add(a, b):\n    return a + b",
    "Dear team, please find the report attached.",
    "The committee will decide on the budget next week.",
)
"""Inputs where there are no tests."""


@dataclass(frozen=True)
class Merged:
    """A plain model with all updates in its weights, in fp32, and what it is measured by."""

    model: Any
    tokenizer: Any
    base: dict[str, Tensor]
    """The parameters before, by name."""
    change: Change
    inputs: Sequence[list[int]]
    """Held-out inputs, as token ids."""
    logits: Sequence[Tensor]
    """Of the trained model after each of them, before its updates were merged."""
    beside: dict[str, Any] = field(default_factory=dict)
    """JSON values that lie beside it, by the names of their files."""
    prompts: dict[str, str] = field(default_factory=dict)
    """Of each task, with {text} where its text goes."""
    notes: dict[str, str] = field(default_factory=dict)
    """What is not exact, in words."""
    card: Callable[[dict[str, Any]], str] | None = None
    """Makes a model card of what was measured."""


def of_directory(
    plan: Plan,
    directory: ModelDirectory,
    progress: Progress,
    match: Callable[[ContinualModel], Mapping[str, Offsets]] | None = None,
) -> Merged:
    """The model of a directory; `match` finds offsets of tasks, instead of those in force."""
    notes, kind = {}, plan.run.quantization
    if kind != "none":
        notes["quantization"] = (
            f"the updates were trained on {kind} weights and are merged into the plain ones, so "
            "some answers may differ"
        )
    held = torch.float32 if kind != "none" else weights_dtype(plan)
    own = str(own_dtype(plan.base)).removeprefix("torch.")
    if held == torch.bfloat16 and own != "bfloat16":
        notes["base"] = (
            f"training held the base model in bfloat16, and it is published in {own}: what is "
            "written is what was trained, the base rounded to bfloat16 with the updates, and not "
            "the published weights with them"
        )
    rule = plan.settings().get("consolidation")
    trained = directory.config().get("settings", {}).get("consolidation", rule)
    if rule != trained:
        notes["consolidation"] = (
            f"the updates are merged as '{rule}', and accuracies are of the model that they made "
            f"in training, as '{trained}'"
        )
    for line in notes.values():
        progress.message(line)
    model = ContinualModel.begin(plan, directory, progress, fp32=True)
    matched = match(model) if match else {}
    files = beside(model.records, model.stream, matched)
    if files:
        notes["answers"] = TOLD
        progress.message(TOLD)
    if matched:
        notes["accuracy"] = f"accuracies are without the offsets of {', '.join(matched)}"
    examples = list(dict.fromkeys(e for data in model.stream for e in data.test))
    chosen = examples[:: max(len(examples) // PROMPTS, 1)][:PROMPTS]
    inputs = [ids for ids, _ in model.encoder.prompts(chosen)] or _neutral(model.backbone)
    found = _merged(model.adapter, model.backbone, parameters(load(plan.base, held).model), inputs)
    prompt = model.encoder.prompter.prompt
    prompts = {data.name: prompt(data.task, "{text}") for data in model.stream}
    card = partial(plain_model, plan, directory)
    return replace(found, beside=files, prompts=prompts, notes=notes, card=card)


def of_adapter(base: Base, given: Given) -> Merged:
    """A base model with a plain LoRA adapter. Raises NloraError where it does not fit."""
    backbone = load(base, torch.float32)
    if backbone.quantized is not None:
        raise NloraError(
            f"the base model is stored quantised ({backbone.quantized}), and an adapter cannot be "
            "merged into such weights; use it as it is"
        )
    adapter = Lora(backbone.model, given.rank, given.alpha, 0.0, given.target_modules)
    adapter.begin()
    adapter.put(given.factors(adapter.factors()))
    adapter.consolidate()
    published = parameters(load(base, torch.float32).model)
    return _merged(adapter, backbone, published, _neutral(backbone))


def _merged(
    adapter: Adapter, backbone: Backbone, base: dict[str, Tensor], inputs: Sequence[list[int]]
) -> Merged:
    trained = logits(adapter.model, inputs)
    changed = changes(adapter, base)
    plain = ties_told(adapter.merged())
    return Merged(plain, backbone.tokenizer, base, changed(parameters(plain)), inputs, trained)


def _neutral(backbone: Backbone) -> list[list[int]]:
    return [backbone.tokenizer(text).input_ids for text in NEUTRAL]
