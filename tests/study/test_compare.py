"""Whole comparisons on a tiny model, by the command line and by the library."""

import json
import multiprocessing
import os
import signal
import sys
import time

import psutil
import pytest
from huggingface_hub import constants

from nlora.cli.app import main
from nlora.errors import NloraError
from nlora.plan.points import parse_points
from nlora.report.ledger import read, unpack
from nlora.study import runner
from nlora.study.compare import compare
from nlora.study.grid import Grid
from nlora.study.output import _described
from nlora.study.runner import Runner
from tests.calling import call
from tests.processes import apart, context
from tests.runs import LEARNING, Listener, read_jsonl, tree, write_stream
from tests.training.command import command as run_command

SETTINGS = {**LEARNING, "epochs": 2}

BROKEN = """
from nlora.methods.base import Method

class Broken(Method):
    name = "broken"
    summary = "has a bug"

    def end(self, ctx):
        raise ZeroDivisionError("a bug")
"""

ROUTED = "inc-lora:routing=input"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """One process can be compared with another."""
    old = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    os.environ.pop("OMP_NUM_THREADS") if old is None else os.environ.update(OMP_NUM_THREADS=old)


@pytest.fixture(scope="module")
def place(llama, tmp_path_factory):
    """A folder with a stream of two tasks, and a command for any methods and output folder."""
    folder = tmp_path_factory.mktemp("compare")
    stream = write_stream(folder, "colour", "animal", train=24)
    (folder / "broken.py").write_text(BROKEN)

    def command(methods, out, *more):
        settings = [p for k, v in SETTINGS.items() for p in ("--set", f"{k}={v}")]
        line = ["compare", "--stream", stream, "--methods", methods, "--model", llama]
        plugin = ["--plugin", folder / "broken.py"]
        return [str(part) for part in [*line, "--out", out, *plugin, *settings, *more]]

    return folder, command


def with_slow_imports(arguments):
    """The command line, whose workers import what takes its time, and none of the processor's."""
    slow = multiprocessing.get_context("forkserver")
    slow.set_forkserver_preload(["tests.study.slow"])
    runner._context = lambda: slow
    sys.argv = ["nlora", *arguments]
    main()


@pytest.fixture(scope="module")
def done(place):
    """A comparison in which one method fails."""
    folder, command = place
    methods = f"inc-lora,seq-lora,{ROUTED},broken"
    line = command(methods, folder / "out", "--json")
    result = call(*line)
    return folder / "out", result, line


def rows(out):
    return {r["cell"]["method"]: r for r in read(out / "ledger.jsonl")}


def comparable(out) -> dict[str, bytes]:
    """All of a model directory but times, memory and versions."""
    timed = ("stage.json", "results.json")
    return {name: data for name, data in tree(out).items() if not name.endswith(timed)}


def test_every_cell_has_a_row_and_a_failed_one_its_error(done):
    out, result, _ = done
    assert result.exit_code == 1, result.stderr
    found = rows(out)
    assert list(found) == ["inc-lora", "seq-lora", ROUTED, "broken"]
    assert found["broken"]["error"] == "ZeroDivisionError: a bug"
    assert found["broken"]["configuration"]["method"] == "broken"
    precision = {r["configuration"]["settings"]["precision"] for r in found.values()}
    assert len(precision) == 1  # or its row would stand in another table
    (traceback,) = (out / "errors").iterdir()
    assert "ZeroDivisionError: a bug" in traceback.read_text()
    assert "failed: ZeroDivisionError: a bug" in result.stderr
    cells = json.loads(result.stdout)["cells"]
    assert [c["error"] for c in cells] == [None, None, None, "ZeroDivisionError: a bug"]
    assert str(out.parent) not in json.dumps(found)  # rows mean the same on any machine


def test_a_row_holds_what_tables_need(done):
    out, _, _ = done
    found = rows(out)["inc-lora"]
    results = json.loads((out / "stream/inc-lora/seed-0/results.json").read_text())
    assert {name: found[name] for name in results} == results
    for k, stage in enumerate(found["answers"]["stages"]):
        for t, task in enumerate(found["tasks"]):
            right = 100 * unpack(stage[task]).mean()
            assert right == pytest.approx(found["accuracy_matrix"][k][t])
    assert found["zero_shot"] is not None
    assert found["forward_transfer"] is not None  # with --evaluate next
    assert found["seconds_by"]["training"] > 0
    assert found["needs"] == {
        **{"task_identity": False, "old_data": False, "storage": False},
        **{"adapter": "lora", "passes": 0},
    }
    assert rows(out)[ROUTED]["needs"]["storage"]
    assert set(found["tests"]) == {"colour", "animal"}
    # Also of those whose first stage was another's.
    assert not any("budgets" in r["configuration"] for r in rows(out).values())


