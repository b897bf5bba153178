"""How fast the geometry of adapters is measured, beside a dense computation of the same numbers.

    python benchmarks/analysis.py [--tasks 15] [--few 4] [--many 1000]

T5-large: 144 matrices of 1024², rank 8, for 15 tasks; then all pairs of 1,000 tasks with 2 million
adapted entries each (q and v of a model of 10 million parameters: 32 matrices of 256²). The dense
computation forms every ΔW in float64 and follows the definitions; it is run on a few tasks of one
matrix, and its time is stated for all. Each row is a line of JSON. Nothing else should run.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from nlora.analysis.adapters import read_adapters
from nlora.analysis.report import analyse
from nlora.lowrank.factors import Factors
from nlora.lowrank.metrics import entry_norm, geometry, gsr_of_norms
from nlora.lowrank.supports import Collisions, Threshold, collisions
from nlora.machine import peak_memory

RMS = Threshold(0.1, relative=True)
MATRICES, SIZE = 144, 1024
SMALL_MATRICES, SMALL_SIZE = 32, 256

cpu = 0.0


def adapters(tasks: int, size: int, seed: int) -> list[Factors]:
    """Random updates of one square matrix, rank 8 and scaling 4."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Factors(
            torch.randn(8, size, generator=generator) / size**0.5,
            torch.randn(size, 8, generator=generator) / 100,
            4.0,
        )
        for _ in range(tasks)
    ]


def norms_and_overlaps(updates: Sequence[Factors]) -> dict[str, Tensor]:
    found = geometry(updates)
    l1 = [entry_norm(u) for u in updates]
    size = updates[0].B.shape[0] * updates[0].A.shape[1]
    frobenius = found.frobenius.tolist()
    rates = [gsr_of_norms(a, b, size) for a, b in zip(l1, frobenius, strict=True)]
    return {
        **{name: value for name, value in vars(found).items() if isinstance(value, Tensor)},
        "l1": torch.tensor(l1, dtype=torch.float64),
        "gsr": torch.tensor(rates, dtype=torch.float64),
    }


def dense_norms_and_overlaps(updates: Sequence[Factors]) -> dict[str, Tensor]:
    """The same by definition, from the written out matrices."""
    whole = [u.scaling * (u.B.double() @ u.A.double()) for u in updates]
    spectra = [torch.linalg.svdvals(x) for x in whole]
    norm = torch.linalg.matrix_norm
    frobenius = torch.stack([norm(x) for x in whole])
    scale = frobenius[:, None] * frobenius
    pairs: dict[str, list[Tensor]] = {}
    for i, x in enumerate(whole):
        for j, y in enumerate(whole):
            inputs, outputs = x @ y.T, x.T @ y
            values = {
                "oo": norm(updates[i].A.double() @ updates[j].A.double().T).square(),
                "awom_input_fro": norm(inputs),
                "awom_input_spectral": norm(inputs, 2),
                "awom_output_fro": norm(outputs),
                "awom_output_spectral": norm(outputs, 2),
                "inner_product": (x * y).sum(),
            }
            for name, value in values.items():
                pairs.setdefault(name, []).append(value)
    found = {name: torch.stack(v).view(scale.shape) for name, v in pairs.items()}
    shares = [s[:8] / s[:8].sum() for s in spectra]
    l1 = torch.stack([x.abs().sum() for x in whole])
    return {
        **found,
        "frobenius": frobenius,
        "nuclear_norm": torch.stack([s.sum() for s in spectra]),
        "effective_rank": torch.stack([(-(p * p.log()).sum()).exp() for p in shares]),
        "cosine": found["inner_product"] / scale,
        "input_overlap": found["awom_input_fro"] / scale,
        "output_overlap": found["awom_output_fro"] / scale,
        "l1": l1,
        "gsr": l1 / frobenius / whole[0].numel() ** 0.5,
    }


def counted(updates: Sequence[Factors]) -> Collisions:
    return collisions(updates, [RMS])[0]


def dense_signs(updates: Sequence[Factors]) -> Tensor:
    """−1, 0 or 1 at every entry of the written out matrices, (T, entries), float32."""
    rows = []
    for u in updates:
        x = u.scaling * (u.B.double() @ u.A.double())
        rows.append((x.sign() * (x.abs() > RMS.value * x.square().mean().sqrt())).flatten())
    return torch.stack(rows).float()


def dense_counts(updates: Sequence[Factors]) -> tuple[Tensor, Tensor]:
    """Collisions pair by pair, by definition: in both supports, and with opposite signs."""
    signs = dense_signs(updates)
    both = [[((x != 0) & (y != 0)).sum() for y in signs] for x in signs]
    opposing = [[(x * y < 0).sum() for y in signs] for x in signs]
    return torch.tensor(both), torch.tensor(opposing)


