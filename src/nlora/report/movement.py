"""The table of how far stages moved the model: KL(before ‖ after) at answers, beside forgetting."""

from nlora.report.accuracy import over_seeds
from nlora.report.footnotes import legend, marked
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table

KINDS = {"own": "own task", "earlier": "earlier tasks", "only_tested": "only tested"}


def movement(section: Section) -> Table | None:
    """By stream and method, the mean over stages; None where no run has measured it."""
    kinds = [kind for kind in KINDS if any(_kl(run, kind) is not None for run in section.runs)]
    if not kinds:
        return None
    rows: list[list[Cell]] = []
    for stream in section.streams:
        for label in section.methods:
            runs = section.of(label, stream)
            cells: list[Cell] = [
                over_seeds(runs, lambda run, kind=kind: _kl(run, kind), ".3f") for kind in kinds
            ]
            if any(cell is not None for cell in cells):
                lost = over_seeds(runs, lambda run: run.row.get("forgetting"))
                seeds = ", ".join(str(run.seed) for run in runs)
                rows.append([stream, marked(section, label), *cells, lost, seeds])
    columns = ["stream", "method", *(f"KL, {KINDS[kind]}" for kind in kinds), "forgetting", "seeds"]
    notes = [
        "KL(before ‖ after) of a stage in nats, the mean over answer tokens of test examples, and "
        "over stages; ± standard deviation over seeds",
        *legend(section, section.methods),
    ]
    return Table("kl", f"How far a stage moved the model. {section.title}", columns, rows, notes)


def _kl(run: Run, kind: str) -> float | None:
    return run.row.get("kl", {}).get(kind)
