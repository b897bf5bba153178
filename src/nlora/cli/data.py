"""`nlora data`: get the benchmark, and look what is wrong with a data folder."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import out, print_json, progress, show

if TYPE_CHECKING:
    from nlora.data.convert import Converted

app = typer.Typer(help="Download the benchmark, or check a data folder.", no_args_is_help=True)


Copied = Annotated[
    str, typer.Argument(help="A stream of a data folder, or data sets with commas between.")
]
NewFolder = Annotated[Path, typer.Option("--out", help="The new data folder.")]


@app.command("download")
def download_data(
    folder: Annotated[Path, typer.Argument(help="Where to; must not exist yet.")],
    collection: Annotated[
        str, typer.Option(help="benchmark, or superni-15 (goes into any data folder).")
    ] = "benchmark",
) -> None:
    """Download the benchmark of the paper, or another collection; check and unpack it."""
    from nlora.data.download import COMMIT, download
    from nlora.errors import NloraError, unknown

    if collection == "superni-15":
        _download_superni(folder)
        return
    if collection == "trace":
        raise NloraError(
            "TRACE's repository (https://github.com/BeyonderXX/TRACE) does not hold its data; get "
            "the zip from its authors by hand, then `nlora data convert trace ZIP DIR`"
        )
    if collection != "benchmark":
        raise unknown("collection", collection, ["benchmark", "superni-15", "trace"])
    with _Megabytes() as progress:
        progress.watch.message(f"cmnfriend/O-LoRA at {COMMIT[:12]}")
        made, fresh = download(folder, progress=progress)
    _tell_dropped(made.dropped)
    state = "is in" if fresh else "was already in"
    line = f"the benchmark {state} {folder}; set NLORA_DATA to it, or give --data"
    out.print(line, markup=False, highlight=False)


def _download_superni(folder: Path) -> None:
    from nlora.data.sapt import COMMIT, download

    with _Megabytes() as progress:
        progress.watch.message(f"circle-hit/SAPT at {COMMIT[:12]}")
        made = download(folder, progress=progress)
    _tell_converted("superni-15", made, folder)


class _Megabytes:
    """Shows a download: as a bar, or as lines where the server does not say how long it is."""

    def __init__(self) -> None:
        self.watch = progress()
        self.shown = 0
        self.open = False

    def __enter__(self) -> "_Megabytes":
        return self

    def __call__(self, done: int, total: int | None) -> None:
        """So many bytes have come."""
        megabytes = done // 1_000_000
        if total is None:
            if megabytes >= self.shown + 10:
                self.shown = megabytes
                self.watch.message(f"{megabytes} MB")
            return
        if not self.open:
            self.open = True
            self.watch.start("download (MB)", total // 1_000_000)
        self.watch.advance(megabytes - self.shown)
        self.shown = megabytes

    def __exit__(self, *error: object) -> None:
        if self.open:
            self.watch.finish()


@app.command("check")
def check_data(
    folder: Annotated[
        str,
        typer.Argument(envvar="NLORA_DATA", help="The data folder, a YAML stream, or a file."),
    ],
    labels: o.Labels = None,
    columns: o.Columns = None,
    encoding: o.Encoding = None,
    skip_bad_rows: o.SkipBadRows = False,
    plugin: o.Plugin = None,
    json: o.Json = False,
) -> None:
    """Read every data set of a folder and report what is wrong; exit status 2 if anything is.

    Also of a YAML stream, or of rows as `nlora learn` takes them, with the same options.
    """
    from nlora.data.balance import FREE, in_words
    from nlora.data.check import check
    from nlora.data.reading import Reading

    if plugin is not None:
        from nlora.methods.registry import import_plugin

        import_plugin(plugin)
    given = o.reading(columns, encoding, skip_bad_rows)
    report = check(folder, labels, Reading(**given) if given else None)
    if json:
        print_json(asdict(report))
    else:
        names = ["data set", "group", "labels", "train", "dev", "test", "majority (%)"]
        names += ["test in train", "dev is test"]
        rows = [
            [
                d.name,
                d.group,
                FREE if d.labels is None else d.labels,
                d.train,
                d.dev,
                d.test,
                None if d.majority is None else 100 * d.majority,
                d.test_in_train,
                "yes" if d.dev_is_test else "no",
            ]
            for d in report.datasets
        ]
        if rows:
            show(folder, names, rows)
        for d in report.datasets:
            told = [f"{d.name}: {in_words(d.counts)}"] if d.counts else []
            for line in [*told, *d.notes]:
                out.print(line, markup=False, highlight=False)
        for problem in report.problems:
            out.print(f"problem: {problem}", markup=False, highlight=False)
    if report.problems:
        raise typer.Exit(2)


@app.command("convert")
def convert_data(
    collection: Annotated[str, typer.Argument(help="trace or superni-15.")],
    source: Annotated[Path, typer.Argument(help="The published zip, or a folder with its files.")],
    folder: Annotated[Path, typer.Argument(envvar="NLORA_DATA", help="The data folder.")],
) -> None:
    """Convert the published files of TRACE or of SAPT (SuperNI) into a data folder."""
    from nlora.data.convert import convert

    _tell_converted(collection, convert(collection, source, folder), folder)


@app.command("relabel")
def relabel_data(
    stream: Copied,
    out_dir: NewFolder,
    data: o.Data = None,
    seed: Annotated[int, typer.Option(help="Decides the words.")] = 0,
) -> None:
    """Copy data sets with made-up words for labels: a control in which labels mean nothing.

    What a model never saw it cannot guess then, so that bias and knowledge come apart
    (docs/explain.md). Train on them by the names of the data sets, with --data OUT.
    """
    from nlora.data.made_up import relabel

    for name, words in relabel(stream, data, out_dir, seed).items():
        became = ", ".join(f"{label} → {word}" for label, word in words.items())
        out.print(f"{name}: {became}", markup=False, highlight=False, soft_wrap=True)


@app.command("on-dev")
def copy_on_dev(
    stream: Copied,
    out_dir: NewFolder,
    data: o.Data = None,
    seed: Annotated[
        int, typer.Option(help="Decides what is held out where dev is none, or is the test.")
    ] = 0,
) -> None:
    """Copy data sets with their dev examples for tests, to choose methods and settings by.

    Test examples are left out. Without dev examples that are not in test a fifth of the training
    examples is held out. Compare with --data OUT, choose, and look at the test once.
    """
    from nlora.data.dev import copied_on_dev

    for known in copied_on_dev(stream, data, out_dir, seed):
        line = f"{known.name}: {len(known.train)} training and {len(known.test)} test examples"
        out.print(line, markup=False, highlight=False)


def _tell_converted(collection: str, made: "Converted", folder: Path) -> None:
    _tell_dropped(made.dropped)
    line = f"{collection} is in {made.folder}; set NLORA_DATA to {folder}, or give --data"
    out.print(line, markup=False, highlight=False)


def _tell_dropped(dropped: dict[str, int]) -> None:
    for path, count in dropped.items():
        line = f"{path}: {count} rows left out, which no reader could use"
        out.print(line, markup=False, highlight=False)
