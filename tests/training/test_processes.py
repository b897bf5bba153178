"""Two processes learn what one learns, and end as one."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import torch.distributed.run

from nlora.store.directory import ModelDirectory
from tests.calling import call
from tests.methods import new_kinds
from tests.methods.helpers import first_stages, losses, stages, state, update
from tests.processes import apart
from tests.runs import LEARNING, tree, write_stream
from tests.training.together import start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks processes")

RUNS = {
    # accumulation 2: a step's micro-batches of 4 are split 2 and 2, the last of each epoch 1 and 0
    "n-lora": ("llama", 21, ["accumulation=2"]),
    # each process holds half of the base model, and packs its own examples
    "o-lora": ("llama_of_two", 21, ["accumulation=2", "sharding=fsdp", "packing=true"]),
    "replay": ("t5", 17, ["adapter=full"]),
    "prog-prompt": ("llama", 19, []),
    # the same parameters in every stage
    "ewc": ("llama", 18, ["adapter=lora", "ewc_lambda=0.01", "packing=true"]),
    "lwf": ("t5", 18, ["adapter=full"]),
    "l2p": ("llama", 19, []),
    "lfpt5": ("t5", 19, ["prompt_length=5"]),
    # a gradient rule that goes by the covariances of inputs
    "away": ("t5", 21, ["accumulation=2", "rank=2"]),
}
EXACT = ["dropout=0", "epochs=2", "optimizer=sgd", "learning_rate=0.1", "eval_tokens=64"]
"""Adam would turn a rounding of a gradient near 0 into a step of full length."""


def arguments(method, model, stream, out, *settings):
    command = ["run", "--stream", stream, "--method", method, "--model", model, "--out", out]
    command += ["--plugin", new_kinds.__file__] if method == "away" else []
    known = [f"{name}={value}" for name, value in LEARNING.items()]
    return command + [part for setting in [*known, *settings] for part in ("--set", setting)]


def results(out):
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_memory_bytes")}


@pytest.mark.parametrize("method", RUNS)
def test_two_processes_learn_what_one_learns(method, request, tmp_path):
    shape, train, settings = RUNS[method]
    stream = write_stream(tmp_path, "colour", "animal", train=train, test=9)
    model = request.getfixturevalue(shape)
    one, two = tmp_path / "one", tmp_path / "two"
    told = arguments(method, model, stream, one, *EXACT, *settings)
    alone = call(*told)
    assert alone.exit_code == 0, alone.stderr
    told = arguments(method, model, stream, two, *EXACT, *settings)
    for rank, (status, said) in enumerate(start(told, tmp_path)):
        assert status == 0, said
        assert rank == 0 or said == ""  # the main process speaks for all
    assert tree(two).keys() == tree(one).keys()
    assert results(two) == results(one)
    for number, record in enumerate(stages(one), start=1):
        folders = [ModelDirectory(out).stage_path(record) for out in (one, two)]
        answers = [(folder / "predictions.jsonl").read_bytes() for folder in folders]
        assert answers[0] == answers[1]
        for step, expected in zip(losses(two, number), losses(one, number), strict=True):
            assert step == pytest.approx(expected, rel=1e-4, abs=1e-7)
        tensors = update(two, number)
        for name, tensor in update(one, number).items():
            torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=1e-5)
        kept = state(two, number)
        for name, tensor in state(one, number).items():
            torch.testing.assert_close(kept[name], tensor, rtol=1e-3, atol=1e-5)
    assert losses(one, 2)[-1]["gradient_norm"] > 0
    assert ("l1" in losses(one, 2)[-1]) == (method == "n-lora")


def test_one_process_may_go_on_where_two_were_killed(llama, tmp_path):
    stream = write_stream(tmp_path, "colour", "animal", train=16)
    told = arguments("inc-lora", llama, stream, tmp_path / "out", "epochs=1")
    ended = start(told, tmp_path, kill=("evaluate", 2))  # of the last process
    assert [status for status, _ in ended] == [2, -signal.SIGKILL], ended
    assert complaints(ended) == ["error: another process of this run ended, so this one stops"]
    assert [s.name for s in stages(tmp_path / "out")] == ["colour"]
    [(status, said)] = start(told, tmp_path, 1)
    assert status == 0, said
    assert [s.name for s in stages(tmp_path / "out")] == ["colour", "animal"]


PLUGIN = """
import os
from nlora import NloraError
from nlora.methods.inc_lora import IncLora

