"""Is it sparsity, or do smaller updates forget less? A finished run with its updates shrunk.

Nothing is trained. The model after every stage answers the tests of the tasks so far once more,
with every ΔW multiplied by a scale. `beside` is a run on the same tasks, such as one of
`n-lora`: each update is then scaled to the ‖ΔW‖_F of the same stage there, too. If shrinking alone
keeps as much, sparsity is not the cause; what it learns less stands beside it.

Adds a row per scale to a ledger, as `nlora compare` writes it, with `scale` or `size` among the
settings and in the method's name (`inc-lora:scale=0.5`, `inc-lora:size=n-lora`), and each stage's
scale among its notes: `nlora table` puts it beside the runs themselves. Scale 1 is MODEL_DIR
itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nlora.errors import NloraError
from nlora.plan.config import stored_config
from nlora.report import ledger
from nlora.store.directory import ModelDirectory
from nlora.study.altered import ROW, Finished, Tensors, altered, altered_row, named


def rescaled(run: Finished, scales: Sequence[float], out: Path) -> ModelDirectory:
    """A model directory at `out` like the run's, each update multiplied by its scale."""

    def scaled(number: int, tensors: Tensors) -> Tensors:
        return {n: scales[number] * t if ".lora_B." in n else t for n, t in tensors.items()}

    return altered(run, scaled, [{"scale": scale} for scale in scales], out)


def rescaled_row(
    run: Finished, setting: str, value: float | str, scales: Sequence[float]
) -> dict[str, Any]:
    """The ledger's row of a run with its updates scaled, as one more setting of its method."""
    return altered_row(run, setting, value, lambda out: rescaled(run, scales, out))


def rescale(
    path: Path, scales: Sequence[float], beside: Path | None, out: Path
) -> Iterator[dict[str, Any]]:
    """The rows of the run at `path` at each scale, and at the sizes of the run `beside`.

    Each is in the ledger `out` when it is yielded. Raises NloraError for a run that is not of one
    model of LoRA adapters, and where the two runs have not learned the same tasks.
    """
    run = Finished.at(path)
    wanted: list[tuple[str, float | str, list[float]]] = [
        ("scale", scale, [scale] * len(run.updates)) for scale in scales
    ]
    if beside is not None:
        other = Finished.at(beside)
        if other.tasks != run.tasks:
            raise NloraError(f"{beside} has not learned the same tasks in a row")
        pairs = zip(run.sizes(), other.sizes(), strict=True)
        each = [theirs / own if own else 0.0 for own, theirs in pairs]
        wanted.append(("size", named(stored_config(other.directory)), each))
    for setting in wanted:
        found = rescaled_row(run, *setting)
        ledger.write(out, found, same=ROW)
        yield found
