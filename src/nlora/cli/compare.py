"""`nlora compare`: a grid of streams, methods and seeds, and its ledger."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show
from nlora.cli.standing import commits_in
from nlora.errors import NloraError


def compare(
    out_dir: Annotated[
        Path, typer.Option("--out", help="The folder for ledger.jsonl and a model per cell.")
    ],
    streams: Annotated[
        list[str] | None,
        typer.Option("--stream", help="As for `nlora run`; repeat for more streams.  [required]"),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            metavar="A,B:KEY=VALUE,…",
            help="Methods, each with settings of its own after a colon if it has any "
            "(inc-lora:routing=input); or all.  [required]",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="As for `nlora run`.  [required]")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0",
    data: o.Data = None,
    max_train: o.MaxTrain = None,
    max_eval: o.MaxEval = None,
    evaluate: Annotated[
        str, typer.Option(help="seen: tasks so far; next: also the next one; all.")
    ] = "next",
    replay: o.Replay = None,
    neutral: Annotated[
        Path | None,
        typer.Option(
            help="With --replay self or --explain: a file of texts that have nothing to do with "
            "any task; else the base model writes some by itself."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[METHOD.]KEY=VALUE",
            help="A setting of all methods, or of one; repeat for more.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Begin each cell from what is published for its method and stream: auto, or the "
            "model that it is published for (t5-large, t5-base, llama-7b). --set wins."
        ),
    ] = None,
    tune: Annotated[
        int,
        typer.Option(
            help="Trials for each method and stream: a grid of the learning rate and the method's "
            "own weight, on dev, with a seed of their own."
        ),
    ] = 0,
    workers: Annotated[
        int, typer.Option(help="Runs at a time; threads are divided among them.")
    ] = 1,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Also say what each cell lost, and why (`nlora explain`), of cells finished "
            "before, too.",
        ),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="With --explain: a third of the questions; labels, and offsets from the task's "
            "own texts and from those that the base model writes; no probe, states or gradients.",
        ),
    ] = False,
    launcher: o.Launcher = None,
    resources: o.Resources = None,
    status: Annotated[
        bool,
        typer.Option(
            "--status",
            help="Only say how far the cells in --out are, and collect those that have ended.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say which cells are left and how long they take here; nothing is written.",
        ),
    ] = False,
    plugin: o.Plugin = None,
    json: o.Json = False,
) -> None:
    """Run every method on every stream with every seed, and keep a ledger of it.

    The same command goes on after a stop, does failed cells again, and does nothing once all are
    finished; streams, methods and seeds may be added. Exit status 1: a cell failed, or is not
    explained as asked. `nlora table OUT/ledger.jsonl` makes the tables.
    """
    if status:
        _show_status(out_dir, json)
        return
    for name, value in {"--stream": streams, "--methods": methods, "--model": model}.items():
        if not value:
            raise NloraError(f"a comparison needs {name}")
    assert streams
    assert methods
    assert model
    from nlora.api.configs import rehearsal
    from nlora.plan.config import absolute
    from nlora.plan.points import parse_points
    from nlora.recipes import published_for
    from nlora.study.compare import compare as run
    from nlora.study.grid import Grid, parse_seeds

    wanted = _wanted(explain, quick, None if replay and not explain else neutral)
    plugin_path = None if plugin is None else absolute(str(plugin))
    grid = Grid(
        model=model,
        streams=tuple(streams),
        points=parse_points(methods, plugin_path),
        seeds=parse_seeds(seeds),
        data=None if data is None else str(data),
        max_train=max_train,
        max_eval=max_eval,
        evaluate=evaluate,
        settings=o.settings(overrides) | rehearsal(replay, neutral if replay else None),
        plugin=plugin_path,
        recipes=None if recipe is None else published_for(recipe, model),
        tune=tune,
    )
    cluster = o.cluster(launcher, resources)
    if dry_run:
        _dry_run(grid, out_dir, workers, json)
        return
    commits_in(out_dir)
    rows = run(grid, out_dir, workers, progress(), wanted, cluster)
    if cluster is not None:
        _show_status(out_dir, json)
        return
    if json:
        print_json({"ledger": str(out_dir / "ledger.jsonl"), "cells": [_brief(r) for r in rows]})
    else:
        columns = ["stream", "method", "seed", "average", "learning", "forgetting", "minutes"]
        show("cells (%)", columns, [_shown(row) for row in rows])
        _print(f"the ledger is {out_dir / 'ledger.jsonl'}")
    failed = [row for row in rows if "error" in row]
    unexplained = [row for row in rows if wanted is not None and wanted.missing_in(row)]
    for row in failed if not json else ():
        _print("{stream}, {method}, seed {seed} failed: ".format(**row["cell"]) + row["error"])
    for row in unexplained if not json else ():
        _print("{stream}, {method}, seed {seed} is not explained".format(**row["cell"]))
    if failed or unexplained:
        raise typer.Exit(1)


def _dry_run(grid: Any, out_dir: Path, workers: int, json: bool) -> None:
    """What the comparison would do."""
    from nlora.study.preview import preview

    found = preview(grid, out_dir, workers, progress())
    if json:
        print_json(found)
        return
    columns = ["stream", "method", "seed", "state"]
    show("cells", columns, [[*map(cell.get, columns)] for cell in found["cells"]])
    _print(found["told"])


def _show_status(out_dir: Path, json: bool) -> None:
    """How far every cell is. Exit status 1: one has failed."""
    from nlora.study.cluster import status

    found = status(out_dir, progress())
    counts = Counter(one.state for one in found)
    if json:
        cells = [{**one.cell, **one._asdict()} for one in found]
        for cell in cells:
            del cell["cell"]
        print_json({"ledger": str(out_dir / "ledger.jsonl"), "counts": counts, "cells": cells})
    else:
        columns = ["stream", "method", "seed", "state", "job"]
        rows = [[*map(one.cell.get, columns[:3]), one.state, one.job] for one in found]
        show("cells", columns, rows)
        _print(", ".join(f"{number} {state}" for state, number in counts.items()) or "no cells")
    for one in found if not json else ():
        if one.error:
            _print("{stream}, {method}, seed {seed} failed: ".format(**one.cell) + one.error)
    if counts["failed"]:
        raise typer.Exit(1)


def _wanted(explain: bool, quick: bool, neutral: Path | None) -> Any:
    """How each cell is explained, if it is. Raises NloraError for what cannot be."""
    if not explain:
        if quick:
            raise NloraError("--quick is for --explain")
        if neutral is not None:
            raise NloraError("--neutral is for --explain")
        return None
    from nlora.explain.asked import Options
    from nlora.explain.summary import Wanted
    from nlora.explain.texts import neutral_texts

    options = replace(Options.quick() if quick else Options(), neutral=neutral).checked()
    if neutral is not None:
        neutral_texts(neutral, options.texts)  # should not wait for a training
    return Wanted(options)


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """What a list of cells has of a row."""
    names = ("average_accuracy", "learning_accuracy", "forgetting", "seconds", "error")
    return {**row["cell"], **{name: row.get(name) for name in names}}


def _shown(row: dict[str, Any]) -> list[Any]:
    *values, seconds, _ = _brief(row).values()
    return [*values, None if seconds is None else seconds / 60]


def _print(line: str) -> None:
    out.print(line, markup=False, highlight=False)
