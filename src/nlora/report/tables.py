"""All tables that can be made from ledgers."""

from collections.abc import Sequence
from pathlib import Path

from nlora.errors import NloraError, unknown
from nlora.report.accuracy import accuracy, metrics
from nlora.report.cost import cost
from nlora.report.differences import differences
from nlora.report.explained import explained, explained_offsets, explained_tasks
from nlora.report.movement import movement
from nlora.report.overlap import collisions, overlaps, ratios
from nlora.report.pareto import pareto
from nlora.report.predictors import predictors
from nlora.report.runs import Section, sections
from nlora.report.table import Table

KEYS = (
    *("accuracy", "metrics", "differences", "explained", "explained-tasks", "explained-offsets"),
    *("orthogonality", "collisions", "ratios", "kl", "cost", "pareto"),
)

ON_REQUEST = ("predictors", "predictors-among")
"""Made only where they are named, since they are long and for a question of their own."""

BASELINE = "inc-lora"


def tables(
    ledgers: Sequence[Path],
    keys: Sequence[str] = (),
    methods: Sequence[str] = (),
    baseline: str | None = None,
) -> list[Table]:
    """The tables of some ledgers: those named by `keys`, of the methods named, else all of `KEYS`.

    A set of tables for each model and budget. Without `baseline` differences are to inc-lora, where
    it is there. Raises NloraError for an unknown table, method or baseline, and for what is no
    ledger.
    """
    for key in keys:
        if key not in (*KEYS, *ON_REQUEST):
            raise unknown("table", key, (*KEYS, *ON_REQUEST))
    found = sections(ledgers, [*methods, *([baseline] if methods and baseline else [])])
    known = {label for section in found for label in section.methods}
    if baseline is not None and baseline not in known:
        raise unknown("baseline", baseline, known)
    made = [t for section in found for t in of_section(section, keys or KEYS, baseline or BASELINE)]
    if not made:
        hint = ""
        if "differences" in keys and (baseline or BASELINE) not in known:
            hint = f" (no {baseline or BASELINE} to compare with: --baseline {min(known)})"
        raise NloraError(f"the ledger has nothing for: {', '.join(keys)}{hint}")
    return made


def of_section(section: Section, keys: Sequence[str], baseline: str = BASELINE) -> list[Table]:
    """The tables of one section: those of `keys` for which it has numbers."""
    make = {
        "accuracy": lambda: accuracy(section),
        "metrics": lambda: metrics(section),
        "differences": lambda: differences(section, baseline),
        "explained": lambda: explained(section),
        "explained-tasks": lambda: explained_tasks(section),
        "explained-offsets": lambda: explained_offsets(section),
        "orthogonality": lambda: overlaps(section),
        "collisions": lambda: collisions(section),
        "ratios": lambda: ratios(section, baseline),
        "kl": lambda: movement(section),
        "cost": lambda: cost(section),
        "pareto": lambda: pareto(section),
        "predictors": lambda: predictors(section),
        "predictors-among": lambda: predictors(section, among=True),
    }
    return [table for key in keys if (table := make[key]()) is not None]
