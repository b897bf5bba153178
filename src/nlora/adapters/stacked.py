"""What adapters share that keep an update per stage, each active beside those after it."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from nlora.adapters.base import Adapter, Beginning, snapshot, swapped

STATE = "scales.safetensors"

U = TypeVar("U")
"""One matrix' update."""


class _Saved(NamedTuple, Generic[U]):
    """What a folder has of an update."""

    update: dict[str, U]
    extra: dict[str, Tensor]
    """What is stored of the stack beside it."""


class Stacked(Adapter, Generic[U]):
    """A stack of updates by matrix: the one in hand, and under it all earlier ones.

    A subclass says how an update is drawn, copied, put back and read, and how the earlier ones are
    active; this class is their life.
    """

    def __init__(self) -> None:
        self.past: list[dict[str, U]] = []
        """Every earlier update, by matrix, oldest first."""
        self.extra: dict[str, Parameter] = {}
        """What is stored of the stack beside its updates, by name: see `state`."""
        self.consolidated = False
        """Whether the update in hand has joined the earlier ones."""
        self._trained = False
        self._start: list[Tensor] = []
        self._read_before: dict[Path, tuple[Any, _Saved[U]]] = {}
        """Saved updates by folder, with what their files were like."""
        self._held: dict[Path, _Saved[U]] = {}
        """Those that are in force again without their files."""

    @abstractmethod
    def draw(self, asked: Beginning) -> None:
        """Let a fresh update be in hand."""

    @abstractmethod
    def clear(self) -> None:
        """Let the update in hand be 0."""

    @abstractmethod
    def copy(self) -> dict[str, U]:
        """The update in hand, copied."""

    @abstractmethod
    def put(self, update: Mapping[str, U]) -> None:
        """Let this update be in hand."""

    @abstractmethod
    def read(self, folder: Path) -> dict[str, U]:
        """A saved update, as `copy` gives it."""

    @abstractmethod
    def activate(self) -> None:
        """Let the earlier updates be active as `past`, `extra` and `consolidated` say."""

    @property
    def alone(self) -> bool:
        """Whether each update makes a model by itself, without those before it. Default: no."""
        return False

    def choose(self, asked: Beginning) -> None:
        """Choose what is trained beside and within the update in hand. Default: all of it."""

    def prepare(self, asked: Beginning) -> None:
        """A fresh update on top of all earlier ones, or the last one continued."""
        self.replaces = asked.continued and self._trained
        if not self.replaces:
            if self._trained:
                self.past.append(self.copy())
            # Before `activate`, which may draw random numbers that it does not keep.
            self.draw(asked)
        self.choose(asked)
        self._activate(consolidated=False)
        self._start = snapshot(self._tensors()) if asked.keep_previous else []
        self._trained = True

    def state(self) -> dict[str, Tensor]:
        """What is stored of the stack beside its updates, such as scalars on them."""
        return dict(self.extra)

    def consolidate(self) -> None:
        self._activate(consolidated=True)

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """The update in hand as it was trained, beside what those before it make together."""
        joined = self.consolidated
        if joined:
            self._activate(consolidated=False)
        try:
            yield
        finally:
            if joined:
                self._activate(consolidated=True)

    @contextmanager
    def previous(self) -> Iterator[None]:
        joined = self.consolidated
        try:
            with swapped(self._tensors(), self._start):
                if joined:
                    self._activate(consolidated=False)
                yield
        finally:
            if joined:
                self._activate(consolidated=True)

    def load(self, folders: Sequence[Path]) -> None:
        """Activate saved updates; the last stays the one that `begin` may continue."""
        self._read(folders)
        self._trained = bool(folders)
        self.replaces = False
        self._start = []

    def hold(self, folders: Collection[Path]) -> bool:
        """Each is read once; one that cannot be read leaves those that were held."""
        self._held = {folder: self._read_once(folder) for folder in folders}
        return True

    @contextmanager
    def after(self, folders: Sequence[Path]) -> Iterator[None]:
        """The model that these saved updates make, W₀ if none, instead of the one in hand."""
        past, extra, in_hand, joined = self.past, self.extra, self.copy(), self.consolidated
        try:
            self._read(folders[-1:] if self.alone else folders)
            yield
        finally:
            self.past, self.extra = past, extra
            self.put(in_hand)
            self._activate(joined)

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Be what it was before, with the update in hand, where what is done meanwhile fails."""
        past, extra, trained = [*self.past], self.extra, self._trained
        in_hand, joined = self.copy(), self.consolidated
        try:
            yield
        except BaseException:
            self.past, self.extra, self._trained = past, extra, trained
            self.put(in_hand)
            self._activate(joined)
            raise

    def save_state(self, folder: Path) -> None:
        """Write `state()` beside the update, if there is any."""
        if self.extra:
            save_file({name: p.detach() for name, p in self.extra.items()}, folder / STATE)

    def _read(self, folders: Sequence[Path]) -> None:
        # All files first: one that cannot be read leaves the model as it is.
        saved = [self._held.get(folder) or self._read_once(folder) for folder in folders]
        updates = [one.update for one in saved]
        extra = saved[-1].extra if saved else {}
        device = next(self.model.parameters()).device
        self.extra = {n: _frozen(t, device) for n, t in extra.items()}
        self.past = updates[:-1]
        if updates:
            self.put(updates[-1])
        else:
            self.clear()
        self._activate(consolidated=bool(updates))

    def _read_once(self, folder: Path) -> _Saved[U]:
        """A saved update: switching between stages reads no file again that did not change."""
        stats = [path.stat() for path in sorted(folder.iterdir())]
        seen = tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
        if self._read_before.get(folder, ((), None))[0] != seen:
            state = folder / STATE
            extra = load_file(state) if state.is_file() else {}
            self._read_before[folder] = seen, _Saved(self.read(folder), extra)
        return self._read_before[folder][1]

    def _activate(self, consolidated: bool) -> None:
        self.consolidated = consolidated
        self.activate()

    def _tensors(self) -> list[Any]:
        return [*self.update().values(), *self.state().values()]


def _frozen(values: Tensor, device: torch.device) -> Parameter:
    return Parameter(values.to(device, copy=True), requires_grad=False)
