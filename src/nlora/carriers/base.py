"""The contract of a carrier: where an update lives in a model.

A carrier says what is trainable, keeps the updates of earlier stages in force, and turns the newest
one into files and back. Methods are rules over carriers; they never touch a model's layers.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter


class Carrier(Protocol):
    """What every carrier offers.

    The life of an update: `begin` makes it ready to be trained on top of what is in force; it is
    trained through `model`; `save` writes it. The next `begin` makes it part of the past. A new
    process brings the model back with `load`.
    """

    name: str
    model: Any
    """What is trained and evaluated: called, and asked to `generate`, like a Transformers model."""

    replaces: bool
    """Whether the update in hand continues the one before it, and so stands for both."""

    def begin(self, continued: bool = False, keep_previous: bool = False) -> None:
        """Make an update ready for training: a fresh one, or the last one continued.

        `keep_previous` promises a call of `previous` during this stage.
        """
        ...

    def trainable(self) -> list[Parameter]:
        """The parameters that training may change."""
        ...

    def consolidate(self) -> None:
        """The update in hand is trained: let it join the earlier ones."""
        ...

    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began (the teacher of distillation)."""
        ...

    def save(self, folder: Path) -> None:
        """Write the update of the stage just trained."""
        ...

    def load(self, folders: Sequence[Path]) -> None:
        """Put saved updates in force, as if they had been trained here one after another."""
        ...

    def standing(self, folders: Sequence[Path]) -> AbstractContextManager[None]:
        """The model that these saved updates make, instead of the one in hand; not in training."""
        ...

    def merged(self) -> Any:
        """The plain model with every update in its weights, which are fp32; the carrier's end."""
        ...

    def notes(self) -> dict[str, Any]:
        """What the stage should record of the carrier, such as an error of recompression."""
        ...


@contextmanager
def swapped(parameters: Iterable[Parameter], values: Iterable[Tensor]) -> Iterator[None]:
    """Run with other values in the parameters.

    Storage is exchanged, not overwritten, so tensors that a backward pass still needs stay whole.
    """
    kept = [(p, p.data) for p in parameters]
    try:
        for (p, _), value in zip(kept, values, strict=True):
            p.data = value
        yield
    finally:
        for p, value in kept:
            p.data = value


def ties_told(model: Any) -> Any:
    """The model, whose config says so if its output layer no longer shares the embeddings' weight.

    Else both would be one again when it is loaded.
    """
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if output is not None and output.weight is not embeddings.weight:
        model.config.tie_word_embeddings = False
    return model


def snapshot(parameters: Iterable[Parameter]) -> list[Tensor]:
    """Copies of the parameters' values."""
    with torch.no_grad():
        return [p.detach().clone() for p in parameters]
