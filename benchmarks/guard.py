"""What the guard of `learn` costs: CPU seconds of training and of measuring, stage by stage.

    python -m benchmarks.guard [--model tiny-t5] [--max-train 400] [--max-eval N]
        [--out docs/results/guard.md]

The demo's tasks are learned one after another by `inc-lora` without routing, so that each is a
stage of one model; the guard measures and refuses nothing. Each way of measuring begins anew.
"""

import argparse
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from benchmarks.pages import put

import nlora
from nlora.continual.model import ContinualModel
from nlora.data.demo import demo_stream
from nlora.store.directory import ModelDirectory
from nlora.training import loop

WAYS: dict[str, dict[str, Any]] = {
    "all tests": {},
    "--max-eval 20": {"max_eval": 20},
    "--watch, all tests": {"watch": True},
}
PAGE = """\
Written by `python -m benchmarks.guard --model {model} --max-train {rows}{limit}`: CPU seconds of a
stage's training ({rows} rows at most, one epoch) and of all tests that `learn` asks in it, by how
many tasks were learned before. A watched task is one more that is tested, in the first stage also
before it.

| measured with | earlier tasks | tests asked | training (s) | measuring (s) | of training |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


def main() -> None:
    """Measure, and write the section of the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-t5")
    parser.add_argument("--max-train", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("docs/results/guard.md"))
    parser.add_argument("--max-eval", type=int, help="measure with so many tests a task alone")
    options = parser.parse_args()
    only = options.max_eval
    ways = {f"--max-eval {only}": {"max_eval": only}} if only else WAYS
    rows = [
        f"| {way} | {' | '.join(row)} |"
        for way, asked in ways.items()
        for row in _stages(options.model, options.max_train, dict(asked))
    ]
    limit = f" --max-eval {only}" if only else ""
    text = PAGE.format(model=options.model, rows=options.max_train, limit=limit)
    put(options.out, options.model, text + "\n".join(rows))


def _stages(model: str, rows: int, asked: dict[str, Any]) -> list[list[str]]:
    used = {"train": 0.0, "evaluate": 0.0}

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def counting(*given: Any, **more: Any) -> Any:
            began = time.process_time()
            try:
                return call(*given, **more)
            finally:
                used[name] += time.process_time() - began

        return counting

    *tasks, last = demo_stream()
    watch = [last] if asked.pop("watch", False) else []
    found = []
    with (
        TemporaryDirectory() as folder,
        patch.object(loop, "train", counted("train", loop.train)),
        patch.object(ContinualModel, "evaluate", counted("evaluate", ContinualModel.evaluate)),
    ):
        for number, data in enumerate(tasks):
            used |= {"train": 0.0, "evaluate": 0.0}
            begun: dict[str, Any] = {
                "model": model,
                "method": "inc-lora",
                "settings": {"epochs": 1},
            }
            new = {**begun, "watch": watch} if number == 0 else {}
            done = nlora.learn(
                Path(folder) / "out", data, max_train=rows, max_forgetting=100, **new, **asked
            )
            record = ModelDirectory(Path(folder) / "out").stages()[-1]
            tests = sum(record.tested.values())
            training, measuring = used["train"], used["evaluate"]
            print(done.tasks, training, measuring, flush=True)
            numbers = (f"{training:.1f}", f"{measuring:.1f}", f"{measuring / training:.0%}")
            found.append([str(number), str(tests), *numbers])
    return found


if __name__ == "__main__":
    main()
