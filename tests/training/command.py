"""The command line in a process that stops or kills itself at a moment of the test's choice."""

import os
import signal
import sys
from pathlib import Path

import peft  # noqa: F401  (forked processes need not import these again)
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer  # noqa: F401

import nlora.continual.learning
import nlora.store.atomic
from nlora.cli.app import main
from nlora.continual.model import ContinualModel
from nlora.training.trainer import StageTrainer

PLACES = {
    "step": (StageTrainer, "log"),
    "evaluate": (ContinualModel, "evaluate"),
    "sync": (nlora.store.atomic, "sync_tree"),
    "results": (nlora.continual.learning, "write_results"),
}


def command(
    arguments: list[str], log: str, moment: tuple[str, int] | None, by: int = signal.SIGKILL
) -> None:
    """Run `nlora` with these arguments, its output in `log`; a signal at the n-th call of a place.

    A place is one of PLACES, or the name of a file that is about to be put in place.
    """
    torch.set_num_threads(1)
    sys.argv = ["nlora", *arguments]
    sys.stdout = sys.stderr = open(log, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    if moment is not None:
        place, call = moment
        owner, name = PLACES.get(place, (Path, "replace"))
        setattr(owner, name, killing(getattr(owner, name), place, call, by))
    main()


def killing(function, place, call, by):
    """The function, which sends its process the signal in place of its n-th call."""
    calls = 0

    def replaced(*args, **kwargs):
        nonlocal calls
        if place in PLACES or args[1].name == place:
            calls += 1
            if calls == call:
                os.kill(os.getpid(), by)
        return function(*args, **kwargs)

    return replaced
