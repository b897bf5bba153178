"""The paper's tables and figures by name, with the runs that each needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nlora.errors import unknown
from nlora.paper import bars, curves, forest, scatter, tables, weights
from nlora.paper.figure import Figure
from nlora.paper.material import Material
from nlora.paper.published import ORDERS, STANDARD, TABLE_1, TABLE_2, TABLE_4
from nlora.report.table import Table

BOTH = ("o-lora", "n-lora")
MOVED = ("seq-lora", "inc-lora", *BOTH)
"""Of these every run measures how far its stages moved the model."""
STRENGTHS = (0, 0.1, 1.6)
"""Weights beside the published one, for the figure of the penalty's strength."""


@dataclass(frozen=True)
class Artefact:
    """A table or a figure. `make` gives nothing where nothing that it shows was run."""

    key: str
    title: str
    methods: tuple[str, ...]
    streams: tuple[str, ...]
    make: Callable[[Material], list[Table] | Figure | None]
    model: str = "t5-large"
    """The paper's model for it, one of `recipes.MODELS`."""
    ours: bool = False
    """Whether the paper has no such figure."""
    needs: str = ""
    """What a ledger must have beside its runs."""

    @property
    def missing(self) -> str:
        """What is said where nothing that it shows was run."""
        some = ", ".join(self.methods[:3]) + (", …" if len(self.methods) > 3 else "")
        beside = f", and {self.needs}" if self.needs else ""
        return (
            f"nothing that it shows was run; it needs {some} on {', '.join(self.streams)}{beside}"
        )


_MODELS = "their models (--models FOLDER)"

_ALL = (
    Artefact("table-1", "average accuracy of all methods", tuple(TABLE_1), ORDERS, tables.table_1),
    Artefact(
        "table-2", "the larger model", tuple(TABLE_2), STANDARD, tables.table_2, model="llama-7b"
    ),
    Artefact("table-3", "overlap of the updates", BOTH, ORDERS, tables.table_3),
    Artefact("table-4", "O-LoRA with N-LoRA's penalty", tuple(TABLE_4), ORDERS, tables.table_4),
    Artefact("figure-1c", "N-LoRA against O-LoRA, as ratios", BOTH, ORDERS, bars.figure_1c),
    Artefact(
        "figure-2", "parameters of two tasks", BOTH, STANDARD[:1], weights.figure_2, needs=_MODELS
    ),
    Artefact(
        "figure-3", "nuclear norm by matrix", BOTH, STANDARD[:1], weights.figure_3, needs=_MODELS
    ),
    Artefact("figure-4", "the task that is not learned yet", BOTH, ORDERS, bars.figure_4),
    Artefact("figure-5", "density, collisions, forgetting", BOTH, ORDERS, scatter.figure_5),
    Artefact("figure-6", "where the penalty is", tuple(bars.ABLATION), STANDARD, bars.figure_6),
    Artefact(
        "spectra", "singular values", BOTH, STANDARD[:1], weights.spectra, ours=True, needs=_MODELS
    ),
    Artefact(
        "strength",
        "how strong the penalty is",
        ("n-lora", *(f"n-lora:l1={weight:g}" for weight in STRENGTHS)),
        STANDARD[:1],
        scatter.strength,
        ours=True,
        needs="more than one weight on an order",
    ),
    Artefact(
        "kl",
        "how far the model moved, and forgetting",
        MOVED,
        STANDARD,
        scatter.divergence,
        ours=True,
        needs="the measured KL (measure_kl)",
    ),
    Artefact(
        "predictors",
        "what goes with forgetting",
        MOVED,
        STANDARD,
        forest.forest,
        ours=True,
    ),
    Artefact(
        "curves",
        "every task over the stages",
        curves.METHODS,
        STANDARD[:1],
        curves.curves,
        ours=True,
    ),
    Artefact(
        "off-list",
        "answers that are no label",
        tuple(TABLE_1),
        STANDARD,
        curves.off_list,
        ours=True,
        needs="the share of answers off the list",
    ),
)

ARTEFACTS = {artefact.key: artefact for artefact in _ALL}

ALL = "all"


def chosen(names: Sequence[str]) -> list[Artefact]:
    """The artefacts of these names, in the paper's order; `all` is all.

    Raises NloraError for an unknown name, with the nearest.
    """
    for name in names:
        if name not in (*ARTEFACTS, ALL):
            raise unknown("table or figure", name, [*ARTEFACTS, ALL])
    return [a for key, a in ARTEFACTS.items() if key in names or ALL in names]