class Breaks(IncLora):
    name = "breaks"
    summary = "one process fails in stage 2"

    def loss(self, ctx, batch):
        if ctx.stage.index == 2 and os.environ["RANK"] == "1":
            raise {error}
        return super().loss(ctx, batch)
"""


def complaints(ended):
    return [line for _, said in ended for line in said.splitlines() if line.startswith("error")]


def test_one_process_that_fails_ends_all_and_says_why_alone(llama, tmp_path):
    (tmp_path / "plugin.py").write_text(PLUGIN.format(error='NloraError("no luck")'))
    told = arguments("breaks", llama, write_stream(tmp_path), tmp_path / "out", "epochs=1")
    ended = start([*told, "--plugin", tmp_path / "plugin.py"], tmp_path)
    assert [status for status, _ in ended] == [2, 2]
    assert complaints(ended) == ["error: no luck"]
    assert "Traceback" not in "".join(said for _, said in ended)
    assert [s.name for s in stages(tmp_path / "out")] == ["colour"]


LACKING = """
import os
import torch
from nlora.methods.inc_lora import IncLora

def full(handle):
    raise OSError(28, "No space left on device")

class Lacking(IncLora):
    name = "lacking"
    summary = "one process lacks something in stage 2"

    def loss(self, ctx, batch):
        if ctx.stage.index == 2 and os.environ.get("RANK") == "{rank}":
            {fault}
        return super().loss(ctx, batch)
