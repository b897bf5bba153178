"""Several processes that train one model together: who writes, who speaks, who waits for whom.

`torchrun --nproc-per-node N -m nlora run …` starts N processes with the same command. Each reads
the same data, holds the whole model, trains on its share of every batch (gradients are averaged by
PyTorch's DistributedDataParallel) and answers its share of every evaluation. All else is computed
by every process alike. The main process alone locks and writes the model directory, and speaks.
On CUDA, numbers of the model travel by NCCL and all else by gloo, which notices a peer that died.

In a single process all of this does nothing.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

from nlora.errors import NloraError

T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a process waits for another that lives: one writes the model while all others wait."""


def start() -> None:
    """Join the other processes that a launcher such as torchrun started, if it did."""
    if not _launched():
        return
    import torch
    import torch.distributed as dist

    if dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        place, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= devices:
            raise NloraError(
                f"each process needs a GPU of its own, and this machine has {devices}: start at "
                f"most {devices} processes on it (torchrun --nproc-per-node {devices})"
            )
        torch.cuda.set_device(place)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)


def stop() -> None:
    """Part from the others when all is done."""
    if _launched():
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def _launched() -> bool:
    return "LOCAL_RANK" in os.environ  # what accelerate, and so the Trainer, goes by


def count() -> int:
    """How many processes there are."""
    if not _launched():
        return 1
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this one: 0, 1, …; 0 is the main process."""
    if count() == 1:
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def quieten() -> None:
    """Let a process that is not the main one say nothing but how it failed."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of what every process has: every n-th item."""
    return items[rank() :: count()]


def gathered(value: T) -> list[T]:
    """The values that all processes give, by rank."""
    values: list[Any] = [value]
    if count() > 1:
        import torch.distributed as dist

        values = [None] * count()
        dist.all_gather_object(values, value)
    return values


def from_main(value: T) -> T:
    """The main process's value, in every process."""
    if count() > 1:
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]
    return value


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


def on_main(function: Callable[[], Any]) -> None:
    """Let the main process do something; all go on when it is done."""
    if is_main():
        function()
    wait()


@contextmanager
def main_holds(enter: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Let the main process hold something, such as a lock, while all processes run the body."""
    with enter() if is_main() else nullcontext():
        wait()
        yield
        wait()


@contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Let each process draw its own random numbers (dropout), and afterwards the same again."""
    if count() == 1:
        yield
        return
    import torch

    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(seed + 1_000_003 * rank())
        yield


def first_to_fail() -> bool:
    """Whether no other process failed before this one, which has failed: it says why."""
    if count() == 1:
        return True
    from torch.distributed import distributed_c10d as dist

    try:
        first = dist._get_default_store().compare_set("nlora/failed", "", str(rank()))
    except RuntimeError:  # its keeper is gone already
        return False
    return first.decode() == str(rank())


@contextmanager
def together() -> Iterator[None]:
    """Join the other processes; if one fails, let the others end for that reason.

    Raises NloraError in a process that failed because another one had ended.
    """
    start()
    try:
        yield
    except NloraError:
        first_to_fail()
        raise
    except Exception as error:
        if count() == 1 or (first_to_fail() and not _peer_is_gone(error)):
            raise
        raise NloraError("another process of this run ended, so this one stops") from error


def _peer_is_gone(error: Exception) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )
