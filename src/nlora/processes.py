"""Several processes that train one model together: who writes, who speaks, who waits for whom.

`torchrun --nproc-per-node N -m nlora run …` starts N processes with the same command. Each reads
the same data, holds the whole model, trains on its share of every batch (gradients are averaged by
PyTorch's DistributedDataParallel) and answers its share of every evaluation. All else is computed
by every process alike. The main process alone locks and writes the model directory, and speaks.
With `sharding=fsdp` each holds a share of the base model (`backbones.sharding`). How they end, and
who of them says why, is in `endings`.

Accelerate joins the processes and moves what they tell one another; it is imported where there
are several. On CUDA, tensors travel by NCCL and all else by gloo, which notices a peer that died.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from nlora.errors import NloraError

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch import Tensor

K = TypeVar("K")
T = TypeVar("T")

PATIENCE = timedelta(hours=1)
"""How long a process waits for another that lives: one writes the model while all others wait."""

_state: "PartialState | None" = None
"""Accelerate's state once this process has joined others; a single process has none."""
_together = False
_fsdp = False


def start() -> None:
    """Join the other processes that a launcher such as torchrun started, if it did."""
    global _state
    if _state is not None or "LOCAL_RANK" not in os.environ:  # what accelerate goes by too
        return
    # Or a store whose keeper was killed writes frames of C++ beside the line that says so.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import torch
    from accelerate import PartialState

    if not PartialState._shared_state:  # else a script of one's own trains as it was configured
        _read_configuration()
    cuda = torch.cuda.is_available()
    if cuda and int(os.environ["LOCAL_RANK"]) >= (devices := torch.cuda.device_count()):
        raise NloraError(
            f"each process needs a GPU of its own, and this machine has {devices}: start at "
            f"most {devices} processes on it (torchrun --nproc-per-node {devices})"
        )
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    _state = PartialState(cpu=not cuda, backend=backend, timeout=PATIENCE)
    wait()  # one that fails from now on fails after all have joined


def _read_configuration() -> None:
    """Take what `accelerate launch` was configured for out of the environment.

    What it means is done here and not by the Trainer; precision is a setting of a run. Raises
    NloraError for what is not done.
    """
    global _fsdp
    if _env("ACCELERATE_USE_DEEPSPEED"):
        raise NloraError(
            "nlora does not train under DeepSpeed by itself: shard by FSDP2 (sharding=fsdp), or "
            "use a script of your own (docs/own-script.md)"
        )
    if _env("ACCELERATE_USE_FSDP"):
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise NloraError("nlora shards by FSDP2: set fsdp_version: 2 in accelerate's file")
        if _env("FSDP_OFFLOAD_PARAMS"):
            raise NloraError("nlora leaves no weights on the CPU: set fsdp_offload_params: false")
        _fsdp = True
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_MIXED_PRECISION"):
        os.environ.pop(name, None)


def _env(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def stop() -> None:
    """Part from the others when all is done."""
    global _state, _together
    if _state is not None:
        _state.destroy_process_group()
        _state, _together = None, False


def count() -> int:
    """How many processes there are."""
    return _state.num_processes if _state is not None else 1


def rank() -> int:
    """The number of this one: 0, 1, …; 0 is the main process."""
    return _state.process_index if _state is not None else 0


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def quieten() -> None:
    """Let a process that is not the main one say nothing but how it failed."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of what every process has: every n-th item.

    (Accelerate's `split_between_processes` cuts into n pieces; of batches in the order of their
    lengths the last process would get all the long ones.)
    """
    return items[rank() :: count()]


def pass_together() -> None:
    """From now on a pass through the model needs all processes (`backbones.sharding`)."""
    global _together
    _together = True


def share_of_passes(batches: Sequence[T]) -> Sequence[T]:
    """Those of the batches that this process reads: its share, or all where passes need all."""
    return batches if _together else share(batches)


def summed_passes(tensor: "Tensor") -> "Tensor":
    """The sum over all batches of which each process has added up its `share_of_passes`."""
    return tensor if _together else summed(tensor)


def asked_to_shard() -> bool:
    """Whether `accelerate launch` started this process with a configuration of FSDP."""
    return _fsdp


def gathered(value: T) -> list[T]:
    """The values that all processes give, by rank."""
    if count() == 1:
        return [value]
    from accelerate.utils import gather_object

    return gather_object([value])


def united(found: dict[K, T]) -> dict[K, T]:
    """The entries that all processes have found, each its share, in every process."""
    return {key: value for part in gathered(found) for key, value in part.items()}


def summed(tensor: "Tensor") -> "Tensor":
    """The sum over all processes of a tensor that each has, of its shape and on its device.

    A single process gets its own tensor back. Nothing waits for a GPU.
    """
    if count() == 1:
        return tensor
    from accelerate.utils import reduce

    return reduce(tensor, reduction="sum")  # type: ignore[return-value]


def from_main(value: T) -> T:
    """The main process's value, in every process."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def wait() -> None:
    """Go on when all processes have come here."""
    gathered(None)  # `wait_for_everyone` asks NCCL on CUDA, which would wait for the dead


def on_main(function: Callable[[], Any]) -> None:
    """Let the main process do something; all go on when it is done.

    It waits for the others, too: what they read on their way here, and go by, is as it was.
    """
    wait()
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
