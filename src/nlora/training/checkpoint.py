"""Checkpoints within a stage: what the rest of it depends on, kept and put back bit for bit.

A stage that is resumed begins like any other: the method makes its update ready, examples and
penalties are made anew, all from the stage's seed. Then what training has changed since is put in
place: trained parameters, optimiser and schedule, the running state of penalties and method, the
losses so far, and every process's random states. The order of the examples follows from seed and
epoch.
"""

import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerState

from nlora import processes
from nlora.data.task import digest
from nlora.errors import NloraError
from nlora.machine import versions
from nlora.methods.base import Method, Penalty
from nlora.methods.context import Context
from nlora.plan.settings import interval
from nlora.store.atomic import draft_text
from nlora.store.checkpoints import Checkpoints
from nlora.store.packed import put_back, read_packed, write_packed
from nlora.training.running import bits, changed, declared, traces

log = logging.getLogger("nlora")

STATE, LOSSES, TRAINER = "state", "losses.jsonl", "trainer_state.json"


def stage_checkpoints(
    folder: Path, method: Method, ctx: Context, plan: Mapping[str, Any]
) -> Checkpoints:
    """The checkpoints of a stage that is about to be trained, and what they are of.

    `plan` is what else decides its numbers: the plan and the stages before.
    """
    stage, adapter = ctx.stage, ctx.adapter
    start = {**adapter.update(), **adapter.trained()}
    return Checkpoints(
        folder,
        {
            **plan,
            "stage": [stage.index, stage.name, stage.seed, stage.steps],
            "examples": digest([[e.prompt, e.answer, e.counts] for e in ctx.encoded]),
            "start": digest([[name, bits(tensor)] for name, tensor in start.items()]),
            "number of processes": processes.count(),
            "device": adapter.model.device.type,
            "version": versions(),
        },
    )


@dataclass
class Resumed:
    """What a stage goes on from."""

    step: int = 0
    seconds: float = 0.0
    """That training took before."""
    losses: list[dict[str, float]] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """Every step at which the stage was gone on with, this one too."""


