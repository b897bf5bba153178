"""`nlora compare` and `nlora table` at the command line; whole comparisons are in tests/study."""

import json
from types import SimpleNamespace

import pytest

from tests.report.rows import row, write
from tests.runs import tree, write_stream


@pytest.fixture
def command(llama, tmp_path):
    """A good command; the caller changes one thing."""
    values = {
        "--stream": write_stream(tmp_path, "colour"),
        "--methods": "inc-lora",
        "--model": llama,
        "--out": tmp_path / "out",
    }

    def line(*more, **changes):
        changed = {**values, **{f"--{k}": v for k, v in changes.items()}}
        return ["compare", *(part for pair in changed.items() for part in pair), *more]

    return line


@pytest.mark.parametrize(
    ("changes", "more", "said"),
    [
        ({"methods": "inc-lora,nlora"}, [], "unknown method 'nlora'; did you mean 'n-lora'"),
        ({"stream": "ordr-1"}, [], "unknown stream 'ordr-1'; did you mean 'order-1'"),
        ({"model": "./nowhere"}, [], "model './nowhere' is neither a folder"),
        ({"seeds": "a"}, [], "--seeds takes numbers"),
        ({"workers": 0}, [], "at least 1 worker"),
        ({"tune": -1}, [], "at least 0 trials"),
        ({"tune": 2, "seeds": 1000}, [], "seed 1000 is the one that tuning uses"),
        ({"evaluate": "nxt"}, [], "'evaluate'"),
        ({}, ["--set", "rnk=4"], "'rnk'; did you mean 'rank'"),
        ({}, ["--set", "nlora.l1=1"], "unknown method with settings 'nlora'"),
        ({}, ["--set", "inc-lora.l1=-1"], "setting 'l1'"),
        ({}, ["--set", "epochs=[1,2]"], "'epochs' lists 2 values for 1 stages"),
        ({"methods": "zero-shot", "evaluate": "seen"}, [], "zero-shot trains nothing"),
        ({}, ["--method", "x"], "--method"),
    ],
    ids=str,
)
def test_bad_input_is_one_line_before_anything_runs(
    refused, command, tmp_path, changes, more, said
):
    assert said in refused(*command(*more, **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["--stream", "--methods", "--model", "--out"])
def test_what_is_needed_is_asked_for(refused, command, name):
    line = command()
    at = line.index(name)
    assert name in refused(*line[:at], *line[at + 2 :])


@pytest.mark.parametrize(
    ("launcher", "text", "said"),
    [
        ("slrm", "", "'slrm'; did you mean 'slurm'"),
        ("slurm", "gpu: 1", "'gpu': Extra inputs are not permitted; known are partition, hours"),
        ("slurm", "hours: 0", "'hours': Input should be greater than 0"),
        (None, "gpus: 1", "--resources is for --launcher"),
    ],
    ids=str,
)
def test_what_a_cluster_cannot_be_asked_is_one_line(
    refused, command, tmp_path, launcher, text, said
):
    (tmp_path / "resources.yaml").write_text(text or "{}")
    asked = ["--launcher", launcher] if launcher else []
    assert said in refused(*command(*asked, resources=tmp_path / "resources.yaml"))
    assert not (tmp_path / "out").exists()


def test_the_status_of_another_folder_is_refused(refused, tmp_path):
    assert "is not a comparison's folder" in refused("compare", "--status", "--out", tmp_path)


def test_a_folder_that_holds_something_else_is_left_alone(refused, command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo.jpg").write_text("mine")
    before = tree(tmp_path / "out")
    assert "not a comparison's folder" in refused(*command())
    assert tree(tmp_path / "out") == before


def test_a_dry_run_says_what_is_left_and_writes_nothing(nlora, command, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "nlora.study.preview.seconds_of", lambda plans, *_: asked.append(plans) or 700
    )
    out = tmp_path / "out"
    line = command("--dry-run", seeds="0,1,2", tune=2)
    shown = nlora(*line).stdout
    assert "0 of 3 cells are finished; left: 5 runs, about 12 min" in shown
    assert "2 of them trials of tuning" in shown
    assert [len(plans) for plans in asked] == [5]
    assert not out.exists()


def test_it_is_not_started_by_torchrun(refused, command, monkeypatch):
    monkeypatch.setattr("nlora.study.compare.processes", SimpleNamespace(count=lambda: 2))
    assert "without torchrun" in refused(*command())


@pytest.fixture
def ledger(tmp_path):
    return write(tmp_path / "ledger.jsonl", [row(), row("n-lora", seed=1), row("n-lora")])


def test_a_table_in_every_format(nlora, ledger):
    shown = {f: nlora("table", ledger, "--format", f).stdout for f in ("markdown", "latex", "csv")}
    assert "| n-lora |" in shown["markdown"]
    assert r"\begin{tabular}" in shown["latex"]
    assert "method,order-1" in shown["csv"]
    found = json.loads(nlora("table", ledger, "--format", "json").stdout)
    assert [t["key"] for t in found] == ["accuracy", "metrics", "differences", "cost", "pareto"]


def test_one_table_and_some_methods(nlora, ledger):
    result = nlora("table", ledger, "--table", "accuracy", "--methods", "n-lora", "--format", "csv")
    assert result.exit_code == 0, result.stderr
    assert "n-lora" in result.stdout
    assert "inc-lora" not in result.stdout


def test_a_file_per_table(nlora, ledger, tmp_path):
    out = tmp_path / "tables"
    result = nlora("table", ledger, "--format", "csv", "--out", out)
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in out.iterdir()) == [
        *("accuracy.csv", "cost.csv", "differences.csv", "metrics.csv", "pareto.csv")
    ]
    assert (out / "accuracy.csv").read_text().startswith("method,order-1,")


def test_pareto_is_a_table_and_a_picture(nlora, ledger, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "front"
    result = nlora("table", ledger, "--pareto", "--out", out)
    assert result.exit_code == 0, result.stderr
    names = ["pareto.md", "pareto.pdf", "pareto.png", "pareto.svg"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert sorted(line.rpartition("/")[2] for line in result.stdout.splitlines()) == names


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--format", "markdwn"], "unknown format 'markdwn'; did you mean 'markdown'"),
        (["--table", "acuracy"], "unknown table 'acuracy'; did you mean 'accuracy'"),
        (["--baseline", "o-lora"], "unknown baseline 'o-lora'"),
        (["--methods", "m-lora"], "unknown method in the ledger 'm-lora'"),
        (["--table", "orthogonality"], "the ledger has nothing for: orthogonality"),
        (["nowhere.jsonl"], "nowhere.jsonl does not exist"),
    ],
    ids=str,
)
def test_a_typing_error_is_one_line(refused, ledger, more, said):
    assert said in refused("table", ledger, *more)
