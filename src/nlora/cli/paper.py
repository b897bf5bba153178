"""`nlora paper`: the paper's tables and figures, each by one command."""

from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import as_json, err, out, print_json, progress, show
from nlora.cli.standing import commits_in


def paper(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="Tables and figures, or all; without any: a list."),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", help="The folder for tables and figures, and for the runs."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Another model than the paper's, as for `nlora run`.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Whose published settings: auto (of the paper's model), t5-large, t5-base, "
            "llama-7b, or none (each method's defaults)."
        ),
    ] = "auto",
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds, separated by commas; without: 0,1,2, with --max-train 0."),
    ] = None,
    data: o.Data = None,
    max_train: o.MaxTrain = None,
    max_eval: o.MaxEval = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all runs; repeat for more."),
    ] = None,
    ledgers: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", metavar="LEDGER", help="Run nothing: draw from these; repeat for more."
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With --from: the folder of `nlora compare` with the models, for the figures that "
            "look at weights.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Runs at a time; threads are divided among them. Without: 1, with --max-train on "
            "CPUs one for each core."
        ),
    ] = None,
    launcher: o.Launcher = None,
    resources: o.Resources = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which runs are needed and how long they take.")
    ] = False,
    json: o.Json = False,
) -> None:
    """Make a table or figure of the N-LoRA paper: run what it needs, and draw it.

    `nlora paper table-1 --out DIR` runs all methods on all orders with their published settings,
    and writes CSV, Markdown and LaTeX, with the paper's numbers beside; figures are PDF, SVG and
    PNG. The same command goes on after a stop. --model and --seeds make it smaller, and --max-train
    makes it a trial: also one seed, one epoch, few tests and short texts, where they are not given.
    With --launcher the runs are jobs of a cluster, and the same command draws when they have ended.
    Exit status 1: a run failed, or nothing was there to be drawn.
    """
    from nlora.errors import NloraError
    from nlora.paper.artefacts import ARTEFACTS, chosen
    from nlora.paper.estimate import count, estimate, left
    from nlora.paper.index import write_index
    from nlora.paper.make import ledger_of, pending, run, write
    from nlora.paper.material import material
    from nlora.paper.scale import scale as scaled
    from nlora.paper.scale import workers_of
    from nlora.plan.config import parse_overrides
    from nlora.recipes import published_for
    from nlora.study.grid import parse_seeds

    if not names:
        rows = [[a.key, a.title, len(a.methods), len(a.streams)] for a in ARTEFACTS.values()]
        if json:
            print_json(
                [dict(zip(("name", "title", "methods", "orders"), r, strict=True)) for r in rows]
            )
        else:
            show(
                "the paper's tables and figures", ["name", "what it is", "methods", "orders"], rows
            )
        return
    wanted = chosen(names)
    if out_dir is None:
        raise NloraError("--out DIR: where the tables and figures go")
    if recipe not in ("auto", "none"):
        published_for(recipe, "")
    failed: list[str] = []
    scale = scaled(
        model=model,
        recipes=None if recipe == "none" else recipe,
        seeds=None if seeds is None else parse_seeds(seeds),
        data=None if data is None else str(data),
        max_train=max_train,
        max_eval=max_eval,
        settings=parse_overrides(overrides or []),
    )
    cluster = o.cluster(launcher, resources)
    if ledgers and cluster:
        raise NloraError("--from runs nothing, so there is nothing for --launcher")
    if not ledgers:
        workers = workers or workers_of(scale)
        runs = left(wanted, scale, out_dir)
        if scale.told:
            err.print(scale.told, markup=False, highlight=False)
        told = f"{count(runs)} runs" if cluster else estimate(runs, workers, progress())
        err.print(told, markup=False, highlight=False)
        if dry_run:
            return
        commits_in(*(ledger_of(artefact, scale, out_dir).parent for artefact in wanted))
        failed, absent = run(wanted, scale, out_dir, workers, progress(), cluster)
        if cluster and (jobs := pending(wanted, scale, out_dir, progress())):
            said = f"{jobs} jobs have not ended; the same command draws what they give"
            err.print(said, markup=False, highlight=False)
            if absent:  # else it is drawn without what has failed, and was submitted again
                if json:
                    print(as_json({"files": {}, "failed": [], "jobs": jobs}))
                return
    written: dict[str, list[str]] = {}
    missing: dict[str, str] = {}
    for artefact in wanted:
        at = ledgers or [ledger_of(artefact, scale, out_dir)]
        folder = models if ledgers else ledger_of(artefact, scale, out_dir).parent
        try:
            files = write(artefact, material(at, folder), out_dir)
            written[artefact.key] = [str(path) for path in files]
        except NloraError as error:
            missing[artefact.key] = str(error).removeprefix(f"{artefact.key}: ")
            failed.append(str(error))
    if written:
        written["index"] = [str(write_index(out_dir, missing))]
    if json:
        print(as_json({"files": written, "failed": failed}))
    else:
        for files in written.values():
            out.print("\n".join(files), markup=False, highlight=False)
        for line in failed:
            err.print(line, style="red", markup=False, highlight=False)
    if failed:
        raise typer.Exit(1)