"""
FULL = "No space left on device; make room there"
FAULTS = {
    "memory": (1, 'raise MemoryError("8 GB")', "error: memory is not enough ('8 GB'): set a"),
    "device": (1, 'raise torch.OutOfMemoryError("CUDA")', "error: memory is not enough ('CUDA'): "),
    "disk": (1, 'raise OSError(28, "No space left on device", "/there/x")', f"/there/x: {FULL}"),
    "disk-in-commit": (0, "os.fsync = full", FULL),
}


@pytest.fixture(scope="module")
def one_stage(llama, tmp_path_factory):
    """A directory with one of two stages, and the command that goes on with it."""
    place = tmp_path_factory.mktemp("lacking")
    (place / "plugin.py").write_text(LACKING.format(rank="none", fault="pass"))
    stream = write_stream(place, "colour", "animal")
    told = arguments("lacking", llama, stream, place / "whole", "epochs=1")
    told += ["--plugin", place / "plugin.py"]
    assert call(*told).exit_code == 0
    return first_stages(place / "whole", 1, place / "out"), told


def lacking(one_stage, tmp_path, rank, fault):
    """How two processes end that go on, with a fault in one of them, and the directory then."""
    begun, told = one_stage
    (tmp_path / "plugin.py").write_text(LACKING.format(rank=rank, fault=fault))
    out = shutil.copytree(begun, tmp_path / "out")
    given = {begun.with_name("whole"): out, begun.with_name("plugin.py"): tmp_path / "plugin.py"}
    return start([given.get(part, part) for part in told], tmp_path), out


@pytest.mark.parametrize("fault", FAULTS)
def test_memory_or_disk_that_one_process_lacks_ends_all_in_one_line(one_stage, tmp_path, fault):
    begun, _ = one_stage
    rank, inside, line = FAULTS[fault]
    ended, out = lacking(one_stage, tmp_path, rank, inside)
    assert [status for status, _ in ended] == [2, 2]
    [said] = complaints(ended)
    assert line in said
    assert "Traceback" not in "".join(said for _, said in ended)
    assert tree(out) == tree(begun)


def test_where_the_main_process_is_killed_the_other_ends_too(one_stage, tmp_path):
    begun, _ = one_stage
    ended, out = lacking(one_stage, tmp_path, 0, "os.kill(os.getpid(), 9)")
    assert [status for status, _ in ended] == [-signal.SIGKILL, 2]
    assert complaints(ended) == ["error: another process of this run ended, so this one stops"]
    assert "Traceback" not in "".join(said for _, said in ended)
    assert tree(out) == tree(begun)


@pytest.mark.parametrize("debug", ["", "1"], ids=["short", "debug"])
def test_a_bug_in_one_process_shows_its_own_line_alone(llama, tmp_path, debug):
    inside = f'os.environ["NLORA_DEBUG"] = "{debug}"\n'  # of processes that have their own
    (tmp_path / "plugin.py").write_text(PLUGIN.format(error='KeyError("bug")') + inside)
    told = arguments("breaks", llama, write_stream(tmp_path), tmp_path / "out", "epochs=1")
    ended = start([*told, "--plugin", tmp_path / "plugin.py"], tmp_path)
    assert [status for status, _ in ended] == [2, 1]
    assert "Traceback" not in ended[0][1]
    [line] = complaints(ended)
    assert line.startswith(f"error: {tmp_path / 'plugin.py'}, line 12, in loss: KeyError: 'bug' (")
    assert line in ended[1][1]
    assert ended[1][1].endswith("KeyError: 'bug'\n") == bool(debug)
    assert ("Traceback" in ended[1][1]) == bool(debug)


def test_what_is_wrong_for_all_is_said_once(llama, tmp_path):
    stream = write_stream(tmp_path)
    ended = start(arguments("inclora", llama, stream, tmp_path / "out"), tmp_path)
    assert [status for status, _ in ended] == [2, 2]
    assert len(complaints(ended)) == 1
    assert "did you mean 'inc-lora'" in complaints(ended)[0]
    with ModelDirectory(tmp_path / "out").locked():
        ended = start(arguments("inc-lora", llama, stream, tmp_path / "out"), tmp_path)
    assert [status for status, _ in ended] == [2, 2]
    assert len(complaints(ended)) == 1
    assert "in use" in complaints(ended)[0]


def test_a_batch_that_cannot_be_shared_out_is_refused(llama, tmp_path):
    stream = write_stream(tmp_path)
    told = arguments("inc-lora", llama, stream, tmp_path / "out", "batch_size=9")
    ended = start(told, tmp_path)
    assert [status for status, _ in ended] == [2, 2]
    assert len(complaints(ended)) == 1
    assert "batch_size 9 cannot be split" in complaints(ended)[0]


def test_torchrun_starts_the_command_line(llama, tmp_path):
    stream = write_stream(tmp_path, "colour")
    told = arguments("inc-lora", llama, stream, tmp_path / "out", "epochs=1")
    launched = ["--standalone", "--nproc-per-node", "2", "-m", "nlora", *map(str, told), "--json"]
    torchrun = apart(tmp_path, torch.distributed.run.main, launched)
    torchrun.join(200)
    said = (tmp_path / "stderr").read_text()
    assert torchrun.exitcode == 0, said
    printed = (tmp_path / "stdout").read_text()
    assert json.loads(printed) == json.loads((tmp_path / "out" / "results.json").read_text())
    for noise in ("warn", "it/s", "%|"):  # of the libraries: warnings and progress bars
        assert noise not in said.lower()


ALONE = """
import sys
from nlora import endings, processes

processes.start()
with endings.together(), processes.main_holds(processes.nullcontext):
    processes.on_main(lambda: None)
    assert processes.gathered(1) == [1]
    assert processes.from_main(1) == processes.summed(1) == 1
assert endings.first_to_fail()
processes.stop()
assert not {"torch", "accelerate"} & set(sys.modules)
"""


def test_a_single_process_pays_nothing():
    subprocess.run([sys.executable, "-c", ALONE], check=True)


OWN_SCRIPT = """
import os
from accelerate import PartialState
from nlora import processes

PartialState(cpu=True)  # as by a Trainer that has trained
os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
processes.start()
assert processes.count() == 1
assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
processes.stop()
"""


def test_a_script_of_one_s_own_stays_configured_as_it_was_launched():
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "ACCELERATE_MIXED_PRECISION": "bf16"}
    subprocess.run([sys.executable, "-c", OWN_SCRIPT], check=True, env=os.environ | place)