def test_the_geometry_of_a_row_is_that_of_analyze(done):
    out, _, _ = done
    shown = call("analyze", out / "stream/inc-lora/seed-0", "--json")
    geometry, analysis = rows(out)["inc-lora"]["geometry"], json.loads(shown.stdout)
    assert {*geometry} == {*analysis, "layers"}
    assert geometry["acr"] == pytest.approx(analysis["acr"], rel=1e-5)
    assert geometry["last"]["oo"] == pytest.approx(analysis["last"]["oo"], rel=1e-5)
    assert [c["threshold"] for c in geometry["collisions"]] == ["0.1rms", "0.001"]


def test_the_row_of_a_single_run_is_that_of_the_ledger(done, tmp_path):
    out, _, _ = done
    shown = call("study", "row", out / "stream/inc-lora/seed-0", out / "stream/seq-lora/seed-0")
    assert shown.exit_code == 0, shown.stderr
    single = [json.loads(line) for line in shown.stdout.splitlines()]
    for method, found in zip(("inc-lora", "seq-lora"), single, strict=True):
        kept = rows(out)[method]
        assert found == {k: v for k, v in kept.items() if k not in ("cell", "tuning")}
    refused = call("study", "row", tmp_path / "nowhere")
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) == 1


def test_what_is_shared_is_as_if_it_had_been_trained(done, place, tmp_path):
    out, _, _ = done
    _, command = place
    assert call(*command("seq-lora", tmp_path / "out")).exit_code == 0
    alone, shared = (o / "stream/seq-lora/seed-0" for o in (tmp_path / "out", out))
    assert comparable(alone) == comparable(shared)
    stages = sorted(p.name for p in (shared / "stages").iterdir())
    assert stages == ["000-zero-shot", "001-colour", "002-animal"]
    notes = [
        json.loads((shared / "stages" / s / "stage.json").read_text())["notes"] for s in stages
    ]
    assert [n.get("copied_from") for n in notes] == [*["stream/inc-lora/seed-0"] * 2, None]
    routed = out / "stream/inc-lora,routing=input/seed-0/stages/001-colour"
    assert "copied_from" not in json.loads((routed / "stage.json").read_text())["notes"]
    assert (routed / "state").is_dir()


def test_a_dry_run_tells_finished_and_failed_cells_from_those_that_are_left(done, monkeypatch):
    out, _, line = done
    asked = []
    monkeypatch.setattr(
        "nlora.study.preview.seconds_of", lambda plans, *_: asked.extend(plans) or 9
    )
    before = tree(out)
    found = json.loads(call(*line, "--seeds", "0,1", "--dry-run").stdout)
    states = [(cell["method"], cell["seed"], cell["state"]) for cell in found["cells"]]
    assert states[:4] == [(name, 0, "finished") for name in ("inc-lora", "seq-lora", ROUTED)] + [
        ("broken", 0, "failed")
    ]
    assert {state for _, seed, state in states if seed == 1} == {"left"}
    assert "3 of 8 cells are finished; left: 5 runs, about 9 s" in found["told"]
    assert len(asked) == 5
    assert tree(out) == before


def test_the_same_command_again_runs_only_what_failed(done, monkeypatch):
    out, _, line = done
    before, started = tree(out), []
    monkeypatch.setattr(Runner, "run", lambda self, jobs, others: started.extend(jobs))
    assert call(*line).exit_code == 1
    assert [job.name for job in started] == ["stream/broken/seed-0"]
    assert tree(out) == before


def test_a_comparison_that_is_finished_does_nothing(done, place, monkeypatch):
    out, _, _ = done
    _, command = place
    before = tree(out)

    def starts(*args):
        raise AssertionError("a process was started")

    def asks(base):
        raise NloraError("the Hub does not answer")  # which nothing is needed of

    monkeypatch.setattr(Runner, "_start", starts)
    monkeypatch.setattr("nlora.study.compare.check_hub", asks)
    assert "does not answer" in call(*command("inc-lora,n-lora", out)).stderr
    result = call(*command("inc-lora,seq-lora", out))
    assert result.exit_code == 0, result.exception
    assert "2 of 2 cells are finished" in result.stderr
    ledger = "ledger.jsonl"
    assert tree(out)[ledger] == before[ledger]


