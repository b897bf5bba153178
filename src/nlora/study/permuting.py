"""Is it where an update writes? A finished run whose later updates write elsewhere.

Nothing is trained. After every stage the tests of each task so far are answered once more by the
model of its time, W₀ + ΔW_1 + … + ΔW_i for task i, on which the later updates are put with the rows
and the columns of every matrix permuted at random: P·ΔW_t·Q. All that a norm, a spectrum, a density
or a rate of collisions can tell of them is as it was (of collisions in expectation); what they
mean is gone. What tasks still lose is what any update of that size and sparsity would take from
them; what they lose no more was taken by what the later updates have learned.

Adds a row to a ledger, with `permuted`, the number that decides the permutations, among the
settings and in the method's name (`inc-lora:permuted=0`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nlora.continual.model import Answers, ContinualModel
from nlora.data.task import TaskData
from nlora.report import ledger
from nlora.store.directory import ModelDirectory
from nlora.study.altered import ROW, Finished, Tensors, altered, altered_row

SETTING = "permuted"


def permuted(run: Finished, seed: int, out: Path) -> ModelDirectory:
    """A model directory at `out` like the run's, each update permuted.

    The accuracy on a task is that of the run's own updates up to the task's, and the permuted ones
    of later stages.
    """

    def elsewhere(number: int, tensors: Tensors) -> Tensors:
        found = {}
        for place, (name, tensor) in enumerate(sorted(tensors.items())):
            axis = 1 if ".lora_A." in name else 0  # A is (r, in), B is (out, r)
            generator = torch.Generator().manual_seed((seed * 1000 + number) * 100_000 + place)
            order = torch.randperm(tensor.shape[axis], generator=generator)
            found[name] = tensor.index_select(axis, order)
        return found

    def asked(model: ContinualModel, updates: Sequence[Path], tasks: Sequence[TaskData]) -> Answers:
        answers: Answers = {}
        for i, data in enumerate(tasks, start=1):
            with model.adapter.after([*run.updates[:i], *updates[i : len(tasks)]]):
                answers |= model.evaluate([data])
        return answers

    return altered(run, elsewhere, [{SETTING: seed}] * len(run.updates), out, asked)


def permute(path: Path, seed: int, out: Path) -> dict[str, Any]:
    """The row of the run at `path` with later updates permuted, which is then in the ledger `out`.

    Raises NloraError for a run that is not of one model of LoRA adapters.
    """
    run = Finished.at(path)
    found = altered_row(run, SETTING, seed, lambda folder: permuted(run, seed, folder))
    ledger.write(out, found, same=ROW)
    return found
