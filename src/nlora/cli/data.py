"""`nlora data`: get the benchmark, and look what is wrong with a data folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, show, watcher

app = typer.Typer(help="Download the benchmark, or check a data folder.", no_args_is_help=True)


@app.command("download")
def download_data(
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")],
) -> None:
    """Download the benchmark of the paper, check it and unpack it."""
    from nlora.data.download import COMMIT, download

    watch = watcher()
    watch.message(f"cmnfriend/O-LoRA at {COMMIT[:12]}")
    done = 0

    def progress(now: int, total: int | None) -> None:
        nonlocal done
        if not done:
            watch.start("download (bytes)", total or 0)
        watch.advance(now - done)
        done = now

    made, fresh = download(folder, progress=progress)
    watch.finish()
    for path, count in made.dropped.items():
        out.print(f"{path}: {count} rows left out, which no reader could use", markup=False)
    state = "is in" if fresh else "was already in"
    out.print(f"the benchmark {state} {folder}; set NLORA_DATA to it, or give --data", markup=False)


@app.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(envvar="NLORA_DATA", help="The data folder.")],
    json: o.Json = False,
) -> None:
    """Read every data set of a folder and report what is wrong; exit status 2 if anything is."""
    from nlora.data.check import check

    report = check(folder)
    if json:
        print_json(asdict(report))
    else:
        columns = ["data set", "group", "labels", "train", "dev", "test", "majority (%)"]
        columns += ["test in train", "dev is test"]
        rows = [
            [
                d.name,
                d.group,
                d.labels,
                d.train,
                d.dev,
                d.test,
                None if d.majority is None else 100 * d.majority,
                d.test_in_train,
                "yes" if d.dev_is_test else "no",
            ]
            for d in report.datasets
        ]
        show(str(folder), columns, rows)
        for problem in report.problems:
            out.print(f"problem: {problem}", markup=False, highlight=False)
    if report.problems:
        raise typer.Exit(2)
