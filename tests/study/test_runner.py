"""Jobs run in processes: in order, some at a time, whatever becomes of one of them."""

from types import SimpleNamespace

import pytest

from nlora.study import runner
from nlora.study.runner import Runner
from nlora.study.share import Shared
from nlora.study.worker import Job
from tests.study.fakes import commit, work


def job(name: str, kind: str = "quick", first: str | None = None) -> Job:
    plan = SimpleNamespace(config=SimpleNamespace(method=kind))
    return Job(name, {"name": name}, plan, Shared(first_stage=first))  # type: ignore[arg-type]


class Told:
    """A progress that remembers all of it."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __getattr__(self, name):
        return lambda *args, **values: self.calls.append((name, *args, *values.values()))

    def messages(self) -> list[str]:
        return [call[1] for call in self.calls if call[0] == "message"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "work", work)

    def started(jobs, workers=1, others=()):
        outcomes, told = {}, Told()

        def finished(job, outcome):
            assert job.name not in outcomes
            outcomes[job.name] = outcome

        Runner(tmp_path, workers, told, "abc", finished).run(jobs, others)
        return outcomes, told

    return started


def test_what_several_jobs_say_alike_is_said_once(run):
    _, told = run([job("a", "has a note"), job("b", "has a note")])
    assert told.messages().count("rows are left out") == 1
    assert "working on b" in told.messages()


def test_each_job_has_a_process_of_its_own_and_they_run_in_order(run, tmp_path):
    outcomes, told = run([job("a"), job("b")])
    assert outcomes["a"]["ended"] <= outcomes["b"]["started"]
    pids = {(tmp_path / f"{name}.json").read_text() for name in "ab"}
    assert len(pids) == 2
    assert told.messages()[0] == "a (0 of 2 done)"
    assert told.messages()[2].startswith("b (1 of 2 done, about ")
    assert told.calls[1:5] == [
        ("message", "working on a"),
        ("start", "training", 2),
        ("advance", 2, 0.5),
        ("finish",),
    ]


def test_what_fails_or_is_killed_does_not_stop_the_others(run):
    jobs = [job("a", "fails"), job("b", "killed"), job("c", "bug"), job("d")]
    outcomes, told = run(jobs)
    assert outcomes["a"] == {"error": "it is the user's fault", "traceback": None}
    assert outcomes["b"]["error"].startswith("its process was killed by signal 9")
    assert outcomes["c"]["traceback"] == "Traceback …"
    assert "error" not in outcomes["d"]
    assert told.calls.count(("start", "training", 3)) == 1
    starts, ends = ([c[0] for c in told.calls].count(kind) for kind in ("start", "finish"))
    assert starts == ends  # the bar of the one that was killed is closed


def test_some_run_at_a_time_and_say_who_they_are(run):
    outcomes, told = run([job("a", "slow"), job("b", "slow"), job("c", "slow")], workers=2)
    assert outcomes["b"]["started"] < outcomes["a"]["ended"]
    assert outcomes["c"]["started"] >= min(outcomes["a"]["ended"], outcomes["b"]["ended"])
    assert outcomes["a"]["workers"] == 2
    assert "b: working on b" in told.messages()
    assert "start" not in {call[0] for call in told.calls}


def test_a_job_waits_for_what_another_one_is_making_and_then_takes_it(run):
    jobs = [job("a", "slow", first="x"), job("b", "slow", first="x"), job("c", "slow")]
    outcomes, _ = run(jobs, workers=2)
    assert outcomes["c"]["started"] < outcomes["b"]["started"]  # which it did not wait for
    assert outcomes["b"]["first"] == "a"
    assert outcomes["a"]["first"] is None


def test_if_the_one_that_was_to_share_fails_the_next_one_does_it(run):
    outcomes, _ = run([job("a", "fails", first="x"), job("b", first="x"), job("c", first="x")])
    assert outcomes["b"]["first"] is None
    assert outcomes["c"]["first"] == "b"


def test_a_finished_run_shares_too(run, tmp_path):
    commit(tmp_path / "old", 1)
    outcomes, _ = run([job("a", first="x")], others=[job("old", first="x")])
    assert outcomes["a"]["first"] == "old"


def test_an_interruption_ends_the_workers(run, tmp_path, monkeypatch):
    processes = []
    start = Runner._start

    def remembered(self, job):
        processes.append(start(self, job))
        return processes[-1]

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "_start", remembered)
    monkeypatch.setattr(Runner, "_listen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run([job("a", "sleeps")])
    assert not processes[0][1].is_alive()
