"""A stage that is killed while it is trained goes on from a checkpoint, to the same numbers."""

import errno
import logging
import random
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.continual.learning import learn as learn_one
from nlora.continual.learning import run
from nlora.methods.inc_lora import IncLora
from nlora.methods.parts.terms import Weighted
from nlora.plan.settings import interval
from nlora.store.checkpoints import Checkpoints
from nlora.training import checkpoint
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
    "n-lora": {"precision": "bf16", "accumulation": 2, "schedule": "cosine"},
    "n-lora ": {"l1": "auto"},
    "sa": {"penalty": "l1-a", "l1_unit": "sum", "optimizer": "adafactor"},
    "o-lora": {"start": "pissa"},
    "ewc": {"adapter": "full", "ewc_lambda": 1},
    "seq-ft": {"precision": "bf16"},
    "replay": {"adapter": "peft", "peft_type": "LOKR", "optimizer": "sgd"},
    "lwf": {"adapter": "lora"},
    "l2p": {"pool": 4, "top_k": 2},
    "lfpt5": {"prompt_length": 4},
    "osf": {"projection": "step"},
    "sparse-masks": {},
    "scaled": {},
    "noisy": {},
    "pulled": {},
}
"""Settings by method; what follows a name tells it from another row."""


class Killed(BaseException):
    """What ends a run at once."""


def task(name, count=20):
    """Of 3 steps in an epoch, the last of them short."""
    data = tiny.task(name, count)
    return replace(data, test=data.test[:4])


def learn(
    model: Path,
    out: Path,
    method: str,
    progress=None,
    tasks=("colour", "size"),
    count=20,
    **settings,
):
    plugin = new_kinds.__file__ if method == "scaled" else __file__ if method in OWN else None
    known = {**runs.FAST, "epochs": 2, "checkpoint_every": 2, **settings}
    config = runs.config(model, None, known, method=method, plugin=plugin)
    return run(config, out, progress, stream=[task(name, count) for name in tasks])


@contextmanager
def dying_after(monkeypatch, at):
    """Whoever trains is killed after this step of all that it takes."""
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
            yield


def killed(monkeypatch, at, *arguments, **settings):
    """Learn until the run is killed after this step of all that it takes."""
    with dying_after(monkeypatch, at):
        learn(*arguments, **settings)


def comparable(out: Path) -> dict[str, bytes]:
    """All that a run must reproduce bit by bit."""
    found = tree(out).items()
    return {n: b for n, b in found if not n.endswith(("stage.json", "results.json", "model.json"))}


@pytest.mark.parametrize("name", RUNS)
def test_killed_in_a_stage_it_ends_as_an_unbroken_run(name, llama, tmp_path, monkeypatch):
    method, settings = name.strip(), RUNS[name]
    one, two = tmp_path / "one", tmp_path / "two"
    # 6 steps in a stage, 3 in an epoch. The second stage, whose state and penalties are not empty.
    killed(monkeypatch, 6 + 5, llama, two, method, **settings)
    # The other one trains the second stage from its beginning.
    shutil.copytree(two, one, ignore=shutil.ignore_patterns("checkpoints"))
    unbroken = Listener()
    learn(llama, one, method, unbroken, **settings)
    assert not [message for message in unbroken.messages if "goes on after step" in message]
    assert not (one / "checkpoints").exists()
    assert {
        p.split("/")[1:3] == ["002-size", "step-4"] for p in tree(two) if "checkpoints" in p
    } == {True}
    heard = Listener()
    learn(llama, two, method, heard, **settings)
    assert "stage 'size' goes on after step 4 of 6" in heard.messages
    assert comparable(two) == comparable(one)
    assert not (two / "checkpoints").exists()
    assert stages(two)[1].notes["resumed_after_steps"] == [4]


