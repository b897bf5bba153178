"""What adapters share whose update is the weights themselves: the newest state replaces the rest.

The base model is a state too. Its weights are read again where `base_weights` is set. Where it is
not, a copy is kept in main memory from when they first change: they cannot be had later.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nlora.adapters.base import Adapter, in_main_memory, swapped


class Whole(Adapter):
    """Weights that are trained, and saved as they stand after the stage, by name."""

    replaces = True
    needs_fp32 = True
    file: ClassVar[str]
    """What the saved state is called."""

    def __init__(self, model: Any, keep: bool = False) -> None:
        self.model = model
        self._keep = keep
        """Whether a copy of the base's weights is kept also where they could be read again."""
        self._base: dict[str, Tensor] | None = None
        self._changed = False
        self._start: list[Tensor] = []

    @abstractmethod
    def update(self) -> dict[str, Tensor]:
        """The weights, by the names of the plain model's parameters."""

    def change(self) -> None:
        """To be called before the weights change."""
        if not self._changed and (self._keep or self.base_weights is None):
            self._base = in_main_memory(self.update())
        self._changed = True

    def base(self) -> Mapping[str, Tensor]:
        """The base model's weights, at least those of `update()`."""
        if not self._changed:
            return self.update()
        if self._base is not None:
            return self._base
        assert self.base_weights is not None
        return self.base_weights()

    def drop(self) -> None:
        """Forget an update in hand that is not in the weights yet. Default: there is none."""

    def made_of(self, weights: Sequence[Tensor]) -> AbstractContextManager[None]:
        """The model with other weights, in the order of `update()`, and no update in hand."""
        return swapped(self.update().values(), weights)

    def previous(self) -> AbstractContextManager[None]:
        return self.made_of(self._start)

    def consolidate(self) -> None:
        """Nothing: there is one model."""

    def save(self, folder: Path) -> None:
        """The weights by name, in one file."""
        self.consolidate()
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: w.detach().contiguous() for name, w in self.update().items()}
        save_file(tensors, folder / self.file)

    @torch.no_grad()
    def load(self, folders: Sequence[Path]) -> None:
        """The weights of the last of the saved states, or of the base model."""
        self.drop()
        self._start = []
        if folders or self._changed:
            values = self._read(folders)
            self.change()
            for name, weight in self.update().items():
                weight.copy_(values[name])

    @contextmanager
    def after(self, folders: Sequence[Path]) -> Iterator[None]:
        """The model of the last of these saved states, or the base model, as read."""
        values, current = self._read(folders), self.update()
        with self.made_of([values[n].detach().to(w.device, w.dtype) for n, w in current.items()]):
            yield

    def _read(self, folders: Sequence[Path]) -> Mapping[str, Tensor]:
        return load_file(folders[-1] / self.file) if folders else self.base()