class Keeper:
    """Writes a stage's checkpoints when they are due, and brings training back to the newest."""

    def __init__(
        self,
        store: Checkpoints,
        every: int | str,
        method: Method,
        ctx: Context,
        penalties: Sequence[Penalty],
    ) -> None:
        self.store = store
        self.steps, self.seconds = interval(every)
        self.method = method
        self.ctx = ctx
        self.penalties = {penalty.name: penalty for penalty in penalties}
        self.folder: Path | None = None
        """The checkpoint that the stage goes on from."""
        self.from_step = Resumed()
        self._kept: dict[str, Any] = {}
        self._began = self._last = time.monotonic()
        self._fetched: dict[str, Any] | None = None
        """The random state before the newest micro-batch was collated."""
        self._before = self._traces()
        self._state_before = traces(method.state)
        self._buffers_before = self._buffers()
        self._off = False

    def find(self) -> None:
        """Read the newest checkpoint, if there is one of this stage; a line says so if not."""
        stage, said = self.ctx.stage, None
        path: Path | None = None
        if processes.is_main():
            try:
                path = self.store.newest()
                if path is not None:
                    self._read(path)
            except NloraError as error:
                path, said = None, str(error)
        self.folder = processes.from_main(path)
        if said is not None:
            self.ctx.progress.message(
                f"stage '{stage.name}' starts from its beginning: {said}, so it is not used"
            )
        if self.folder is not None:
            self._read(self.folder)
            self.ctx.progress.message(
                f"stage '{stage.name}' goes on after step {self.from_step.step} of {stage.steps}"
            )

    def _read(self, folder: Path) -> None:
        try:
            kept = read_packed(folder, STATE, self.ctx.model.device)
            lines = (folder / LOSSES).read_text(encoding="utf-8").splitlines()
            losses = [json.loads(line) for line in lines]
            self.from_step = Resumed(
                kept["step"], kept["seconds"], losses, [*kept["at"], kept["step"]]
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise NloraError(f"{folder} cannot be read") from error
        self._kept = kept

    # What is put back, in the order in which the Trainer asks for it.

    @torch.no_grad()
    def restore_parameters(self) -> None:
        """Trained parameters, and buffers that training has changed."""
        tensors = {**self.ctx.adapter.trained(), **dict(self.ctx.model.named_buffers())}
        for name, value in {**self._kept["trained"], **self._kept["buffers"]}.items():
            tensors[name].copy_(value)

    def restore_rest(self, optimizer: Any, schedule: Any, gradients: Any) -> None:
        """Optimiser, schedule, the running state of penalties, of what may end the stage and of the
        method, and random states."""
        kept = self._kept
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        for name, values in kept["penalties"].items():
            put_back(self.penalties[name], values)
        put_back(self.method.state, kept["method"])
        gradients.guessed = kept["guessed"]
        put_back(gradients.until, kept.get("until", {}))
        self.restore_random()

    def restore_random(self) -> None:
        """The random states of this process as they were after the checkpoint's step."""
        set_random_state(self._kept["random"][processes.rank()]["now"])

    # The loader collates a micro-batch while the one before it is trained on, so the first one
    # after a checkpoint was collated before it, with the random numbers of that time.

    def collating(self, middle_of_epoch: bool) -> bool:
        """To be called before a micro-batch is collated; whether `restore_random` is due after."""
        first = self.folder is not None and self._fetched is None and middle_of_epoch
        if first:
            set_random_state(self._kept["random"][processes.rank()]["fetched"])
        self._fetched = random_state()
        return first

    # What is kept.

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this step, in all processes alike."""
        if self._off:
            return False
        if self.steps is not None:
            return step % self.steps == 0
        if self.seconds is None:
            return False
        mine = processes.is_main() and time.monotonic() - self._last >= self.seconds
        return bool(processes.summed(torch.tensor(float(mine))))

    def write(
        self, state: TrainerState, optimizer: Any, schedule: Any, gradients: Any, losses: Any
    ) -> None:
        """Write a checkpoint. Where that cannot be, a warning says why, and training goes on."""
        randoms = processes.gathered({"now": random_state(), "fetched": self._fetched})
        wrong = None
        if processes.is_main():
            wrong = self._undeclared()
            try:
                wrong = wrong or self._write(state, optimizer, schedule, gradients, losses, randoms)
            except (OSError, NloraError) as error:
                wrong = str(error)
        wrong = processes.from_main(wrong)
        if wrong is not None:
            self._off = True
            log.warning(
                "stage '%s' keeps no more checkpoints: %s; if it is killed it goes on from %s",
                self.ctx.stage.name,
                wrong,
                "the last one" if self.store.folder.is_dir() else "its beginning",
            )
        self._last = time.monotonic()

    def _write(
        self,
        state: TrainerState,
        optimizer: Any,
        schedule: Any,
        gradients: Any,
        losses: Sequence[Mapping[str, float]],
        randoms: list[dict[str, Any]],
    ) -> None:
        names = changed(self._state_before, traces(self.method.state))
        buffers = self._buffers()
        kept = {
            "step": state.global_step,
            "seconds": self.from_step.seconds + time.monotonic() - self._began,
            "at": self.from_step.at,
            "trained": dict(self.ctx.adapter.trained()),
            "buffers": {
                n: b
                for n, b in self.ctx.model.named_buffers()
                if buffers[n] != self._buffers_before.get(n)
            },
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "penalties": {name: _running(penalty) for name, penalty in self.penalties.items()},
            "method": {name: getattr(self.method.state, name) for name in names},
            "guessed": gradients.guessed,
            "until": _running(gradients.until),
            "random": randoms,
        }

        def fill(folder: Path) -> None:
            write_packed(folder, STATE, kept)
            draft_text(folder / LOSSES, "".join(json.dumps(row) + "\n" for row in losses))
            replace(state, log_history=[]).save_to_json(str(folder / TRAINER))

        self.store.write(state.global_step, fill)

    def _undeclared(self) -> str | None:
        """What has changed that no checkpoint would keep, in words."""
        for owner, after in self._traces().items():
            if names := changed(self._before[owner], after):
                return f"{owner} changes '{names[0]}' and does not declare it"
        return None

    def _traces(self) -> dict[str, dict[str, Any]]:
        own = {f"penalty '{n}'": traces(p, declared(p)) for n, p in self.penalties.items()}
        cached = [n for n in vars(self.method) if hasattr(type(self.method), n)]
        # A cached property is there when it was asked for.
        return {**own, f"method '{self.method.name}'": traces(self.method, ["state", *cached])}

    def _buffers(self) -> dict[str, Any]:
        return {name: bits(buffer) for name, buffer in self.ctx.model.named_buffers()}


def _running(owner: Any) -> dict[str, Any]:
    return {name: getattr(owner, name) for name in declared(owner)}


def random_state() -> dict[str, Any]:
    """The states of this process's random numbers, as plain values and tensors."""
    name, key, place, has_gauss, gauss = np.random.get_state()
    found = {
        "python": random.getstate(),
        "numpy": (name, key.tolist(), int(place), int(has_gauss), float(gauss)),  # type: ignore
        "torch": torch.get_rng_state(),
    }
    return {**found, "cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else found


def set_random_state(state: Mapping[str, Any]) -> None:
    """Let random numbers go on as they did after `random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
