"""An artefact from its runs: those it needs, run by `compare`, and written in the paper's form."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from nlora.errors import NloraError
from nlora.methods.registry import methods as all_methods
from nlora.paper.artefacts import MOVED, Artefact
from nlora.paper.explained import explained
from nlora.paper.figure import Figure
from nlora.paper.material import Material
from nlora.paper.published import LARGE, STANDARD
from nlora.paper.scale import Scale
from nlora.plan.points import parse_points
from nlora.progress import NoProgress, Progress
from nlora.recipes import MODELS
from nlora.report.formats import comma_separated, latex, markdown
from nlora.report.table import Table
from nlora.study.cluster import Cluster, collect
from nlora.study.compare import compare
from nlora.study.grid import Grid, folder
from nlora.study.output import LEDGER

RUNS = "runs"
"""The folder of the comparison, below that of the artefacts; one in it for each model."""


def grids_of(artefacts: Sequence[Artefact], scale: Scale) -> Iterator[tuple[str, Grid]]:
    """The runs that artefacts need, each in one grid alone, with the paper's model for it.

    What several artefacts show is run once. How far a stage moves the model is measured where an
    artefact shows it, on the standard orders.
    """
    for model in dict.fromkeys(artefact.model for artefact in artefacts):
        for streams, kl in ((STANDARD, True), (LARGE, False)):
            pairs = {
                (stream, label): None
                for artefact in artefacts
                if artefact.model == model
                for stream in streams
                if stream in artefact.streams
                for label in artefact.methods
            }
            if pairs:
                yield model, _grid(model, list(pairs), kl, scale)


def _grid(model: str, pairs: Sequence[tuple[str, str]], kl: bool, scale: Scale) -> Grid:
    """The runs of these streams with these methods, with the recipes of one of the paper's models.

    `kl`: of some methods it is measured how far each stage moved the model.
    """
    points = parse_points([",".join(dict.fromkeys(label for _, label in pairs))])
    methods = {point.method for point in points}
    given = scale.settings
    others = {*all_methods()} - methods  # whose settings are for other artefacts
    settings = {k: v for k, v in given.items() if not (isinstance(v, dict) and k in others)}
    for name in sorted(methods & {*MOVED} if kl else ()):
        own = given.get(name)
        if own is None or isinstance(own, dict):  # else it is a setting of that name
            settings[name] = {**(own or {}), "measure_kl": True}
    return Grid(
        model=scale.model or MODELS[model],
        streams=tuple(dict.fromkeys(stream for stream, _ in pairs)),
        points=points,
        seeds=scale.seeds,
        data=scale.data,
        max_train=scale.max_train,
        max_eval=scale.max_eval,
        recipes=model if scale.recipes == "auto" else scale.recipes,
        settings=settings,
        only=frozenset(pairs),
    )


def folder_of(model: str, scale: Scale, out: Path) -> Path:
    """Where the runs of artefacts are that the paper has of this model (one of `recipes.MODELS`).

    The folder has the name of the model that runs, and that of the paper's beside where it is
    another: their recipes differ.
    """
    name = os.path.basename(os.path.abspath(scale.model or MODELS[model]))
    instead = "" if name == model else f"-for-{model}"
    return out / RUNS / folder(f"{name}{instead}")


class Ran(NamedTuple):
    """What came of the runs of artefacts."""

    failed: list[str]
    """A line for every cell that failed."""
    missing: int
    """How many cells have neither ended nor failed, since their jobs wait or run."""


def run(
    artefacts: Sequence[Artefact],
    scale: Scale,
    out: Path,
    workers: int = 1,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Ran:
    """Run what the artefacts need and is not there.

    With `cluster` the runs are submitted as jobs, and nothing is waited for. Raises NloraError as
    `compare` does.
    """
    failed: dict[str, None] = {}
    missing = 0
    for model, grid in grids_of(artefacts, scale):
        place = folder_of(model, scale, out)
        place.parent.mkdir(parents=True, exist_ok=True)
        rows = compare(grid, place, workers, progress, cluster=cluster)
        missing += len(list(grid.pairs())) * len(grid.seeds) - len(rows)
        for row in rows:
            if "error" in row:
                cell = "{method} on {stream}, seed {seed}".format(**row["cell"])
                failed[f"{cell}: {row['error']}"] = None
    return Ran(list(failed), missing)


def pending(
    artefacts: Sequence[Artefact], scale: Scale, out: Path, progress: Progress | None = None
) -> int:
    """How many jobs of a cluster that run what the artefacts need have not ended."""
    places = {folder_of(artefact.model, scale, out) for artefact in artefacts}
    return sum(len(collect(place, progress or NoProgress())) for place in places)


def ledger_of(artefact: Artefact, scale: Scale, out: Path) -> Path:
    """The ledger of an artefact's runs."""
    return folder_of(artefact.model, scale, out) / LEDGER


def write(artefact: Artefact, material: Material, out: Path) -> list[Path]:
    """Write an artefact in a folder; the files. Nothing is drawn that was not run.

    Raises NloraError where nothing that it shows was run.
    """
    found = artefact.make(material)
    if not found:
        raise NloraError(f"{artefact.key}: {artefact.missing}")
    out.mkdir(parents=True, exist_ok=True)
    why = [] if artefact.ours else explained(material, artefact.model, list(artefact.methods))
    if isinstance(found, Figure):
        drawn = found.write(out)
        page = out / f"{artefact.key}.md"
        page.write_text(_page(artefact, found.tables, why, picture=True), encoding="utf-8")
        return [page, *drawn]
    return _tables(artefact, found, why, out)


def _tables(artefact: Artefact, tables: list[Table], why: list[str], out: Path) -> list[Path]:
    page = out / f"{artefact.key}.md"
    page.write_text(_page(artefact, tables, why), encoding="utf-8")
    paths = [page]
    for table in tables:
        for ending, text in (("csv", comma_separated(table)), ("tex", latex(table))):
            paths.append(out / f"{table.key}.{ending}")
            paths[-1].write_text(text, encoding="utf-8")
    return paths


def _page(artefact: Artefact, tables: list[Table], why: list[str], picture: bool = False) -> str:
    """The artefact as Markdown, with what may explain a difference to the paper's."""
    parts = [f"# {artefact.key}: {artefact.title}\n"]
    if picture:
        parts.append(f"![{artefact.title}]({artefact.key}.svg)\n")
        tables = [
            replace(table, rows=table.rows[:_ROWS], notes=[*table.notes, *_cut(table)])
            for table in tables
        ]
    parts += [markdown(table) for table in tables]
    if why:
        parts.append("What may explain a difference to the paper:\n")
        parts.append("\n".join(f"- {line}" for line in why) + "\n")
    return "\n".join(parts)


_ROWS = 60
"""A page shows so many rows of a figure's numbers; all are in the CSV beside it."""


def _cut(table: Table) -> list[str]:
    return [f"all {len(table.rows)} rows: {table.key}.csv"] if len(table.rows) > _ROWS else []
