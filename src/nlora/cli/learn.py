"""`nlora learn`: one more task for a model that keeps what it knows."""

import os
from pathlib import Path
from typing import Annotated

import typer

from nlora.cli import options as o
from nlora.cli.console import print_json, progress, show_results
from nlora.errors import NloraError


def learn(
    model_dir: Annotated[Path, typer.Argument(help="The model directory.")],
    task: Annotated[
        str,
        typer.Option(help="A data set of the benchmark, a YAML file of one task, or a JSONL file."),
    ],
    test: Annotated[
        Path | None, typer.Option(help="The test file, where --task is a JSONL or CSV file.")
    ] = None,
    method: o.MethodName = None,
    model: o.Model = None,
    data: o.Data = None,
    seed: o.Seed = None,
    max_train: o.MaxTrain = None,
    max_eval: o.MaxEval = None,
    overrides: o.Set = None,
    config: o.ConfigFile = None,
    plugin: o.Plugin = None,
    from_adapter: o.FromAdapter = None,
    knows: o.Knows = None,
    json: o.Json = False,
) -> None:
    """Learn one more task. A new directory needs --model and --method, or --from-adapter.

    Every task learned so far is tested again, so the table shows what was forgotten.
    """
    from nlora.continual.learning import learn as learn_task
    from nlora.plan.config import parse_config
    from nlora.store.directory import ModelDirectory

    new = None
    flags = {
        "method": method,
        "model": model,
        "seed": seed,
        "max_train": max_train,
        "max_eval": max_eval,
        "plugin": plugin,
        "from_adapter": from_adapter,
        "knows": knows,
    }
    exists = ModelDirectory(model_dir).exists()
    if config is not None or overrides or any(v is not None for v in flags.values()) or not exists:
        if config is None and exists and not (model and method):
            config = model_dir / "model.json"
        values = o.configuration(None, config, overrides, data=data, **flags)
        new = parse_config(values, str(config or "a new model directory"))
    results = learn_task(model_dir, _task(task, test, data), new, progress())
    if json:
        print_json(results)
    else:
        show_results(results)


def _task(task: str, test: Path | None, data: Path | None):  # type: ignore[no-untyped-def]
    from nlora.data.files import read_entry, task_from_files
    from nlora.data.streams import load_stream

    path = Path(os.path.expanduser(task))
    if path.suffix.lower() in (".jsonl", ".csv"):
        if test is None:
            raise NloraError(f"{task} needs a test file beside it: give --test FILE")
        return task_from_files(path.stem, path, test)
    if test is not None:
        raise NloraError(
            f"--test is for a JSONL or CSV file as --task; '{task}' has tests of its own"
        )
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_entry(path)
    stream = load_stream(task, data)
    if len(stream) != 1:
        raise NloraError(f"--task takes one task, '{task}' is a stream; use `nlora run`")
    return stream[0]
