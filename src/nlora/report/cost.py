"""The table of what each method costs, and what it needs."""

from nlora.report.accuracy import over_streams
from nlora.report.footnotes import MEANINGS, needs
from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table


def cost(section: Section) -> Table:
    """Time and memory per method, the mean over its runs."""
    rows: list[list[Cell]] = []
    for label in section.methods:
        runs = section.of(label)
        if not runs:
            continue
        needed = needs(section, label)
        streams = [s for s in section.streams if section.of(label, s)]
        measures = [
            over_streams(section, label, streams, measure, form)
            for measure, form in (
                (lambda run: _minutes(run, "training"), ".2f"),
                (lambda run: _minutes(run, "evaluation"), ".2f"),
                (lambda run: run.row["peak_memory_bytes"] / 1e9, ".2f"),
                (_trained, ".3f"),
            )
        ]
        said = [meaning for name, meaning in MEANINGS.items() if needed.get(name)]
        where = ", ".join(streams)
        rows.append([label, needed.get("adapter"), *measures, "; ".join(said), where])
    columns = ["method", "adapter", "training (min)", "evaluation (min)", "peak memory (GB)"]
    columns += ["trained (million)", "needs", "streams"]
    machines = dict.fromkeys(_machine(run) for run in section.runs if not run.error)
    notes = [
        "per run; a stage that was shared with another run counts as if it had been trained here; "
        "trained: parameters of the last stage",
        f"measured on {'; '.join(machines)}",
    ]
    return Table("cost", f"Time and memory. {section.title}", columns, rows, notes)


def _minutes(run: Run, kind: str) -> float | None:
    seconds = run.row.get("seconds_by")
    return seconds[kind] / 60 if seconds else None


def _trained(run: Run) -> float | None:
    counts = run.row.get("trainable_parameters")
    return counts[-1] / 1e6 if counts else None


def _machine(run: Run) -> str:
    machine = run.row["machine"]
    threads = machine.get("threads", machine["cores"])
    return f"{machine.get('gpu') or machine['processor']}, {threads} threads"
