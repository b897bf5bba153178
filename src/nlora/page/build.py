"""The page: everything in one HTML file that opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from nlora import __version__
from nlora.errors import NloraError
from nlora.page.answers import LOST, NEVER, Wrong, wrong_answers
from nlora.page.charts import Chart, layers, over_stages, trade_off, training
from nlora.page.heat import Heat, heats
from nlora.page.material import Material, gather
from nlora.page.measures import costs, tasks_of
from nlora.page.setup import setup
from nlora.page.words import told
from nlora.report.runs import Section
from nlora.report.table import Cell, Table, Value, text
from nlora.report.tables import KEYS, of_section
from nlora.store.records import now
from nlora.visible import visible

TITLE = "<title>nlora: "
"""How the title of each page begins, by which one is known."""


@dataclass(frozen=True)
class Part:
    """What a page says of one section: the runs of one model with one budget."""

    title: str
    words: list[str]
    tasks: Table | None
    comparison: list[Table]
    curves: list[Chart]
    heats: list[Heat]
    layers: list[Chart]
    cost: list[Table]
    setup: list[Table]


def page(paths: Sequence[Path], every: int | None = None) -> str:
    """The page of model directories, folders of `nlora compare`, and ledgers, as HTML.

    With `every` the page loads itself anew after so many seconds. Raises NloraError for what is
    none of them, for runs that cannot stand side by side, and without the extra `report`.
    """
    return rendered(gather(paths), [str(path) for path in paths], every)


def rendered(material: Material, names: Sequence[str], every: int | None = None) -> str:
    """The page of what was gathered from places of these names."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise _missing("jinja2") from error

    def shown(value: Any) -> Any:
        """Texts with what would be obeyed or hidden written out."""
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("nlora.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(text=text, number=_sorted_by, said=_said)
    wrong = wrong_answers([r for s in material.sections for r in s.runs], material)
    folder = files("nlora.page")
    return environment.get_template("page.html.j2").render(
        names=names,
        made=now(),
        version=__version__,
        every=every,
        material=material,
        parts=[_part(section, material) for section in material.sections],
        wrong=wrong,
        choices=_choices(wrong),
        style=Markup(folder.joinpath("page.css").read_text(encoding="utf-8")),
        script=Markup(folder.joinpath("page.js").read_text(encoding="utf-8")),
        vega=Markup(_vega()),
    )


def _part(section: Section, material: Material) -> Part:
    finished = [run for runs in section.cells.values() for run in runs]
    alone = finished[0] if len(finished) == 1 and finished[0].row["accuracy_matrix"] else None
    keys = sorted({*KEYS} - {"cost", *(["accuracy"] if alone else [])}, key=_importance)
    tables = of_section(section, keys) if finished else []
    taken = costs(section)
    return Part(
        title=section.title,
        words=told(section),
        tasks=tasks_of(alone) if alone else None,
        comparison=[replace(t, title=t.title.split(". ")[0]) for t in tables],
        curves=[*over_stages(section), *trade_off(section), *training(section, material)],
        heats=heats(section),
        layers=layers(section),
        cost=[*([taken] if taken else []), *(of_section(section, ["cost"]) if finished else [])],
        setup=setup(section),
    )


def _choices(wrong: Sequence[Wrong]) -> dict[str, list[str]]:
    """What wrong answers can be filtered by, each with its values."""
    wanted = {
        "label": ("run", sorted({w.label for w in wrong})),
        "task": ("task", list(dict.fromkeys(w.task for w in wrong))),
        "right": ("right answer", sorted({w.right for w in wrong if len(w.right) < 60})),
        "became": ("became", sorted({w.became for w in wrong})),
        "once": ("before", [once for once in (LOST, NEVER) if any(w.once == once for w in wrong)]),
    }
    return {key: [name, *values] for key, (name, values) in wanted.items() if len(values) > 1}


def _importance(key: str) -> tuple[bool, int]:
    """Which table stands first: accuracy, differences to the baseline, what is left of tasks."""
    first = ("accuracy", "differences", "explained-tasks")
    return key not in first, KEYS.index(key)


def _said(table: Table, column: int) -> bool:
    """Whether a column holds texts."""
    cells = [row[column] for row in table.rows if row[column] is not None]
    return not all(isinstance(cell, Value | int) for cell in cells)


def _sorted_by(cell: Cell) -> str:
    """The number that a cell is sorted by; empty for texts."""
    if isinstance(cell, Value):
        return repr(cell.mean)
    return str(cell) if isinstance(cell, int) else ""


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script."""
    try:
        from vl_convert import javascript_bundle
    except ImportError as error:
        raise _missing("vl-convert-python") from error
    bundle = javascript_bundle()  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")


def _missing(package: str) -> NloraError:
    return NloraError(f"{package} is missing: pip install 'nlora[report]'")