def test_a_model_that_is_nowhere_is_one_line_and_no_failed_cells(place, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = place[1]("inc-lora", tmp_path / "out", "--model", "nobody/nothing")
    for more in ([], ["--dry-run"]):
        result = call(*line, *more)
        assert result.exit_code == 2
        assert "Hub does not answer" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_lost_ledger_is_made_again_from_the_model_directories(place, done, tmp_path):
    out, _, _ = done
    ledger = out / "ledger.jsonl"
    old = rows(out)["inc-lora"]
    kept = ledger.rename(tmp_path / "kept")
    _, command = place
    result = call(*command("inc-lora", out))
    try:
        assert result.exit_code == 0, result.stderr
        assert "nothing to do" in result.stderr
        assert rows(out)["inc-lora"] == old
    finally:
        kept.replace(ledger)


def test_tables_are_made_from_the_ledger_alone(done):
    out, _, _ = done
    result = call("table", out / "ledger.jsonl")
    assert result.exit_code == 0, result.stderr
    for title in ("Average accuracy", "All metrics", "Paired differences to inc-lora"):
        assert f"**{title}" in result.stdout
    assert f"| {ROUTED}§ |" in result.stdout
    assert "| broken | failed |" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_killed_a_comparison_leaves_no_process_and_goes_on(done, place, tmp_path):
    _, command = place
    out = tmp_path / "out"
    line = command("inc-lora,seq-lora", out, "--set", "checkpoint_every=1")
    log = tmp_path / "log"
    process = context().Process(target=run_command, args=(line, str(log), None))
    process.start()
    checkpoint = out / "stream/inc-lora/seed-0/checkpoints/002-animal/step-2"
    while not checkpoint.is_dir():
        assert process.is_alive(), log.read_text()
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) > 1
    process.kill()
    process.join()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert not (out / "ledger.jsonl").exists()

    result = call(*line)
    assert result.exit_code == 0, result.stderr
    assert "1 colour: training" not in result.stderr
    assert "stage 'animal' goes on after step" in result.stderr
    unbroken, _, _ = done
    for method in ("inc-lora", "seq-lora"):
        whole, broken = (o / f"stream/{method}/seed-0" for o in (unbroken, out))
        alike, gone_on = comparable(whole), comparable(broken)
        assert alike.pop("model.json") != gone_on.pop("model.json")  # checkpoint_every
        assert alike == gone_on


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_ctrl_c_while_workers_import_their_libraries_is_one_line(place, tmp_path):
    _, command = place
    process = apart(tmp_path, with_slow_imports, command("inc-lora,seq-lora", tmp_path / "out"))
    said = tmp_path / "stderr"
    while not (said.exists() and "(0 of 2 done)" in (begun := said.read_text())):
        assert process.is_alive(), said.read_text()
        time.sleep(0.005)
    time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the workers too
    process.join()
    assert process.exitcode == 130
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    after = said.read_text().removeprefix(begun)
    assert [text[:14] for text in after.splitlines()] == ["error: stopped"]


def test_tuning_gives_each_method_its_trials_on_dev_and_records_them(place, llama, tmp_path):
    folder, _ = place
    grid = Grid(
        model=str(llama),
        streams=(str(folder / "stream.yaml"),),
        points=parse_points(["inc-lora,zero-shot"]),
        max_train=12,
        settings=dict(SETTINGS),
        tune=2,
    )
    told, out = Listener(), tmp_path / "out"
    others = out / "tuning" / "other" / "inc-lora" / "trial-1" / "model.json"
    others.parent.mkdir(parents=True)
    others.write_text("{}")  # of another part of the grid, whose jobs run
    (out / "compare.json").write_text(json.dumps(_described(grid)))
    inc, zero = compare(grid, out, workers=2, progress=told)
    assert zero["tuning"] is None  # there is nothing to tune
    assert zero["zero_shot"] == inc["zero_shot"]
    assert zero["stages"] == []
    trials = inc["tuning"]["trials"]
    assert [t["settings"]["learning_rate"] for t in trials] == [6e-3, 1.9e-3]
    best = max(trials, key=lambda t: t["average_accuracy"])
    chosen = inc["configuration"]["settings"]["learning_rate"]
    assert chosen == best["settings"]["learning_rate"]
    assert inc["tuning"]["seed"] not in grid.seeds
    assert any("hold out a fifth of train" in message for message in told.messages)
    assert [p for p in (out / "tuning").rglob("*") if p.is_file()] == [others]
    before = tree(tmp_path / "out")
    assert compare(grid, tmp_path / "out") == [inc, zero]
    assert tree(tmp_path / "out") == before

    tried = tmp_path / "out/tuning.jsonl"
    first, second = read_jsonl(tried)
    lost = {k: v for k, v in second.items() if k in ("stream", "method", "trial", "settings")}
    tried.write_text(json.dumps(first) + "\n" + json.dumps({**lost, "error": "no luck"}) + "\n")
    told = Listener()
    compare(grid, tmp_path / "out", progress=told)  # a cell has used the choice: it stands
    assert not any("trial-" in message for message in told.messages)
