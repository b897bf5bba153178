"""What a model directory of many stages costs: made up, of a tiny random model, nothing trained.

    python benchmarks/many_tasks.py [--stages 10 100 1000] [--tested own] [--steps open history]

A stage is learned by `learn`, and copied under other names with random updates until there are so
many. Each step is a fresh process: its CPU seconds without imports, and its peak memory. With
`--tested all` a record has the accuracy of every task so far, as `learn` writes it; with `own` that
of its own task alone, which is what remains linear in the number of stages.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tests.tiny import save, task

from nlora.api.geometry import analyze
from nlora.continual.answering import predict
from nlora.continual.history import history
from nlora.continual.learning import learn, run
from nlora.continual.results import write_results
from nlora.continual.verifying import verify
from nlora.data.task import TaskData
from nlora.methods.parts.lora import LoraState
from nlora.plan.config import RunConfig
from nlora.store.directory import ModelDirectory
from nlora.store.manifests import Manifest
from nlora.store.records import StageRecord
from nlora.store.state import read_state, write_state

SETTINGS = {"routing": "input", "precision": "fp32", "epochs": 1, "rank": 2, "max_new_tokens": 2}
SAMPLE = 10
"""How many adapters are analysed."""


def made(folder: Path, stages: int, tested: str) -> Path:
    """A model directory of so many stages, below a folder that is there."""
    model, first, out = folder / "model", folder / "first", folder / f"{stages}"
    if not model.exists():
        save("llama", model)
        config = RunConfig(model=str(model), method="inc-lora", settings=SETTINGS)
        run(config, first, stream=[task("task0")])
    shutil.copytree(first, out, ignore=shutil.ignore_patterns("stages"))
    given, directory = ModelDirectory(first), ModelDirectory(out)
    [pattern] = given.stages()
    source = given.stage_path(pattern)
    state = read_state(source / "state", LoraState)
    torch.manual_seed(0)
    on: str | None = None
    for index in range(1, stages + 1):
        record = _record(pattern, index, on, tested)
        on = record.folder

        def write(place: Path, index: int = index) -> None:
            shutil.copytree(source, place, dirs_exist_ok=True)
            (place / "stage.json").unlink()
            for name in ("test.jsonl", "predictions.jsonl"):
                text = (place / name).read_text().replace("task0", f"task{index - 1}")
                (place / name).write_text(text)
            weights = place / "update" / "adapter_model.safetensors"
            drawn = {n: 0.01 * torch.randn_like(t) for n, t in load_file(weights).items()}
            save_file(drawn, weights, metadata={"format": "pt"})
            shutil.rmtree(place / "state")
            if index == stages:  # each lists all tasks so far: here only the last one is written
                (place / "state").mkdir()
                write_state(place / "state", _route(state, stages))

        directory.commit(record, write)
    with directory.locked():  # which writes the index, as `learn` does
        directory.stages()
    return out


def _record(pattern: StageRecord, index: int, on: str | None, tested: str) -> StageRecord:
    name = f"task{index - 1}"
    record = pattern.model_copy(deep=True, update={"index": index, "name": name})
    record.tasks = [pattern.tasks[0] | {"name": name}]
    record.fingerprints = {name: pattern.fingerprints["task0"]}
    record.manifest = Manifest(on=on, adds=[record.folder])
    accuracy = pattern.accuracy["task0"]
    names = [f"task{i}" for i in range(index)] if tested == "all" else [name]
    record.accuracy = dict.fromkeys(names, accuracy)
    record.among_labels, record.off_list, record.by_label = {}, {}, {}
    record.tested = dict.fromkeys(names, 12)
    record.budget = record.budget | {"rows": {}}
    record.notes.pop("routing", None)
    return record


def _route(one: LoraState, stages: int) -> LoraState:
    """The state of a router of so many tasks, their means at random places."""
    text, numbers = one.by_text, range(1, stages + 1)
    mean = text.means[0]
    return LoraState(
        replace(
            text,
            means=[mean + torch.randn_like(mean) for _ in numbers],
            stages=list(numbers),
            texts=text.texts * stages,
            counts=_each(text.counts, stages),
            held_out=_each(text.held_out, stages),
            limits=_each(text.limits, stages),
        )
    )


def _each(of_one: dict[str, Any], stages: int) -> dict[str, Any]:
    """What is known of the one stage, of every stage."""
    numbers = range(1, stages + 1)
    return {str(n): deepcopy(value) for value in of_one.values() for n in numbers}


def _without_index(directory: ModelDirectory) -> None:
    directory.index.forget()
    directory.stages()


STEPS: dict[str, Callable[[Path, list[TaskData]], Any]] = {
    "open": lambda out, _: ModelDirectory(out).stages(),
    "without index": lambda out, _: _without_index(ModelDirectory(out)),
    "history": lambda out, _: history(ModelDirectory(out)),
    "results": lambda out, tasks: write_results(
        ModelDirectory(out), [data.name for data in tasks], "inc-lora"
    ),
    "predict": lambda out, tasks: predict(out, [e.text for e in tasks[0].test]),
    "verify": lambda out, _: verify(out, sample=0),
    "analyze": lambda out, tasks: analyze(
        *[r / "update" for r in sorted((out / "stages").iterdir())[:SAMPLE]]
    ),
    "learn": lambda out, tasks: learn(out, task(f"task{len(tasks)}")),
}


def measured(step: str, out: Path, stages: int) -> dict[str, float]:
    """CPU seconds and peak memory of a step, in a process of its own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_measure, (step, out, stages))


def _measure(step: str, out: Path, stages: int) -> dict[str, float]:
    torch.set_num_threads(1)
    tasks = [task(f"task{index}") for index in range(stages)]
    started = time.process_time()
    STEPS[step](out, tasks)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "mib": peak / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--tested", choices=("own", "all"), default="own")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    asked = parser.parse_args()
    os.fsync = lambda _: None  # what is made up need not survive a power cut
    with tempfile.TemporaryDirectory() as name:
        for stages in asked.stages:
            out = made(Path(name), stages, asked.tested)
            records = sum(p.stat().st_size for p in out.glob("stages/*/stage.json"))
            print(f"{stages} stages, {records / 1e6:.2f} MB of stage.json", flush=True)
            for step in asked.steps:
                found = measured(step, out, stages)
                told = f"{found['seconds']:.2f} CPU seconds, {found['mib']:.0f} MiB"
                print(f"  {step}: {told}", flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
