"""What modules read and write, as means over tokens: directions of inputs, sizes of outputs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nlora.data.encode import IGNORED


class TokenMeans(ABC):
    """Measures something of what passes some modules while it is entered, padding left out.

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

    def __enter__(self) -> Self:
        for name, module in self.modules.items():
            self._hooks.append(module.register_forward_hook(self._hook(name)))
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

    @abstractmethod
    def of_rows(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """What is measured, summed over tokens: of the rows (n, in) and (n, out) in fp32."""

    def sums(self) -> dict[str, Tensor]:
        """By module the sum over tokens, flat, and the number of tokens behind it, in fp32.

        Of several processes these add up.
        """
        return {
            name: torch.cat([summed.flatten(), summed.new_tensor([self._tokens[name]])])
            for name, summed in self._sums.items()
        }

    def means(self, summed: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The mean over tokens by module, in fp32; of `summed` in place of the own `sums`."""
        return {
            name: flat[:-1].view_as(self._sums[name]) / flat[-1].clamp(min=1)
            for name, flat in (self.sums() if summed is None else summed).items()
        }

    def clear(self) -> None:
        """Forget what was measured."""
        self._sums.clear()
        self._tokens.clear()

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not self._masks or torch.is_grad_enabled() != self._gradients:
                return
            rows = [x.detach().flatten(0, -2) for x in (inputs[0], output)]
            mask = next((m for m in self._masks if m.numel() == len(rows[0])), None)
            if mask is not None:
                rows = [x[mask.flatten()] for x in rows]
            new = self.of_rows(*(x.float() for x in rows))
            self._sums[name] = self._sums[name] + new if name in self._sums else new
            self._tokens[name] = self._tokens.get(name, 0.0) + len(rows[0])

        return hook


class InputCovariances(TokenMeans):
    """The mean of x xᵀ over inputs x, (in, in): which directions they have."""

    def of_rows(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Σ x xᵀ."""
        return inputs.T @ inputs


class OutputMagnitudes(TokenMeans):
    """The mean of |y| over outputs y, entry by entry, (out,): which units are busy.

    `weights` has by module the matrix (out, in) whose units they are.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        weights: Mapping[str, nn.Parameter],
        encoder_decoder: bool,
    ) -> None:
        super().__init__(modules, encoder_decoder)
        self.weights = weights

    def of_rows(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Σ |y|."""
        return outputs.abs().sum(0)
