"""Settings that are the same for every method."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from nlora.adapters.settings import AdapterSettings, Count
from nlora.backbones.attention import Attention
from nlora.data.prompts import PromptForm
from nlora.methods.base import LARGEST, ONE_PER_STAGE, PerStage

UNUSUAL = 1.0
"""A learning rate beyond this is more likely a slip than a choice (the largest of the recipes, for
soft prompts with Adafactor, is 0.5)."""

Schedule = Literal[
    "constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt"
]
"""Transformers' schedules that need no arguments of their own."""


def _positive(value: Any) -> Any:
    for number in value if isinstance(value, list) else [value]:
        if not number > 0:
            raise ValueError("must be greater than 0")
    return value


def _off(value: Any) -> Any:
    """YAML's `off`, which it reads as False, as the word."""
    return "off" if value is False else value


_SECONDS = {"s": 1, "min": 60, "h": 3600}


def interval(every: int | str) -> tuple[int | None, float | None]:
    """`checkpoint_every` as (steps, None), (None, seconds), or (None, None) for never.

    Raises ValueError for what is neither a number of steps nor a time.

    >>> interval(50), interval("10min"), interval("never")
    ((50, None), (None, 600.0), (None, None))
    """
    if every == "never":
        return None, None
    if isinstance(every, int):
        if every < 1:
            raise ValueError("must be at least 1 step; `never` for none")
        return every, None
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?(s|min|h)", every)
    if found is None or not float(found[1]):
        raise ValueError("must be a number of steps, a time (30s, 10min, 2h), or never")
    return None, float(found[1]) * _SECONDS[found[2]]


def _interval(value: int | str) -> int | str:
    interval(value)
    return value


class RunSettings(AdapterSettings):
    """Settings that are the same for every method."""

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
    weight_decay: float = Field(0.0, ge=0, le=LARGEST, description="of the optimiser")
    max_grad_norm: float = Field(
        1.0, ge=0, le=LARGEST, description="clip gradients at this norm; 0 for not"
    )
    max_length: Count = Field(512, description="longest prompt, in tokens")
    max_text_tokens: Count | None = Field(None, description="cut the text alone to so many tokens")
    max_new_tokens: Count = Field(50, description="longest answer in evaluation")
    eval_tokens: Count = Field(2048, description="tokens in a batch of evaluation")
    among_labels: bool | Literal["auto"] = Field(
        "auto",
        description="tests also measure the accuracy of the most likely label; auto: where the "
        "model can read each prompt once for it",
    )
    measure_kl: bool = Field(
        False,
        description="after each stage: how far it moved the model, as the KL divergence between "
        "before and after at answers, by task",
    )
    prompt: PromptForm = Field(
        "paper", description="paper: no data set name; released: with the Task/Dataset prefix"
    )
    chat: bool = Field(False, description="wrap prompts in the model's chat template")
    shared_prefix: Annotated[Literal["auto", "off"], BeforeValidator(_off)] = Field(
        "auto", description="auto reads what all prompts of a batch begin with only once"
    )
    packing: bool = Field(
        False,
        description="decoder-only models: examples of a batch share rows in place of padding, and "
        "each reads itself alone",
    )
    attention: Attention = Field(
        "auto",
        description="how the model attends, by Transformers' names; auto: as is quickest here",
    )
    gradient_checkpointing: bool = Field(False, description="save memory, take longer")
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="fsdp: of several processes (torchrun) each holds a share of the base model",
    )
    deterministic: bool = Field(
        False, description="on a GPU: the same numbers each time, slower (a CPU always does)"
    )
    checkpoint_every: Annotated[int | str, AfterValidator(_interval)] = Field(
        "10min",
        description="a stage that is killed goes on from its last checkpoint: one per so much "
        "time (30s, 10min, 2h), per so many steps (a number), or never",
    )
    report_to: str = Field("none", description="a tracker that Transformers knows (tensorboard, …)")

    def doubts(self) -> list[str]:
        """What is allowed and more likely a slip than a choice, to be told before training."""
        rates = self.learning_rate if isinstance(self.learning_rate, list) else [self.learning_rate]
        return [
            f"learning_rate {rate:g} is far beyond what trains a language model (1e-5 to 1e-2, up "
            f"to {UNUSUAL:g} for soft prompts); is it meant?"
            for rate in dict.fromkeys(rates)
            if rate > UNUSUAL
        ]