def product_counts(updates: Sequence[Factors]) -> tuple[Tensor, Tensor]:
    """The same as two 0/1 matrix products: S·Sᵀ and |S|·|S|ᵀ, exact in float32 below 2²⁴."""
    signs = dense_signs(updates)
    both, agreement = signs.abs() @ signs.abs().T, signs @ signs.T
    return both.long(), ((both - agreement) / 2).long()


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """On the clock; `row` adds the processor's seconds, which tell of other work on the machine."""
    global cpu
    started, before = time.perf_counter(), time.process_time()
    result = work()
    cpu = time.process_time() - before
    return time.perf_counter() - started, result


def peak_mb() -> int:
    return peak_memory() // 1_000_000


def row(what: str, **values: Any) -> None:
    values |= {"cpu_seconds": cpu}
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"what": what, **rounded}), flush=True)


def t5_large(tasks: int) -> None:
    """Each matrix apart, then as `nlora analyze` does it, from files."""
    data = [adapters(tasks, SIZE, seed) for seed in range(MATRICES)]
    geometry(data[0])
    took, _ = seconds(lambda: [norms_and_overlaps(u) for u in data])
    row("T5-large: norms and overlaps", tasks=tasks, seconds=took, goal=10, peak_mb=peak_mb())
    took, _ = seconds(lambda: [counted(u) for u in data])
    row("T5-large: all pairwise collisions", tasks=tasks, seconds=took, goal=60, peak_mb=peak_mb())
    with tempfile.TemporaryDirectory() as place:
        folders = [str(write(Path(place) / f"task{t}", data, t)) for t in range(tasks)]
        took, _ = seconds(lambda: analyse(read_adapters(folders), [RMS]))
    row("T5-large: everything, from files", tasks=tasks, seconds=took, peak_mb=peak_mb())


def write(folder: Path, data: list[list[Factors]], task: int) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "target_modules": ["q"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for index, updates in enumerate(data):
        for letter in "AB":
            name = f"base_model.model.block.{index}.q.lora_{letter}.weight"
            tensors[name] = getattr(updates[task], letter)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def many_tasks(tasks: int) -> None:
    data = [adapters(tasks, SMALL_SIZE, seed) for seed in range(SMALL_MATRICES)]
    took, found = seconds(lambda: [counted(u) for u in data])
    entries = sum(f.size for f in found)
    pairs = tasks * (tasks - 1) // 2
    row(
        f"{tasks} tasks: collisions of {pairs} pairs",
        entries=entries,
        seconds=took,
        goal=120,
        peak_mb=peak_mb(),
    )


def against_dense(tasks: int, few: int) -> None:
    """The same numbers by definition for a few tasks of one matrix, and the largest difference."""
    updates = adapters(few, SIZE, seed=0)
    scale = MATRICES * (tasks / few) ** 2
    slow, expected = seconds(lambda: dense_norms_and_overlaps(updates))
    fast, found = seconds(lambda: norms_and_overlaps(updates))
    worst = max(
        float(((found[name] - value).abs() / value.abs().max()).max())
        for name, value in expected.items()
    )
    row(
        "norms and overlaps, dense",
        tasks=few,
        dense_per_ours=slow / fast,
        dense_seconds_for_all=slow * scale,
        largest_relative_difference=worst,
    )
    against(adapters(tasks, SIZE, seed=0), MATRICES, "pair by pair", dense_counts)
    against(adapters(tasks, SIZE, seed=0), MATRICES, "0/1 matrix products", product_counts)


def against(updates: list[Factors], matrices: int, name: str, other: Callable[..., Any]) -> None:
    """Collisions in one matrix by packed bits, and by another way."""
    fast, ours = seconds(lambda: counted(updates))
    slow, (both, opposing) = seconds(lambda: other(updates))
    row(
        f"collisions, {name}",
        tasks=len(updates),
        theirs_per_ours=slow / fast,
        seconds_for_all=slow * matrices,
        differing_counts=int((ours.both != both).sum() + (ours.opposing != opposing).sum()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=15)
    parser.add_argument("--few", type=int, default=4, help="tasks of the dense computation")
    parser.add_argument("--many", type=int, default=1000)
    options = parser.parse_args()
    row("machine", threads=torch.get_num_threads(), torch=torch.__version__)
    t5_large(options.tasks)
    many_tasks(options.many)
    against_dense(options.tasks, options.few)
    updates = adapters(options.many, SMALL_SIZE, seed=0)
    against(updates, SMALL_MATRICES, "0/1 matrix products", product_counts)


if __name__ == "__main__":
    main()
