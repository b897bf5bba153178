"""The contract of an adapter: where an update lives in a model.

An adapter says what is trained, keeps the updates of earlier stages active, and turns the newest
one into files and back. Methods are rules over adapters; they never touch a model's layers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from nlora.adapters.settings import AdapterSettings
from nlora.backbones.targets import Targets
from nlora.errors import NloraError
from nlora.lowrank.factors import Factors

Start = Callable[[str, Factors], tuple[Tensor, Tensor]]
"""Where a fresh update starts: from a matrix' name and its fresh factors to A (r, in), B (out, r).
If B·A is not 0 the update is counted from there: ΔW = s·(B·A − B₀·A₀)."""


@dataclass(frozen=True)
class Abilities:
    """What an adapter can do; what it cannot is refused in one line."""

    fold: bool = False
    """Earlier updates cost nothing per forward pass: they are in the weights (of fp32 models)."""
    start: bool = False
    """A fresh update may start from given values."""
    factors: bool = False
    """The update of each matrix is a pair of factors (`factors()`): penalties on them, frozen
    factors and scalars on earlier updates work."""
    gradients: bool = False
    """Each trained parameter belongs to one adapted matrix, so gradient rules and the inputs'
    covariances per matrix work."""
    shard: bool = False
    """It works when parameters are sharded over devices."""
    peft: bool = False
    """An update is saved as one PEFT adapter."""
    quantized: bool = False
    """It leaves the base model's weights as they are, which may be quantised."""
    merge: bool = False
    """A plain model with all updates in its weights exists."""


class Beginning(NamedTuple):
    """The arguments of `Adapter.begin`."""

    continued: bool = False
    keep_previous: bool = False
    start: Start | None = None
    frozen: Collection[str] = ()
    scales: bool = False


class Adapter(ABC):
    """What every adapter offers.

    The life of an update: `begin` makes it ready to be trained on top of what is active; it is
    trained through `model`; `save` writes it. The next `begin` makes it part of the past. A new
    process brings the model back with `load`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    can: ClassVar[Abilities] = Abilities()
    needs_fp32: ClassVar[bool] = False
    """The base model's own weights change, so they are loaded in fp32 whatever `precision` says;
    with bf16 training is mixed then."""

    model: Any
    """What is trained and evaluated: called, and asked to `generate`, like a Transformers model.
    It may be another object after `begin` or `load`."""
    replaces: bool = False
    """Whether the update in hand continues the one before it, and so stands for both."""
    targets: Targets | None = None
    """Which matrices were chosen and why; None where the adapter adapts none by name."""
    base_weights: Callable[[], Mapping[str, Tensor]] | None = None
    """Reads the base model's parameters again, by name. Whoever builds the adapter may set it; an
    adapter that overwrites the weights keeps a copy of them where it is not set."""

    @classmethod
    @abstractmethod
    def build(cls, model: Any, settings: AdapterSettings, **options: Any) -> Self:
        """The adapter in this Transformers model; `options` are the method's own.

        Raises NloraError if it cannot be put into the model.
        """

    @classmethod
    def soft_tokens(cls, updates: int, **options: Any) -> int:
        """How many vectors are read beside a text with so many updates; `options` as of `build`."""
        return 0

    def begin(
        self,
        continued: bool = False,
        keep_previous: bool = False,
        start: Start | None = None,
        frozen: Collection[str] = (),
        scales: bool = False,
    ) -> None:
        """Make an update ready for training: a fresh one, or the last one continued.

        `keep_previous` promises a call of `previous` during this stage. `start` says where a fresh
        update starts. `frozen` names factors ("A", "B") that are not trained in this stage.
        `scales` adds a trained scalar per earlier update that multiplies it; scalars are saved
        with the update and multiply from then on. Raises NloraError for what the adapter cannot do.
        """
        asked = (
            (start is not None, self.can.start, "start from given values"),
            (bool(frozen), self.can.factors, "freeze factors, of which it has none"),
            (scales, self.can.factors, "scale earlier updates"),
        )
        for wanted, able, what in asked:
            if wanted and not able:
                raise NloraError(f"adapter '{self.name}' cannot {what}; use LoRA adapters")
        self.prepare(Beginning(continued, keep_previous, start, frozen, scales))

    @abstractmethod
    def prepare(self, asked: Beginning) -> None:
        """Do what `begin` says, once it is known that the adapter can."""

    def trained(self) -> dict[str, Parameter]:
        """The parameters that training may change now, by their names in `model`."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def trainable(self) -> list[Parameter]:
        """The parameters that training may change now."""
        return list(self.trained().values())

    def matrices(self) -> dict[str, nn.Module]:
        """The modules whose inputs the adapted matrices read, by matrix; none where the update is
        not of matrices."""
        return {}

    @abstractmethod
    def update(self) -> dict[str, Tensor]:
        """What is stored as the stage's update, trained or frozen: the tensors in use, by name."""

    def state(self) -> dict[str, Tensor]:
        """What else must be saved to bring the model back: the tensors in use, by name."""
        return {}

    @abstractmethod
    def consolidate(self) -> None:
        """The update in hand is trained: let it join the earlier ones."""

    @abstractmethod
    def previous(self) -> AbstractContextManager[None]:
        """The model as it was when this stage began (the teacher of distillation)."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the update of the stage just trained."""

    @abstractmethod
    def load(self, folders: Sequence[Path]) -> None:
        """Activate saved updates, as if they had been trained here one after another.

        What was in use before is dropped; no folders give the base model.
        """

    def hold(self, folders: Collection[Path]) -> bool:
        """Keep these saved updates in memory, and no others: whether it does, and so needs their
        files no more. Default: it does not."""
        return False

    @abstractmethod
    def after(self, folders: Sequence[Path]) -> AbstractContextManager[None]:
        """The model that these saved updates make, instead of the one in hand; not in training.

        No folders give the base model.
        """

    @abstractmethod
    def merged(self) -> Any:
        """The plain model with every update in its weights, which are fp32; the adapter's end."""

    def notes(self) -> dict[str, Any]:
        """What the stage should record of the adapter, such as an error of recompression."""
        return {}


@contextmanager
def swapped(tensors: Iterable[Tensor], values: Iterable[Tensor]) -> Iterator[None]:
    """Run with other values in the tensors.

    Storage is exchanged, not overwritten, so tensors that a backward pass still needs stay whole.
    """
    kept = [(t, t.data) for t in tensors]
    try:
        for (t, _), value in zip(kept, values, strict=True):
            t.data = value
        yield
    finally:
        for t, value in kept:
            t.data = value


def ties_told(model: Any) -> Any:
    """The model, whose config says so if its output layer no longer shares the embeddings' weight.

    Else both would be one again when it is loaded. What else shares it by that word of the config
    (BART's encoder and decoder) gets a copy of its own, or files would hold it once.
    """
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or output.weight is embeddings.weight:
        return model
    model.config.tie_word_embeddings = False
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    seen: set[int] = set()
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) in seen and name not in tied:
            module, _, own = name.rpartition(".")
            copied = Parameter(parameter.detach().clone(), requires_grad=False)
            setattr(model.get_submodule(module), own, copied)
        seen.add(id(parameter))
    return model


def snapshot(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copies of the values."""
    with torch.no_grad():
        return [t.detach().clone() for t in tensors]


def in_main_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory, where there is room beside a model on a device; of an empty shell's
    tensors empty ones."""
    return {
        name: t.detach().to("meta" if t.is_meta else "cpu", copy=True)
        for name, t in tensors.items()
    }