def test_a_task_that_is_added_goes_on_within_its_stage(llama, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    learn(llama, one, "n-lora", tasks=["colour"])
    shutil.copytree(one, two)
    added = task("size")
    learn_one(one, added)
    with dying_after(monkeypatch, 5):
        learn_one(two, added)
    heard = Listener()
    learn_one(two, added, progress=heard)
    assert "stage 'size' goes on after step 4 of 6" in heard.messages
    assert comparable(two) == comparable(one)


def test_killed_twice_once_between_two_epochs(llama, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    colour = {"tasks": ["colour"], "epochs": 3}
    learn(llama, one, "noisy", **colour)
    killed(monkeypatch, 3, llama, two, "noisy", **colour)
    heard = Listener()
    killed(monkeypatch, 5, llama, two, "noisy", heard, **colour)  # after step 2 + 5
    assert "stage 'colour' goes on after step 2 of 9" in heard.messages
    learn(llama, two, "noisy", heard, **colour)
    assert "stage 'colour' goes on after step 6 of 9" in heard.messages
    assert comparable(two) == comparable(one)
    assert stages(two)[0].notes["resumed_after_steps"] == [2, 6]


def test_killed_after_its_last_step_a_stage_tells_how_far_it_came(llama, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = {"tasks": ["colour"], "epochs": 1, "checkpoint_every": 1, "max_kl": 100}
    learn(llama, one, "inc-lora", **settings)
    killed(monkeypatch, 3, llama, two, "inc-lora", **settings)
    learn(llama, two, "inc-lora", **settings)
    [unbroken], [resumed] = stages(one), stages(two)
    assert resumed.notes["resumed_after_steps"] == [3]
    assert resumed.notes["max_kl"] == unbroken.notes["max_kl"]
    assert resumed.notes["max_kl"]["kl"] > 0


@pytest.fixture(scope="module")
def colour(llama, tmp_path_factory):
    """A run of one task that nobody disturbed."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    learn(llama, out, "inc-lora", tasks=["colour"])
    return out


@pytest.mark.parametrize("method", ["half-pulled", "counted"])
def test_what_does_not_declare_its_state_starts_over(method, llama, tmp_path, monkeypatch, caplog):
    one, two = tmp_path / "one", tmp_path / "two"
    learn(llama, one, method, tasks=["colour"])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        killed(monkeypatch, 5, llama, two, method, tasks=["colour"])
    [warning] = [r.getMessage() for r in caplog.records if "checkpoints" in r.getMessage()]
    what = "penalty 'pull' changes 'means'" if "pull" in method else "method 'counted' changes"
    assert what in warning
    assert "its beginning" in warning
    heard = Listener()
    learn(llama, two, method, heard, tasks=["colour"])
    assert not [message for message in heard.messages if "goes on" in message]
    assert comparable(two) == comparable(one)


def spoilt_cut(place):
    (place / "state.safetensors").write_bytes((place / "state.safetensors").read_bytes()[:-1])


def spoilt_json(place):
    (place / "checkpoint.json").write_text("{")


def spoilt_missing(place):
    (place / "losses.jsonl").unlink()


@pytest.mark.parametrize("spoil", [spoilt_cut, spoilt_json, spoilt_missing])
def test_a_damaged_checkpoint_is_told_and_not_used(spoil, llama, colour, tmp_path, monkeypatch):
    out = tmp_path / "out"
    killed(monkeypatch, 3, llama, out, "inc-lora", tasks=["colour"])
    spoil(out / "checkpoints/001-colour/step-2")
    heard = Listener()
    learn(llama, out, "inc-lora", heard, tasks=["colour"])
    [line] = [message for message in heard.messages if "starts from its beginning" in message]
    assert str(out / "checkpoints/001-colour/step-2") in line
    assert comparable(out) == comparable(colour)
    assert not (out / "checkpoints").exists()


def test_one_of_other_data_is_told_and_not_used(llama, colour, tmp_path, monkeypatch):
    out = tmp_path / "out"
    one = {"tasks": ["colour"]}
    killed(monkeypatch, 3, llama, out, "inc-lora", count=21, **one)  # nothing committed: any plan
    heard = Listener()
    learn(llama, out, "inc-lora", heard, **one)
    assert any("is of another examples" in message for message in heard.messages)
    assert comparable(out) == comparable(colour)


def test_where_none_can_be_written_training_goes_on(llama, colour, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"

    def full(place, name, kept):
        raise OSError(errno.ENOSPC, "No space left on device", str(place / name))

    monkeypatch.setattr(checkpoint, "write_packed", full)
    with caplog.at_level(logging.WARNING):
        learn(llama, out, "inc-lora", tasks=["colour"])
    [said] = [r.getMessage() for r in caplog.records if "no more checkpoints" in r.getMessage()]
    assert "No space left on device" in said  # once, though three are due
    assert comparable(out) == comparable(colour)
    assert not (out / "checkpoints").exists()


def test_one_per_so_much_time(llama, tmp_path, monkeypatch):
    now, written = [0.0], []
    write = Checkpoints.write

    def later(self, logs, start_time=None, log=StageTrainer.log):
        now[0] += 10  # what a step takes
        log(self, logs, start_time)

    def noted(self, step, fill):
        written.append(step)
        write(self, step, fill)

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(StageTrainer, "log", later)
    monkeypatch.setattr(Checkpoints, "write", noted)
    learn(llama, tmp_path / "model", "inc-lora", checkpoint_every="30s")
    assert written == [3, 6, 3, 6]


def test_every_interval_that_is_none_is_refused():
    for wrong in ("0s", "soon", "-3", 0, "10 min 5 s", ""):
        with pytest.raises(ValueError, match="must be"):
            interval(wrong)
