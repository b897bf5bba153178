"""Cells as jobs of a cluster, whose commands stand in for it; jobs are run by the test."""

import json
import os
import signal
import stat
import sys

import pytest

from nlora.report.ledger import read
from tests.calling import call
from tests.paper.conftest import standard  # noqa: F401
from tests.runs import LEARNING, write_stream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a cluster's commands are scripts")

RESOURCES = """
partition: gpu
hours: 1.5
gpus: 1
memory: 32G
setup: [module load cuda]
options: {account: lab}
"""
BROKEN = """
from nlora.methods.base import Method

class Broken(Method):
    name = "broken"
    summary = "has a bug"

    def begin(self, ctx):
        raise ZeroDivisionError("a bug")
"""
SCRIPTS = {
    "srun": "",
    "sbatch": 'cp "$1" {place}/submitted-$(ls {place} | wc -l).sh; echo Submitted batch job 7',
    "sacct": "cat {place}/states",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder for what was submitted, whose file `states` is what the cluster says of jobs."""
    place, commands = tmp_path / "cluster", tmp_path / "bin"
    place.mkdir()
    commands.mkdir()
    for name, text in SCRIPTS.items():
        script = commands / name
        script.write_text("#!/bin/sh\n" + text.format(place=place))
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")

    def say(**states):
        lines = [f"7_{number[1:]}|{state}|here" for number, state in states.items()]
        (place / "states").write_text("\n".join(["JobID|State|NodeList", *lines]))

    from submitit import SlurmJob

    SlurmJob.watcher.clear()
    say()
    return place, say


@pytest.fixture
def run(monkeypatch):
    """Runs the job with this number in an array, as the cluster would, but in this process."""

    def process(out, number):
        from submitit.core.submission import process_job

        place = {"JOB_ID": "1", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": str(number), "NTASKS": "1"}
        place |= {"JOB_NUM_NODES": "1", "NODEID": "0", "PROCID": "0", "LOCALID": "0"}
        for name, value in place.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
        kept = {s: signal.getsignal(s) for s in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT)}
        try:
            process_job(out / "jobs")
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    return process


def states(result):
    return {cell["method"]: cell["state"] for cell in json.loads(result.stdout)["cells"]}


def test_cells_are_submitted_once_and_their_rows_collected(cluster, run, llama, tmp_path):
    place, say = cluster
    out = tmp_path / "out"
    (tmp_path / "resources.yaml").write_text(RESOURCES)
    (tmp_path / "broken.py").write_text(BROKEN)
    line = ["compare", "--stream", write_stream(tmp_path, "colour"), "--model", llama]
    line += ["--methods", "inc-lora,broken,seq-lora", "--plugin", tmp_path / "broken.py"]
    line += [p for k, v in {**LEARNING, "epochs": 1}.items() for p in ("--set", f"{k}={v}")]
    line += ["--out", out, "--launcher", "slurm", "--resources", tmp_path / "resources.yaml"]
    say(_0="PENDING", _1="PENDING", _2="RUNNING")
    begun = call(*line, "--json")
    assert begun.exit_code == 0, begun.stderr
    assert states(begun) == {"inc-lora": "waiting", "broken": "waiting", "seq-lora": "running"}
    script = (place / "submitted-1.sh").read_text()
    for asked in ("array=0-2%3", "partition=gpu", "time=90", "gpus-per-node=1", "mem=32G"):
        assert f"#SBATCH --{asked}\n" in script
    assert "#SBATCH --account=lab\n" in script
    assert "\nmodule load cuda\n" in script

    assert "3 were before" in call(*line).stderr
    assert len(list(place.glob("*.sh"))) == 1
    refused = call(*line[: line.index("--launcher")])
    assert refused.exit_code == 2
    assert "3 jobs" in refused.stderr

    run(out, 0)
    run(out, 1)
    say(_0="COMPLETED", _1="COMPLETED", _2="OUT_OF_MEMORY")
    assert [r["cell"]["method"] for r in read(next((out / "rows").glob("*inc-lora*")))] == [
        "inc-lora"  # a ledger by itself
    ]
    ended = call("compare", "--status", "--out", out)
    assert ended.exit_code == 1
    assert "a bug" in ended.stdout
    rows = {row["cell"]["method"]: row for row in read(out / "ledger.jsonl")}
    assert rows["inc-lora"]["average_accuracy"] is not None
    assert rows["broken"]["error"] == "ZeroDivisionError: a bug"
    assert "its job 7_2 ended without a row (OUT_OF_MEMORY)" in rows["seq-lora"]["error"]
    assert len(list((out / "errors").iterdir())) == 1  # the traceback

    say(_0="PENDING", _1="PENDING")
    again = call(*line, "--json")
    assert "2 jobs are submitted" in again.stderr
    assert states(again) == {"broken": "waiting", "seq-lora": "waiting", "inc-lora": "done"}


def test_a_figure_is_drawn_when_its_jobs_have_ended(cluster, llama, standard, tmp_path):  # noqa: F811
    place, say = cluster
    out = tmp_path / "out"
    line = ["paper", "figure-3", "--model", llama, "--data", standard, "--recipe", "none"]
    line += ["--seeds", "0", "--max-train", "6", "--out", out, "--launcher", "slurm"]
    say(_0="RUNNING", _1="PENDING")
    begun = call(*line, "--json")
    assert begun.exit_code == 0, begun.stderr
    assert json.loads(begun.stdout) == {"files": {}, "failed": [], "jobs": 2}
    assert "2 runs\n" in begun.stderr  # whose time here says nothing of a cluster's
    assert "array=0-1%2" in (place / "submitted-1.sh").read_text()
    assert not (out / "figure-3.md").exists()
    assert call(*line).exit_code == 0
    assert len(list(place.glob("*.sh"))) == 1  # nothing is submitted twice
    here = call(*line[: line.index("--launcher")])
    assert here.exit_code == 2
    assert "2 jobs" in here.stderr
    say(_0="FAILED", _1="OUT_OF_MEMORY")
    call(*line)
    say(_0="PENDING", _1="PENDING")
    failed = call(*line, "--json")  # all have ended, so what there is is drawn, and this is told
    assert failed.exit_code == 1
    assert "2 jobs have not ended" in failed.stderr  # they are submitted once more
    assert "ended without a row (OUT_OF_MEMORY)" in " ".join(json.loads(failed.stdout)["failed"])
    drawn = call("paper", "figure-3", "--from", out, "--out", out, "--launcher", "slurm")
    assert drawn.exit_code == 2
    assert "--from runs nothing" in drawn.stderr
