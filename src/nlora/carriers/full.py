"""The update as a change of all parameters. The newest state replaces the one before."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from nlora.carriers.base import snapshot, swapped


class Full:
    """All parameters are trained, and are saved as they stand after the stage.

    `isolated` lets every stage begin at the base model, of which a copy is kept for that.
    """

    name = "full"
    replaces = True

    def __init__(self, model: Any, isolated: bool = False) -> None:
        self.model = model
        model.requires_grad_(True)
        self._base = snapshot(self.trainable()) if isolated else []
        self._start: list[Tensor] = []

    def trainable(self) -> list[Parameter]:
        """Every parameter of the model; tied ones once."""
        return list(self.model.parameters())

    def begin(self, continued: bool = False, keep_previous: bool = False) -> None:
        """Go on from the model as it stands. `keep_previous` costs a copy of the model."""
        del continued  # there is only one model to go on from
        with torch.no_grad():
            for parameter, value in zip(self.trainable(), self._base, strict=False):
                parameter.copy_(value)
        self._start = snapshot(self.trainable()) if keep_previous else []

    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began."""
        return swapped(self.trainable(), self._start)

    def consolidate(self) -> None:
        """Nothing: there is one model."""

    @contextmanager
    def standing(self, folders: Sequence[Path]) -> Iterator[None]:
        """The model of the last of these saved states, as read from its file."""
        parameters = dict(self.model.named_parameters())
        tensors = load_file(folders[-1] / "parameters.safetensors")
        values = [tensors[name].to(p.device) for name, p in parameters.items()]
        with swapped(parameters.values(), values):
            yield

    def save(self, folder: Path) -> None:
        """All parameters by name, in `parameters.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: p.detach().contiguous() for name, p in self.model.named_parameters()}
        save_file(tensors, folder / "parameters.safetensors")

    @torch.no_grad()
    def load(self, folders: Sequence[Path]) -> None:
        """The parameters of the last of the saved states."""
        if not folders:
            return
        tensors = load_file(folders[-1] / "parameters.safetensors")
        for name, parameter in self.model.named_parameters():
            parameter.copy_(tensors[name])

    def merged(self) -> Any:
        """The model as it is."""
        return self.model

    def notes(self) -> dict[str, float]:
        """Nothing to record."""
        return {}
