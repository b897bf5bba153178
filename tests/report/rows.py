"""Ledger rows that are made up, with answers from which their accuracies follow."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlora.data.streams import ORDERS
from nlora.data.task import digest
from nlora.evaluation.matrix import summary
from nlora.report.ledger import pack
from nlora.report.table import Table, text

STANDARD = ("order-1", "order-2", "order-3")
UNTRAINED = {"stages": [], "accuracy_matrix": [], "answers": {"zero_shot": {}, "stages": []}}
"""What a row says of no stage."""


def row(
    method: str = "inc-lora",
    stream: str = "order-1",
    seed: int = 0,
    chance: float = 0.5,
    drop: float = 0.0,
    count: int = 40,
    geometry: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A row whose answers are right by chance; a task loses `drop` per later stage."""
    tasks = list(ORDERS.get(stream, ("red", "blue")))
    rng = np.random.default_rng(int(digest([method, stream, seed]), 16))
    stages = [
        {task: rng.random(count) < chance - drop * (k - t) for t, task in enumerate(tasks[: k + 2])}
        for k in range(len(tasks))
    ]
    matrix = [[100 * s[t].mean() if t in s else None for t in tasks] for s in stages]
    zero = {task: np.zeros(count, dtype=bool) for task in tasks}
    settings = {"prompt": "paper", "chat": False, "learning_rate": 1e-3}
    configuration = {
        "model": "m",
        "method": method.split(":")[0],
        "tasks": tasks,
        "seed": seed,
        "max_train": 10,
        "max_eval": count,
        "evaluate": "next",
        "settings": settings,
    }
    made = {
        "cell": {"stream": stream, "method": method, "seed": seed},
        "configuration": configuration,
        "hash": digest(configuration),
        "base": {"title": "a model", "revision": None},
        "needs": {"task_identity": False, "old_data": False, "storage": False, "adapter": "lora"},
        "machine": {"processor": "a processor", "cores": 2, "threads": 2, "gpu": None},
        "tasks": tasks,
        "stages": tasks,
        "zero_shot": [0.0] * len(tasks),
        "accuracy_matrix": matrix,
        **summary(matrix, [0.0] * len(tasks)),
        "seconds": 90.0,
        "seconds_by": {"training": 60.0, "evaluation": 30.0},
        "peak_memory_bytes": 2_000_000_000,
        "trainable_parameters": [1_000_000] * len(tasks),
        "answers": {
            "zero_shot": {task: pack(right) for task, right in zero.items()},
            "stages": [{task: pack(right) for task, right in s.items()} for s in stages],
        },
        "tests": {task: f"{task} {count}" for task in tasks},
        "geometry": geometry,
        "tuning": None,
    }
    return {**made, **changes}


def failed(method: str, stream: str = "order-1", seed: int = 0, error: str = "no luck") -> Any:
    """The row of a cell that failed."""
    whole = row(method, stream, seed)
    kept = ("cell", "configuration", "base", "tuning")
    return {**{name: whole[name] for name in kept}, "error": error}


def watching(row: dict[str, Any], right: float = 1.0) -> dict[str, Any]:
    """The row with one more task, the first in its lists, that is only tested."""

    def before(matrix: list[Any]) -> list[Any]:
        return [[100 * right, *values] for values in matrix]

    stages = row["answers"]["stages"]
    bits = pack(np.arange(20) < 20 * right)
    return {
        **row,
        "tasks": ["general", *row["tasks"]],
        "only_tested": {"general": {"before": 100.0, "now": 100 * right, "lost": 0.0}},
        "zero_shot": [100.0, *row["zero_shot"]],
        "accuracy_matrix": before(row["accuracy_matrix"]),
        "kl": {"matrix": before(row.get("kl", {}).get("matrix", []))},
        "answers": {**row["answers"], "stages": [{"general": bits, **s} for s in stages]},
        "tests": {"general": "general", **row["tests"]},
    }


def geometry(
    oo: float, awom: float, size: float, acr: float, absolute: float = 0.25
) -> dict[str, Any]:
    """What tables read of the geometry of two updates; collisions at 0.1rms and at 1e-3."""
    return {
        "collisions": [{"acr": acr}, {"acr": absolute}],
        "last": {"oo": {"sum": oo, "mean": 0.0}, "awom_input_fro": {"sum": awom, "mean": 0.0}},
        "per_adapter": [{"frobenius": {"mean": size}, "gsr": {"mean": 0.5}}] * 2,
        "continues": {},
    }


def explained() -> dict[str, Any]:
    """What a row says of a run that was explained: one task lost, one just learned."""
    reading = {"free": 50.0, "off_list": 0.0, "among": 50.0, "matched": {"train": 60.0}}
    way = {"base": {"value": 40.0, "low": 30.0, "high": 50.0}}
    kept = {"base": {"train": {"value": 90.0, "low": None, "high": None}}}
    parts = {"bias": 10.0, "gone": -0.5}
    lost = {"never": reading, "now": reading, "parts": dict(parts), "kept": kept}
    return {
        **{"texts": 100, "probe": 200, "kinds": ["train"], "free_text": {}},
        "tasks": {
            "dbpedia": {"then": reading, "way": way, **lost},
            "agnews": {"then": reading, "way": way},
        },
        "over_tasks": {"tasks": ["dbpedia"], "parts": parts, "kept": kept},
        "all_tasks": reading,
    }


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A ledger of these rows."""
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def grid(
    methods: Sequence[str] = ("inc-lora", "n-lora"),
    streams: Sequence[str] = STANDARD,
    seeds: Sequence[int] = (0, 1, 2),
    **values: Any,
) -> list[dict[str, Any]]:
    """A row for each method, stream and seed."""
    return [row(m, s, seed, **values) for m in methods for s in streams for seed in seeds]


def with_geometry() -> list[dict[str, Any]]:
    """Two methods whose updates have a geometry, and one without updates, on each order."""
    many = {"o-lora": (20.0, 50.0, 1.0, 0.6), "n-lora": (4.0, 0.5, 0.1, 0.2)}
    made = [row(m, s, geometry=geometry(*values)) for m, values in many.items() for s in STANDARD]
    return [*made, *(row("replay", s) for s in STANDARD)]


def cells(table: Table, name: str) -> dict[str, Any]:
    """A row of a table by column."""
    (found,) = [r for r in table.rows if text(r[0]).rstrip("†‡§") == name]
    return dict(zip(table.columns, found, strict=True))
