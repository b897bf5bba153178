"""Which directions the inputs of the adapted matrices have: the mean of x xᵀ over tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nlora.data.encode import IGNORED


class InputCovariances:
    """Measures, while it is entered, what goes into some modules, padding left out.

    A module sees x (B, S, in) of a batch's prompts or (B, T, in) of its answers, or the same as one
    list of rows; which of the two it reads is told by the number of rows. Where it sees others, as
    an output layer does that is given the answers alone, all of them count.
    """

    def __init__(self, modules: Mapping[str, nn.Module], encoder_decoder: bool) -> None:
        self.modules = modules
        self.encoder_decoder = encoder_decoder
        self._sums: dict[str, Tensor] = {}
        self._tokens: dict[str, float] = {}
        self._masks: list[Tensor] = []
        self._gradients = False
        self._hooks: list[Any] = []

    def __enter__(self) -> "InputCovariances":
        for name, module in self.modules.items():
            self._hooks.append(module.register_forward_pre_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    @contextmanager
    def of(self, batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Measure in the forward passes of the batch that is given, and not outside of such blocks.

        It is the same batch, whose answers are longer by padding where they were as long as the
        prompts of an encoder. A teacher's passes, without gradients within a block that has them,
        do not count.
        """
        batch = dict(batch)
        if self.encoder_decoder and batch["labels"].shape == batch["input_ids"].shape:
            for name in batch.keys() & {"labels", "answers"}:
                batch[name] = pad(batch[name], (0, 1), value=IGNORED)
        counted = (batch["labels"] != IGNORED).any(1, keepdim=True)  # else the row stands in
        answers = batch.get("answers", batch["labels"]) != IGNORED
        self._masks = [batch["attention_mask"].bool() & counted, answers & counted]
        self._gradients = torch.is_grad_enabled()
        try:
            yield batch
        finally:
            self._masks = []

    def sums(self) -> dict[str, Tensor]:
        """By module Σ x xᵀ, row by row, and the number of tokens behind it: (in·in + 1,) in fp32.

        Of several processes these add up.
        """
        return {
            name: torch.cat([square.flatten(), square.new_tensor([self._tokens[name]])])
            for name, square in self._sums.items()
        }

    def means(self, summed: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The mean of x xᵀ by module, (in, in) in fp32; of `summed` in place of the own `sums`."""
        found = {}
        for name, flat in (self.sums() if summed is None else summed).items():
            size = len(self._sums[name])
            found[name] = flat[:-1].view(size, size) / flat[-1].clamp(min=1)
        return found

    def clear(self) -> None:
        """Forget what was measured."""
        self._sums.clear()
        self._tokens.clear()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not self._masks or torch.is_grad_enabled() != self._gradients:
                return
            rows = inputs[0].detach().flatten(0, -2)
            mask = next((m for m in self._masks if m.numel() == len(rows)), None)
            rows = (rows if mask is None else rows[mask.flatten()]).float()
            new = rows.T @ rows
            self._sums[name] = self._sums[name] + new if name in self._sums else new
            self._tokens[name] = self._tokens.get(name, 0.0) + len(rows)

        return hook
