"""What every hook of a method is given: the stage, the step, and the model in memory.

With it come the services that methods share: the log-likelihood of answers, sampled texts, hidden
states and covariances of inputs, and the model as it was before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import cross_entropy

from nlora import processes
from nlora.adapters.base import Adapter
from nlora.adapters.covariance import InputCovariances, OutputMagnitudes
from nlora.backbones.states import evaluating, mean_state
from nlora.backbones.structure import PLAIN, base_model, end_tokens
from nlora.data.batches import IGNORED, Collator, by_budget, on_device, pad
from nlora.data.encode import Encoded, Encoder
from nlora.data.task import Example, TaskData
from nlora.errors import NloraError
from nlora.fast.logits import Answers, answer_logits
from nlora.progress import NoProgress, Progress

A = TypeVar("A", bound=Adapter)
Key = TypeVar("Key", str, tuple[int, ...])

Batch = dict[str, Any]
"""Tensors of a micro-batch by name (`data.batches.Collator`)."""

BATCH_TOKENS = 4096
"""Rows × longest row of a batch in which nothing is trained."""

MOST_STATES = 20_000
"""So many texts' states are kept, and then begun anew: a server is asked ever new texts."""

Rates = Callable[[Parameter], Tensor | float]
"""How far the optimiser's last step moved each entry of a parameter per unit of its gradient before
clipping: a number, or a tensor of the parameter's shape."""


@dataclass(frozen=True)
class Stage:
    """One step of a run: the tasks that are trained together, usually one."""

    index: int
    """1, 2, …; 0 before any training."""
    name: str
    tasks: tuple[TaskData, ...]
    seed: int
    """Decides all that is random in the stage, so that a resumed run repeats it."""
    steps: int = 0
    """Optimiser steps; known when the stage's examples are."""
    again: bool = False
    """Whether an earlier stage has learned its task: it then begins as that one ended, where every
    task has a model of its own."""


@dataclass(frozen=True)
class Step:
    """One optimiser step."""

    number: int
    """0 for the stage's first."""
    total: int
    gradients: Mapping[Parameter, Tensor] = field(default_factory=dict)
    """Of the loss that depends on data, summed over processes, before clipping, for every trained
    parameter that has one. Known after the last micro-batch."""
    covariances: Mapping[str, Tensor] = field(default_factory=dict)
    """By adapted matrix, the mean of x xᵀ over the step's tokens x, (in, in) in fp32, for a method
    that has `needs_covariances`."""
    magnitudes: Mapping[Parameter, Tensor] = field(default_factory=dict)
    """By trained weight of a linear layer, the mean of |y| over the step's tokens of the layer's
    outputs y, (out,) in fp32, for a method that has `needs_magnitudes`."""
    rates: Rates | None = None
    """After the step."""


