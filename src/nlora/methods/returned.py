"""What the hooks of a method return: penalties and their terms, examples, routes, an early end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from nlora.data.task import Example
    from nlora.methods.context import Step


class Term(NamedTuple):
    """A penalty's value and the gradients to add, weight included."""

    value: float
    gradients: Sequence[tuple[Parameter, Tensor]]


class Penalty(Protocol):
    """A loss term that depends on parameters only, added once per optimiser step.

    Its gradient joins that of the task before clipping, as if the term stood in the loss. Names are
    unique among the penalties and loss terms of a stage.

    A penalty whose attributes change while a stage is trained (an average, a count) names them in
    the class attribute `running`, so that a checkpoint keeps them: tensors, JSON values, and lists,
    tuples, mappings and dataclasses of these. If others change, the stage keeps no checkpoints.
    """

    name: str

    def __call__(self, step: Step) -> Term | None:
        """The term at this step, or None while it has no weight."""
        ...

    def notes(self) -> dict[str, Any]:
        """What the stage should record, such as a measured weight."""
        ...


@runtime_checkable
class Proximal(Protocol):
    """What a penalty also is if it acts on parameters after the optimiser's step."""

    def after(self, step: Step) -> None:
        """Take the proximal step that belongs to the optimiser's last step (`step.rates`)."""
        ...


class Until(Protocol):
    """What ends a stage early. What changes from step to step it names in `running`, as penalties
    do."""

    def reached(self) -> bool:
        """Whether the stage ends here; called once after each optimiser step."""
        ...

    def notes(self) -> dict[str, Any]:
        """What the stage should record of it."""
        ...


class Route(NamedTuple):
    """The stage that an example is answered with, and what is known of the choice."""

    stage: int
    confidence: float | None = None
    """The probability that the example belongs to the stage, if it belongs to any."""
    distance: float | None = None
    """Of the example from the stage's."""
    limit: float | None = None
    """The distance beyond which an example belongs to no stage; None where none is known."""
    own: bool = True
    """Whether the stage's own model answers (`Method.at`); else the one that stands."""

    @property
    def unknown(self) -> bool:
        """Whether the example is far from every task."""
        return None not in (self.distance, self.limit) and self.distance > self.limit  # type: ignore[operator]


class MixedIn(NamedTuple):
    """Examples that are trained on beside the stage's own: replayed or generated ones."""

    examples: Sequence[Example] = ()
    share: float | None = None
    """Of all examples of an epoch, those that are mixed in: they are repeated or thinned out, by
    the stage's seed, to make up so much. None: each once."""
    instead: bool = False
    """They take the place of examples, so that there are as many in all as without them; at most
    half."""
    what: str = "old examples"
    """What they are, for the stage's record: which data a stage has seen."""
