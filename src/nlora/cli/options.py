"""Options that several commands share, and how they make one configuration."""

from pathlib import Path
from typing import Annotated, Any

import typer

from nlora.errors import NloraError

Model = Annotated[
    str | None,
    typer.Option(help="Built-in name, folder, or OWNER/NAME[@REVISION] on the Hugging Face Hub."),
]
MethodName = Annotated[str | None, typer.Option("--method", help="See `nlora methods`.")]
Data = Annotated[
    Path | None, typer.Option(envvar="NLORA_DATA", help="The benchmark's folder.", show_envvar=True)
]
Seed = Annotated[int | None, typer.Option(help="Decides all that is random.  [default: 0]")]
MaxTrain = Annotated[
    int | None, typer.Option(help="At most so many training examples a task, every label's share.")
]
MaxEval = Annotated[
    int | None, typer.Option(help="At most so many test examples a task, the same for every seed.")
]
EvaluateMode = Annotated[
    str | None,
    typer.Option(help="seen: tasks so far; next: also the next one; all.  [default: seen]"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeat for more."),
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="Published settings, see `nlora methods --recipes`.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="A whole run: YAML, or the model.json of a finished run."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="text=NAME,label=NAME",
        help="Which columns are the text and the label; NAME+NAME makes one text of two.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="auto|A,B,…",
        help="The answers to choose from, where a file of rows is read; auto: those in it.",
    ),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", help="Leave out rows that are wrong, at most 5 %.")
]
Encoding = Annotated[str | None, typer.Option(help="Of text files.  [default: utf-8]")]
Answers = Annotated[
    str,
    typer.Option(
        "--answers",
        help="likely: the most likely label; matched: with an offset per label that makes the "
        "model answer as it did right after the task (docs/explain.md); auto: matched for "
        "tasks of which `nlora explain --dev` has found that it helps.",
    ),
]
Plugin = Annotated[
    Path | None,
    typer.Option(help="A Python file that defines a method, a metric or a data source."),
]
FromAdapter = Annotated[
    str | None,
    typer.Option(
        "--from-adapter",
        help="Go on from this LoRA adapter (PEFT folder or Hub name), which stands as the first "
        "stage; its base model, rank, alpha and target modules are taken.",
    ),
]
Knows = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:LABELS]=FILE",
        help="The task that the adapter knows, with its test file (or a YAML file of one task), "
        "so that its forgetting is measured. NAME:auto=FILE has the labels in it, NAME:A,B=FILE "
        "these; else answers are free text.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen, and stop.")]
Replay = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE|self|by-label|FILE",
        help="What later stages rehearse: a share of kept examples (0.05), the model's own answers "
        "to neutral texts (self) or to what the base model writes about a task's labels "
        "(by-label), or a file of general examples.",
    ),
]
Neutral = Annotated[
    Path | None,
    typer.Option(
        help="With --replay self: a file of texts that have nothing to do with any task; else the "
        "base model writes some by itself."
    ),
]
Launcher = Annotated[
    str | None,
    typer.Option(
        metavar="slurm|local",
        help="Submit each run as a job of a cluster (extra slurm) and wait for none; local: "
        "all at once on this machine, to try it out.",
    ),
]
Resources = Annotated[
    Path | None,
    typer.Option(
        help="With --launcher: a YAML file of what each job is given (partition, hours, gpus, "
        "cpus, memory, setup, at_once, options)."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settings(overrides: list[str] | None) -> dict[str, Any]:
    """The settings of `--set`. Raises NloraError for what is no key=value."""
    from nlora.plan.config import parse_overrides

    return parse_overrides(overrides or [])


def cluster(launcher: str | None, resources: Path | None) -> Any:
    """Where runs are submitted, by --launcher and --resources; None: they run here.

    Raises NloraError for an unknown launcher, and for resources that are none.
    """
    if launcher is None:
        if resources is not None:
            raise NloraError("--resources is for --launcher")
        return None
    from nlora.study.cluster import Cluster, parse_launcher, read_resources
    from nlora.study.cluster import Resources as Given

    given = Given() if resources is None else read_resources(resources)
    return Cluster(parse_launcher(launcher), given)


def reading(columns: str | None, encoding: str | None, skip_bad_rows: bool) -> dict[str, Any]:
    """The fields of `Reading` that options for a file of rows give."""
    from nlora.data.columns import parse_columns

    given = {
        "columns": parse_columns(columns) if columns else None,
        "encoding": encoding,
        "on_bad_row": "skip" if skip_bad_rows else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def check_out(out: Path) -> None:
    """Raise NloraError, before anything is loaded, if no file can be written there.

    A file of a model directory or a comparison is not written over.
    """
    from nlora.store.atomic import check_place

    if out.is_dir():
        raise NloraError(f"{out} is a folder; --out takes a file")
    if out.exists():
        for folder in out.absolute().parents:
            if any((folder / kind).is_file() for kind in ("model.json", "compare.json")):
                raise NloraError(f"{out} is a file of {folder}; --out takes another place")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        check_place(out, size=0)
    except OSError as error:
        raise NloraError(f"--out {out}: {error.strerror or error}") from None
