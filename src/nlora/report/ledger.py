"""The ledger: a JSON line per finished run, with all that is needed to repeat and to compare it.

A row is made from a model directory and holds no path, so that it means the same on any machine.
Tables are made from ledgers alone: which test examples were answered right stands in a row too.
"""

import json
import os
import platform
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.store.atomic import write_text
from nlora.store.directory import ModelDirectory, StageRecord

_CONFIGURATION = ("method", "tasks", "seed", "max_train", "max_eval", "evaluate", "settings")


def configuration(document: dict[str, Any]) -> dict[str, Any]:
    """What of a `model.json` decides the result. A model in a folder goes by the folder's name."""
    model = Path(document["model"])
    name = model.name if model.is_absolute() else document["model"]
    return {"model": name, **{key: document[key] for key in _CONFIGURATION}}


def row(directory: ModelDirectory) -> dict[str, Any]:
    """The row of a model directory whose run is finished."""
    document = directory.config()
    found = configuration(document)
    records = directory.stages()
    zero = directory.zero_shot()
    everything = [*([zero] if zero else []), *records]
    return {
        "configuration": found,
        "hash": digest(found),
        "base": document["base"],
        "needs": needs(document),
        "data": {k: v for r in records for k, v in r.fingerprints.items()},
        "versions": document["versions"],
        "machine": machine(),
        **directory.results(),
        "seconds_by": {
            kind: sum(r.seconds.get(kind, 0.0) for r in everything)
            for kind in ("training", "evaluation")
        },
        "trainable_parameters": [r.trainable_parameters for r in records],
        "losses": {r.name: _last(directory, r) for r in records},
        "notes": {r.name: r.notes for r in records},
        "answers": {
            "zero_shot": answers(directory, zero) if zero else None,
            "stages": [answers(directory, r) for r in records],
        },
        "tests": _tests(directory),
    }


def needs(document: dict[str, Any]) -> dict[str, Any]:
    """What the method of a `model.json` needs: the marks in tables."""
    from nlora.methods.registry import method  # which imports torch; tables do without

    plugin = document.get("plugin")
    entry = method(document["method"], Path(plugin) if plugin else None)
    own = {k: v for k, v in document["settings"].items() if k in entry.kind.Settings.model_fields}
    built = entry.build(own)
    return {
        "task_identity": built.needs_task_id,
        "old_data": built.needs_old_data,
        "storage": built.storage_grows,
        "carrier": built.carrier,
    }


def machine() -> dict[str, Any]:
    """The hardware that this process runs on."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text("utf-8").splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def answers(directory: ModelDirectory, record: StageRecord) -> dict[str, str]:
    """Which test examples of each task were answered right, as `pack` writes it."""
    lines = (directory.stage_path(record) / "predictions.jsonl").read_text("utf-8")
    right: dict[str, list[bool]] = {}
    for line in lines.removesuffix("\n").split("\n"):  # a text may hold other ends of line
        prediction = json.loads(line)
        right.setdefault(prediction["task"], []).append(prediction["correct"])
    return {task: pack(rows) for task, rows in right.items()}


def pack(right: Sequence[bool]) -> str:
    """Right and wrong answers as text: how many, and their bits in hex.

    >>> pack([True, False, True])
    '3:a0'
    """
    return f"{len(right)}:{np.packbits(np.array(right, dtype=bool)).tobytes().hex()}"


def unpack(text: str) -> np.ndarray:
    """What `pack` wrote, (n,) of 0 and 1.

    >>> unpack("3:a0").tolist()
    [1, 0, 1]
    """
    count, bits = text.split(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=int(count))


def _tests(directory: ModelDirectory) -> dict[str, str]:
    """A hash of each task's test examples: only answers to the same ones can be paired."""
    return {
        task: digest([[row["text"], row["label"]] for row in rows])
        for task, rows in directory.tests().items()
    }


def _last(directory: ModelDirectory, record: StageRecord) -> dict[str, float]:
    """Each loss term's mean over the last quarter of the stage."""
    lines = (directory.stage_path(record) / "losses.jsonl").read_text("utf-8").splitlines()
    steps = [json.loads(line) for line in lines[-max(len(lines) // 4, 1) :]]
    names = [k for k in steps[-1] if k not in ("step", "epoch")]
    return {name: sum(step[name] for step in steps) / len(steps) for name in names}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a ledger of runs. Raises NloraError, with the line, for what is none."""
    if not path.is_file():
        raise NloraError(f"{path} does not exist; `nlora compare` writes OUT/ledger.jsonl")
    return list(lines(path, {"configuration", "base"}))


def lines(path: Path, keys: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Raises NloraError, with the line, if one lacks these keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NloraError(f"{path} is not UTF-8: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise NloraError(f"{path}, line {number}: not valid JSON: {error}") from error
        if not isinstance(found, dict) or not found.keys() >= set(keys):
            raise NloraError(f"{path}, line {number}: not a row of a ledger of runs")
        yield found


def write(path: Path, new: dict[str, Any], same: Sequence[str] = ("cell",)) -> None:
    """Add a row, in place of one with the same values of the keys `same` (a cell that failed).

    A reader sees the old file or the new one, whatever happens.
    """
    old = lines(path) if path.exists() else ()
    rows = [*(row for row in old if _key(row, same) != _key(new, same)), new]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _key(row: dict[str, Any], same: Sequence[str]) -> list[Any]:
    return [row.get(name) for name in same]
