"""Is `l1=auto` as good as the best constant ρ? The constant is tuned per order on dev, auto is not.

    python benchmarks/auto.py --out runs/auto --stream order-1 --stream order-2 --stream order-3 \\
        [--model tiny-t5] [--rho 0.01,0.04,0.16,0.64] [--seeds 0,1,2] [--set KEY=VALUE …]

The benchmark's files are in NLORA_DATA.

For each order and ρ one run of `n-lora`, with a seed of its own, is tested on dev (where dev is the
test, on a fifth of the training examples, held out); the ρ of the highest average accuracy is the
order's. With it and with `l1=auto` the order is learned by every seed and tested on test. What is
printed is auto minus constant, paired by order, seed and example, with the bootstrap interval of
`nlora table`; auto is as good (not inferior by a point) where the interval ends above −1.

Trials go to OUT/trials.jsonl, runs to OUT/ledger.jsonl. Finished ones are skipped.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nlora.api.watching import Lines
from nlora.continual.learning import run_plan
from nlora.data.dev import on_dev
from nlora.evaluation.statistics import estimates
from nlora.plan.config import parse_overrides
from nlora.plan.points import Point
from nlora.plan.resolve import Plan, resolve
from nlora.report import ledger
from nlora.store.directory import ModelDirectory
from nlora.study.grid import Grid
from nlora.study.rows import commit, row
from nlora.study.tune import SEED

MARGIN = 1.0
"""Points of accuracy that auto may be worse by."""
AUTO, CONSTANT = "l1=auto", "the best constant"


def trials(grid: Grid, rhos: list[float], out: Path) -> Iterator[dict[str, Any]]:
    """The average accuracy on dev of each ρ on each order."""
    for stream in grid.streams:
        tasks = [on_dev(data, SEED) for data in grid.tasks[stream]]
        for rho in rhos:
            config = grid.config(stream, grid.points[0], SEED, l1=rho)
            results = run_plan(resolve(config, tasks, grid.base), out / stream / f"{rho}", Lines())
            yield {"stream": stream, "rho": rho, "dev": results["average_accuracy"]}


def cells(grid: Grid, chosen: dict[str, float]) -> Iterator[tuple[dict[str, Any], Plan]]:
    """Every run on test, by its key in the ledger."""
    for seed in grid.seeds:
        for stream in grid.streams:
            for method, l1 in ((AUTO, "auto"), (CONSTANT, chosen[stream])):
                plan = grid.cell(stream, grid.points[0], seed, l1=l1).plan
                yield {"stream": stream, "method": method, "seed": seed}, plan


def compared(rows: list[dict[str, Any]]) -> list[str]:
    """Auto minus constant, by order and over all, as a table."""
    at_end = {
        tuple(r["cell"].values()): {
            task: ledger.unpack(bits).astype(int)
            for task, bits in r["answers"]["stages"][-1].items()
        }
        for r in rows
    }
    pairs: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for stream, method, seed in at_end:
        if method == AUTO:
            mine, theirs = at_end[stream, AUTO, seed], at_end[stream, CONSTANT, seed]
            pairs[stream, seed] = {task: mine[task] - theirs[task] for task in mine}
    orders = sorted({stream for stream, _ in pairs})
    by = {order: {key: d for key, d in pairs.items() if key[0] == order} for order in orders}
    if len(orders) > 1:
        by["all"] = pairs
    lines = [
        "| order | auto − constant | 95 % interval | not inferior |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, e in estimates(by).items():
        verdict = "yes" if e.low > -MARGIN else "no" if e.high < -MARGIN else "not shown"
        lines.append(f"| {name} | {e.mean:+.1f} | {e.low:+.1f} to {e.high:+.1f} | {verdict} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stream", action="append", required=True)
    parser.add_argument("--model", default="tiny-t5")
    parser.add_argument("--rho", default="0.01,0.04,0.16,0.64")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--max-train", type=int)
    parser.add_argument("--max-eval", type=int)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    asked = parser.parse_args()
    grid = Grid(
        model=asked.model,
        streams=tuple(asked.stream),
        points=(Point("n-lora", "n-lora"),),
        seeds=tuple(map(int, asked.seeds.split(","))),
        data=os.environ.get("NLORA_DATA"),
        max_train=asked.max_train,
        max_eval=asked.max_eval,
        evaluate="seen",
        settings=parse_overrides(asked.set),
    )
    asked.out.mkdir(parents=True, exist_ok=True)
    told = asked.out / "trials.jsonl"
    found = list(trials(grid, [float(rho) for rho in asked.rho.split(",")], asked.out / "dev"))
    told.write_text("".join(json.dumps(trial) + "\n" for trial in found))
    chosen = {
        s: max((t for t in found if t["stream"] == s), key=lambda t: t["dev"])["rho"]
        for s in grid.streams
    }
    path = asked.out / "ledger.jsonl"
    rows = ledger.read(path) if path.exists() else []
    for key, plan in cells(grid, chosen):
        if key in [known["cell"] for known in rows]:
            continue
        folder = asked.out / key["stream"] / key["method"].replace(" ", "-") / f"{key['seed']}"
        run_plan(plan, folder, Lines())
        rows.append({"cell": key, **row(ModelDirectory(folder), commit())})
        ledger.write(path, rows[-1])
    print("\n".join(["ρ by order: " + json.dumps(chosen), "", *compared(rows)]))


if __name__ == "__main__":
    main()