@dataclass
class Context:
    """The stage in hand and the model that learns it."""

    stage: Stage
    adapter: Adapter
    encoder: Encoder
    stream: Sequence[TaskData]
    """Every task of the run, learned or yet to be."""
    after: Callable[[int], AbstractContextManager[None]]
    """The model as it was after a stage; the base model after stage 0. Not within a step."""
    stage_of: Callable[[str], int | None]
    """The stage in which a task was learned, or None."""
    progress: Progress = field(default_factory=NoProgress)
    examples: Sequence[Example] = ()
    """What the stage trains on: its own examples, then those mixed in. A batch's `index` counts
    them."""
    own: int = 0
    """How many of them are the stage's own."""
    encoded: Sequence[Encoded] = ()
    """Their token ids."""
    network: nn.Module | None = None
    """What is called in a training step: the model, and what gathers gradients around it."""
    tokens: Tensor | int = 1
    """The answer tokens of the whole optimiser step, over all micro-batches and processes."""
    step: Step | None = None
    """The step in hand; None outside of training."""
    known_states: dict[int | None, dict[Any, Tensor]] = field(default_factory=dict)
    """What `states` and `prompt_states` have read already, by the number of layers, and then by
    text or token ids."""

    @property
    def model(self) -> Any:
        """What is trained and evaluated: called, and asked to `generate`, like Transformers'."""
        return self.adapter.model

    def adapter_as(self, kind: type[A]) -> A:
        """The adapter, of the kind that the method works with. Raises NloraError if it is none."""
        if not isinstance(self.adapter, kind):
            raise NloraError(
                f"this needs adapter '{kind.name}', and there is '{self.adapter.name}'"
            )
        return self.adapter

    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began, for a method that has `needs_previous`."""
        return self.adapter.previous()

    def logits(self, batch: Mapping[str, Any]) -> Answers:
        """Logits (n, vocabulary) at the n answer tokens of a batch, and the tokens (n,)."""
        return answer_logits(self.network or self.model, batch)

    def batches(
        self, rows: Sequence[Encoded], tokens: int = BATCH_TOKENS, share: bool = False
    ) -> Iterator[tuple[list[int], Batch]]:
        """Batches of encoded examples of like length on the model's device, with their indices.

        `tokens` bounds rows × longest row. With `share` each of several processes has its share.
        """
        tokenizer = self.encoder.tokenizer
        collate = Collator(tokenizer.pad_token_id, self.encoder.encoder_decoder)
        budget = by_budget([len(row) for row in rows], tokens)
        for chosen in processes.share_of_passes(budget) if share else budget:
            batch = collate([rows[i] for i in chosen])
            yield chosen, on_device(batch, self.model.device)

    def score(self, examples: Sequence[Example]) -> list[float]:
        """ln p(answer | prompt) of each example: the sum over the answer's tokens and its end."""
        return self.score_rows(self.encoder.all(examples))

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Encoded], tokens: int | None = None) -> list[float]:
        """Likewise of encoded examples, in batches of at most `tokens` (`BATCH_TOKENS`)."""
        found: dict[int, float] = {}
        with evaluating(self.model):
            for chosen, batch in self.batches(rows, tokens or BATCH_TOKENS):
                logits, targets = answer_logits(self.model, batch)
                each = -cross_entropy(logits.float(), targets, reduction="none")
                lengths = (batch["labels"] != IGNORED).sum(1).tolist()
                sums = [float(part.double().sum()) for part in each.split(lengths)]
                found.update(zip(chosen, sums, strict=True))
        return [found[i] for i in range(len(rows))]

    def generate(self, prompts: Sequence[list[int]], **sampling: Any) -> list[str]:
        """The texts that the model writes after prompts (token ids), as `generated`.

        A text that goes on from a prompt may begin with the space between them.
        """
        return list(map(self.encoder.text, self.generated(prompts, **sampling)))

    @torch.no_grad()
    def generated(self, prompts: Sequence[list[int]], **sampling: Any) -> list[list[int]]:
        """The token ids that the model writes after prompts (token ids), without dropout, up to the
        token with which it ends, which is left out.

        `sampling` are arguments of Transformers' `generate`, such as `max_new_tokens`; what they
        leave open is open, whatever the model's generation_config says.
        """
        tokenizer, encoder = self.encoder.tokenizer, self.encoder
        collate = Collator(tokenizer.pad_token_id, encoder.encoder_decoder)
        turns = [encoder.end(), *(encoder.end(data.task.chat) for data in self.stage.tasks)]
        ends = list(dict.fromkeys([*end_tokens(self.model, tokenizer), *turns]))
        found: dict[int, list[int]] = {}
        with evaluating(self.model):
            for rows in by_budget([len(prompt) for prompt in prompts], BATCH_TOKENS):
                batch = on_device(collate.prompts([prompts[i] for i in rows]), self.model.device)
                out = self.model.generate(
                    **batch,
                    eos_token_id=ends,
                    pad_token_id=tokenizer.pad_token_id,
                    **{**PLAIN, **sampling},
                )
                begun = 1 if encoder.encoder_decoder else batch["input_ids"].shape[1]
                for row, ids in zip(rows, out[:, begun:].tolist(), strict=True):
                    found[row] = list(takewhile(lambda token: token not in ends, ids))
        return [found[i] for i in range(len(prompts))]

    def states(self, texts: Sequence[str], layers: int | None = None) -> Tensor:
        """What the base model makes of each raw text, without prompt: the mean of its last hidden
        states (of the encoder where there is one), (n, d) in float64. With `layers`, of a model
        that has so many of its first layers alone. A text is read once."""
        encoder = self.encoder
        limit = min(encoder.max_length, encoder.max_text_tokens or encoder.max_length)

        def rows(new: list[str]) -> list[list[int]]:
            found = encoder.tokenizer(new, truncation=True, max_length=limit).input_ids
            return [row or [encoder.tokenizer.eos_token_id] for row in found]

        return self._states(texts, rows, layers)

    def prompt_states(self, examples: Sequence[Example], layers: int | None = None) -> Tensor:
        """As `states`, of the whole prompt that each example is asked by."""
        asked = [tuple(ids) for ids, _ in self.encoder.prompts(examples)]
        return self._states(asked, lambda new: list(map(list, new)), layers)

    @torch.inference_mode()
    def _states(
        self,
        keys: Sequence[Key],
        rows: Callable[[list[Key]], list[list[int]]],
        layers: int | None,
    ) -> Tensor:
        """The states of what these stand for; `rows` makes token ids of those not read before."""
        known = self.known_states.setdefault(layers, {})
        if len(known) > MOST_STATES:
            known.clear()
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            known.update(zip(new, self._read(rows(new), layers), strict=True))
        return torch.stack([known[key] for key in keys])

    def _read(self, rows: Sequence[list[int]], layers: int | None) -> list[Tensor]:
        encoder = self.encoder
        found: dict[int, Tensor] = {}
        with self.after(0), evaluating(self.model):
            for chosen in by_budget([len(row) for row in rows], BATCH_TOKENS):
                ids = pad([rows[i] for i in chosen], encoder.tokenizer.pad_token_id, left=False)
                mask = pad([[1] * len(rows[i]) for i in chosen], 0, left=False)
                device = self.model.device
                base, masks = base_model(self.model), mask.to(device)
                means = mean_state(base, ids.to(device), masks, torch.float64, layers)
                found.update(zip(chosen, means.cpu(), strict=True))
        return [found[i] for i in range(len(rows))]

    @torch.no_grad()
    def covariances(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """The mean of x xᵀ over the inputs x of each adapted matrix, (in, in), on these examples.

        The model as it is, reading prompt and answer, padding left out.
        """
        with evaluating(self.model), self.input_covariances() as measured:
            for _, batch in self.batches(self.encoder.all(examples)):
                with measured.of(batch) as seen:
                    answer_logits(self.model, seen)
        return measured.means()

    def input_covariances(self) -> InputCovariances:
        """What measures the inputs of the adapted matrices.

        Raises NloraError if the adapter's update is not one of matrices.
        """
        matrices = self.adapter.matrices()
        if not matrices:
            raise NloraError(f"adapter '{self.adapter.name}' adapts no matrices that have inputs")
        return InputCovariances(matrices, self.encoder.encoder_decoder)

    def output_magnitudes(self) -> OutputMagnitudes:
        """What measures the outputs of the linear layers whose weights are trained.

        Of LoRA's B these are the outputs of the whole adapted layer.
        """
        layers = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and module.weight.requires_grad
        }
        whole = {
            name: self.model.get_submodule(adapted) if of_B else layers[name]
            for name in layers
            for adapted, of_B, _ in [name.partition(".lora_B.")]
        }
        weights: dict[str, Any] = {name: module.weight for name, module in layers.items()}
        return OutputMagnitudes(whole, weights, self.encoder.encoder_decoder)
