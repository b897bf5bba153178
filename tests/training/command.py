"""The command line in a process that kills itself at a moment of the test's choice."""

import os
import signal
import sys
from pathlib import Path

import peft  # noqa: F401  (forked processes need not import these again)
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer  # noqa: F401

import nlora.store.atomic
import nlora.training.run
from nlora.cli.app import main
from nlora.training.learner import Learner
from nlora.training.trainer import StageTrainer

PLACES = {
    "step": (StageTrainer, "log"),
    "evaluate": (Learner, "evaluate"),
    "sync": (nlora.store.atomic, "sync_tree"),
    "results": (nlora.training.run, "_write_results"),
}


def command(arguments: list[str], log: str, moment: tuple[str, int] | None) -> None:
    """Run `nlora` with these arguments, its output in `log`; SIGKILL at the n-th call of a place.

    A place is one of PLACES, or the name of a file that is about to be put in place.
    """
    torch.set_num_threads(1)
    sys.argv = ["nlora", *arguments]
    sys.stdout = sys.stderr = open(log, "w", encoding="utf-8", buffering=1)  # noqa: SIM115
    if moment is not None:
        place, call = moment
        owner, name = PLACES.get(place, (Path, "replace"))
        setattr(owner, name, killing(getattr(owner, name), place, call))
    main()


def killing(function, place, call):
    """The function, which kills the process in place of its n-th call."""
    calls = 0

    def replaced(*args, **kwargs):
        nonlocal calls
        if place in PLACES or args[1].name == place:
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return replaced
