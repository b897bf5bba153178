"""An artefact from its runs: those it needs, run by `compare`, and written in the paper's form."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nlora.errors import NloraError
from nlora.paper.artefacts import MOVED, Artefact
from nlora.paper.explained import explained
from nlora.paper.figure import Figure
from nlora.paper.material import Material
from nlora.paper.scale import Scale
from nlora.plan.points import parse_points
from nlora.progress import NoProgress, Progress
from nlora.recipes import MODELS
from nlora.report.formats import comma_separated, latex, markdown
from nlora.report.table import Table
from nlora.study.compare import compare
from nlora.study.grid import Grid, folder
from nlora.study.output import LEDGER

RUNS = "runs"
"""The folder of the comparison, below that of the artefacts; one in it for each model."""


def grid_of(artefact: Artefact, scale: Scale) -> Grid:
    """The runs that an artefact needs, each as any other artefact would have it run."""
    model = scale.model or MODELS[artefact.model]
    recipes = artefact.model if scale.recipes == "auto" else scale.recipes
    points = parse_points([",".join(artefact.methods)])
    methods = {point.method for point in points}
    of_methods = {k: v for k, v in scale.settings.items() if isinstance(v, dict)}
    common = {k: v for k, v in scale.settings.items() if k not in of_methods}
    own = {
        name: {**of_methods.get(name, {}), **({"measure_kl": True} if name in MOVED else {})}
        for name in sorted(methods)
    }
    return Grid(
        model=model,
        streams=artefact.streams,
        points=points,
        seeds=scale.seeds,
        data=scale.data,
        max_train=scale.max_train,
        max_eval=scale.max_eval,
        recipes=recipes,
        settings={**common, **{name: more for name, more in own.items() if more}},
    )


def folder_of(artefact: Artefact, scale: Scale, out: Path) -> Path:
    """Where the runs of an artefact are: those of one model together.

    The folder has the name of the model that runs, and that of the paper's beside where it is
    another: their recipes differ.
    """
    model = os.path.basename(os.path.abspath(scale.model or MODELS[artefact.model]))
    instead = "" if model == artefact.model else f"-for-{artefact.model}"
    return out / RUNS / folder(f"{model}{instead}")


def run(
    artefacts: Sequence[Artefact],
    scale: Scale,
    out: Path,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[str]:
    """Run what the artefacts need and is not there; a line for every cell that failed.

    Raises NloraError as `compare` does.
    """
    progress = progress or NoProgress()
    failed: dict[str, None] = {}
    for artefact in artefacts:
        place = folder_of(artefact, scale, out)
        place.parent.mkdir(parents=True, exist_ok=True)
        progress.message(
            f"{artefact.key}: {len(artefact.methods)} methods, {len(artefact.streams)} orders"
        )
        for row in compare(grid_of(artefact, scale), place, workers, progress):
            if "error" in row:
                cell = "{method} on {stream}, seed {seed}".format(**row["cell"])
                failed[f"{cell}: {row['error']}"] = None
    return list(failed)


def ledger_of(artefact: Artefact, scale: Scale, out: Path) -> Path:
    """The ledger of an artefact's runs."""
    return folder_of(artefact, scale, out) / LEDGER


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
        page = out / f"{artefact.key}.md"
        page.write_text(_page(artefact, found.tables, why, picture=True), encoding="utf-8")
        return [page, *found.write(out)]
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
