"""A stage that is killed while it is trained goes on from a checkpoint, to the same numbers."""

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.continual.learning import run
from nlora.methods.inc_lora import IncLora
from nlora.methods.parts.terms import Weighted
from nlora.training.trainer import StageTrainer
from tests import runs, tiny
from tests.methods import new_kinds
from tests.methods.helpers import stages
from tests.runs import Listener, tree


class Noisy(IncLora):
    """Draws from every source of random numbers, also before a batch is trained on."""

    name = "noisy"
    summary = "random everywhere"

    def batch(self, ctx, batch):
        batch["weight"] = random.random() + np.random.rand() + torch.rand(()).item()
        return batch

    def loss(self, ctx, batch):
        weight = batch.pop("weight") * random.random() * np.random.rand()
        return {name: weight * value for name, value in super().loss(ctx, batch).items()}


class Pull(Weighted):
    """Towards the running mean of where the factors were."""

    name = "pull"

    def __init__(self, parameters):
        super().__init__(0.1)
        self.parameters = parameters
        self.means = [p.detach().clone() for p in parameters]
        self.seen = {"steps": 0, "by": {1: (0.5,)}}

    def value_and_pairs(self):
        self.seen["steps"] += 1
        pairs = [(p, p - mean) for p, mean in zip(self.parameters, self.means, strict=True)]
        for p, mean in zip(self.parameters, self.means, strict=True):
            mean.lerp_(p, 0.5)
        return sum((g.square().sum() for _, g in pairs), torch.zeros(())) / 2, pairs

    def notes(self):
        return {"steps": self.seen["steps"]}


class Declared(Pull):
    running = ("means", "seen")


class Half(Pull):
    running = ("seen",)


class Pulled(IncLora):
    name = "pulled"
    summary = "a penalty that declares its running state"
    penalty = Declared

    def penalties(self, ctx):
        factors = ctx.adapter_as(Lora).factors().values()
        return [*super().penalties(ctx), self.penalty([p for f in factors for p in f[:2]])]


class HalfPulled(Pulled):
    name = "half-pulled"
    penalty = Half


class Counted(IncLora):
    name = "counted"
    summary = "a method that counts on itself"

    def after_step(self, ctx):
        self.steps = getattr(self, "steps", 0) + 1


OWN = ("noisy", "pulled", "half-pulled", "counted")

RUNS = {
    "n-lora": {},
    "n-lora ": {"precision": "bf16", "accumulation": 2, "schedule": "cosine"},
    "sa": {"penalty": "l1-a", "l1_unit": "sum", "optimizer": "adafactor"},
    "n-lora  ": {"penalty": "column-row"},
    "ella": {},
    "o-lora": {"start": "pissa"},
    "ewc": {"adapter": "full", "ewc_lambda": 1},
    "ewc ": {"adapter": "lora", "ewc_lambda": 1},
    "replay": {"adapter": "full", "optimizer": "sgd"},
    "lwf": {"adapter": "lora"},
    "l2p": {"pool": 4, "top_k": 2},
    "lfpt5": {"prompt_length": 4},
    "prog-prompt": {},
    "osf": {"projection": "step"},
    "sparse-masks": {},
    "replay ": {"adapter": "peft", "peft_type": "LOKR"},
    "scaled": {},
    "away": {"rank": 2},
    "noisy": {},
    "pulled": {},
}
"""Settings by method; what follows a name tells it from another row."""


class Killed(BaseException):
    """What ends a run at once."""


def learn(model: Path, out: Path, method: str, progress=None, count=20, plugin=None, **settings):
    plugin = plugin or (new_kinds.__file__ if method in ("scaled", "away") else None)
    plugin = plugin or (__file__ if method in OWN else None)
    # 2 epochs of 3 steps in each stage, the last of each epoch short
    known = {**runs.FAST, "epochs": 3, "checkpoint_every": 2, **settings}
    config = runs.config(model, None, known, method=method, plugin=plugin)
    return run(config, out, progress, stream=[tiny.task(n, count) for n in ("colour", "size")])


def killed(monkeypatch, at, *arguments, **settings):
    """Learn until the run is killed after this step of all that it takes."""
    steps = 0
    log = StageTrainer.log

    def counted(self, logs, start_time=None):
        nonlocal steps
        log(self, logs, start_time)
        steps += "loss" in logs
        if steps == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "log", counted)
        with pytest.raises(Killed):
            learn(*arguments, **settings)


def comparable(out: Path) -> dict[str, bytes]:
    """All that a run must reproduce bit by bit."""
    found = tree(out).items()
    return {n: b for n, b in found if not n.endswith(("stage.json", "results.json", "model.json"))}


@pytest.mark.parametrize("name", RUNS)
def test_killed_in_a_stage_it_ends_as_an_unbroken_run(name, llama, tmp_path, monkeypatch):
    method, settings = name.strip(), RUNS[name]
    one, two = tmp_path / "one", tmp_path / "two"
    learn(llama, one, method, **settings)
    assert not (one / "checkpoints").exists()
    # 9 steps in a stage, 3 in an epoch: within an epoch, and between two of the second stage.
    killed(monkeypatch, 3, llama, two, method, **settings)
    assert {p.split("/")[2] for p in tree(two) if "checkpoint" in p} == {"step-2"}
    heard = Listener()
    killed(monkeypatch, 7 + 7, llama, two, method, heard, **settings)
    assert "stage 'colour' goes on after step 2 of 9" in heard.messages
    assert {p.split("/")[1] for p in tree(two) if "checkpoint" in p} == {"002-size"}
    learn(llama, two, method, heard, **settings)
    assert "stage 'size' goes on after step 6 of 9" in heard.messages
    assert comparable(two) == comparable(one)
    assert not (two / "checkpoints").exists()
    assert [r.notes["resumed_after_steps"] for r in stages(two)] == [[2], [6]]


def test_all_parameters_in_bf16(llama, tmp_path, monkeypatch):
    # The first stage alone: what follows a stage that was loaded differs in the last bits here,
    # with and without checkpoints.
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        if out == two:
            killed(monkeypatch, 5, llama, out, "seq-ft", precision="bf16")
        learn(llama, out, "seq-ft", precision="bf16")
    assert stages(two)[0].notes["resumed_after_steps"] == [4]
    first = [{n: b for n, b in comparable(o).items() if "001-" in n} for o in (one, two)]
    assert first[0] == first[1]


@pytest.mark.parametrize("method", ["half-pulled", "counted"])
def test_what_does_not_declare_its_state_starts_over(method, llama, tmp_path, monkeypatch, caplog):
    one, two = tmp_path / "one", tmp_path / "two"
    learn(llama, one, method)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        killed(monkeypatch, 5, llama, two, method)
    [warning] = [r.getMessage() for r in caplog.records if "checkpoints" in r.getMessage()]
    what = "penalty 'pull' changes 'means'" if "pull" in method else "method 'counted' changes"
    assert what in warning
    assert "its beginning" in warning
    heard = Listener()
    learn(llama, two, method, heard)
    assert not [message for message in heard.messages if "goes on" in message]
    assert comparable(two) == comparable(one)
