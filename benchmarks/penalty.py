"""The penalty ‖ΔW‖₁ in blocks against plain autograd: time, memory, accuracy, as JSON lines.

    python benchmarks/penalty.py [--shapes llama-7b …] [--pairs 5] [--at-most N] [--device cpu]
    python benchmarks/penalty.py --blocks        how the size of a block was chosen

Plain is `(B @ A).abs().sum()` of every matrix and one backward pass. Ratios are medians over
interleaved pairs, so that a machine that slows down slows both. Memory is the peak beyond the
factors, each way in a process of its own. The floor is the time of the three products alone
(6·r·in·out operations a matrix) at the rate of a large matrix product in the same run. Where plain
would need more than half of the free memory, fewer matrices are measured, and the row says so.
Nothing else should run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from nlora.lowrank import l1
from nlora.lowrank.factors import Factors
from nlora.lowrank.l1 import entries, l1_norm, l1_norm_and_grads

RANK = 8
SHAPES = {
    "smollm2-135m": [(576, 576), (192, 576)] * 30,  # q and v of 30 layers, (out, in)
    "t5-large": [(1024, 1024)] * 144,
    "llama-7b": [(4096, 4096)] * 64,
    "llama-3-8b": [(4096, 4096), (1024, 4096)] * 32,
}


def draw(shapes: Sequence[tuple[int, int]], device: str) -> list[Factors]:
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int, size: float) -> Tensor:
        values = size * torch.randn(*shape, generator=generator)
        return values.to(device).requires_grad_()

    return [
        Factors(leaf(RANK, width, size=width**-0.5), leaf(out, RANK, size=0.01), 4.0)
        for out, width in shapes
    ]


def plain(factors: Sequence[Factors]) -> Tensor:
    norms = [scaling * (B @ A).abs().sum() for A, B, scaling in factors]
    return torch.stack(norms).sum()


WAYS: dict[str, Callable[[Sequence[Factors]], Tensor]] = {"plain": plain, "blocked": l1_norm}


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def both_passes(way: str, factors: Sequence[Factors]) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    for A, B, _ in factors:
        A.grad = B.grad = None
    values: list[Tensor] = []
    forward = seconds(lambda: values.append(WAYS[way](factors)))
    return forward, seconds(values[0].backward)


def matmul_rate(device: str, size: int = 2048) -> float:
    """Operations per second of a large fp32 product, at its best of ten."""
    a, b = torch.randn(2, size, size, device=device)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(10))


def extra_bytes(way: str, factors: Sequence[Factors], device: str) -> int:
    """Peak memory of both passes beyond what there was before. Once per process."""
    both_passes(way, draw([(64, 64)], device))  # threads and libraries
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        both_passes(way, factors)
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now the present size
    before = psutil.Process().memory_info().rss
    both_passes(way, factors)
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 - before


def extra_bytes_alone(way: str, name: str, count: int, device: str) -> int:
    """`extra_bytes` in a new process."""
    command = [sys.executable, __file__, "--memory", way, "--shapes", name]
    command += ["--at-most", str(count), "--device", device]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def fitting(name: str, most: int | None, device: str) -> list[tuple[int, int]]:
    """The matrices of which plain leaves half of the memory free."""
    shapes = SHAPES[name][:most]
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    total = 4 * sum(out * width for out, width in shapes)
    return shapes[: max(2, int(len(shapes) * min(1.0, free / 2 / total)))]


def relative_error(factors: Sequence[Factors]) -> float:
    """Of the value for the first matrix, against float64."""
    A, B, scaling = factors[0]
    exact = abs(scaling) * (B.detach().double() @ A.detach().double()).abs().sum()
    return abs(float(l1_norm_and_grads(factors[:1])[0]) / float(exact) - 1)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    shapes = fitting(name, options.at_most, options.device)
    factors = draw(shapes, options.device)
    for way in WAYS:
        both_passes(way, factors[:2])
    pairs = [{way: both_passes(way, factors) for way in WAYS} for _ in range(options.pairs)]
    median = {
        f"{way}_{part}_seconds": statistics.median(pair[way][i] for pair in pairs)
        for way in WAYS
        for i, part in enumerate(("forward", "backward"))
    }
    totals = {way: [sum(pair[way]) for pair in pairs] for way in WAYS}
    rate = matmul_rate(options.device)
    floor = 6 * RANK * entries(factors) / rate
    memory = {way: extra_bytes_alone(way, name, len(shapes), options.device) for way in WAYS}
    ratios = [p / b for p, b in zip(totals["plain"], totals["blocked"], strict=True)]
    return {
        "shapes": name,
        "matrices": len(shapes),
        "of": len(SHAPES[name]),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "plain_per_blocked_time": statistics.median(ratios),
        "blocked_per_plain_memory": memory["blocked"] / memory["plain"],
        "plain_seconds": statistics.median(totals["plain"]),
        "blocked_seconds": statistics.median(totals["blocked"]),
        **median,
        "plain_extra_bytes": memory["plain"],
        "blocked_extra_bytes": memory["blocked"],
        "floor_seconds": floor,
        "blocked_per_floor": statistics.median(totals["blocked"]) / floor,
        "matmul_gflops": rate / 1e9,
        "relative_error": relative_error(factors),
    }


def block_sizes(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The time of two matrices of each shape at every size of block, best of `pairs`."""
    shapes = list(dict.fromkeys(SHAPES[name])) * 2
    factors = draw(shapes, options.device)
    for columns in (256, 512, 1024, 2048, 4096):
        for power in range(14, 22):
            l1.COLUMNS, l1.BLOCK[options.device] = columns, 2**power
            l1_norm_and_grads(factors[:1])
            times = [seconds(lambda: l1_norm_and_grads(factors)) for _ in range(options.pairs)]
            row = {"shapes": name, "matrices": len(shapes), "columns": columns}
            yield {**row, "block_per_thread": 2**power, "seconds": min(times)}


def show(row: dict[str, Any]) -> None:
    print(
        json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--at-most", type=int, help="matrices of each model")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--blocks", action="store_true", help="time every size of block")
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.shapes:
        if options.memory:
            shapes = SHAPES[name][: options.at_most]
            print(extra_bytes(options.memory, draw(shapes, options.device), options.device))
        elif options.blocks:
            for row in block_sizes(name, options):
                show(row)
        else:
            show(measure(name, options))


if __name__ == "__main__":
    main()
