"""`nlora paper` as a command, on a tiny model and made-up data in the published layout."""

import csv
import json

import pytest

from tests.calling import call

pytest.importorskip("matplotlib")


def test_the_list_names_every_artefact():
    listed = json.loads(call("paper", "--json").stdout)
    assert [row["name"] for row in listed][:4] == [f"table-{n}" for n in (1, 2, 3, 4)]
    assert {"figure-1c", *(f"figure-{n}" for n in range(2, 7))} <= {row["name"] for row in listed}


def test_mistakes_are_one_line(tmp_path):
    for arguments, said in (
        (("paper", "table-11", "--out", tmp_path), "did you mean 'table-1'"),
        (("paper", "table-1"), "--out"),
        (("paper", "table-1", "--out", tmp_path, "--recipe", "t5"), "unknown model with recipes"),
        (("paper", "table-1", "--out", tmp_path, "--from", tmp_path / "no"), "does not exist"),
    ):
        result = call(*arguments)
        assert result.exit_code in (1, 2)
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_figures_are_run_and_drawn_and_drawn_again_from_what_is_there(llama, standard, tmp_path):
    out = tmp_path / "out"
    settings = ("max_new_tokens=2", "precision=fp32", "rank=2", "epochs=1")
    sets = [part for setting in settings for part in ("--set", setting)]
    command = ("paper", "figure-2", "figure-3", "--out", out, "--model", llama, "--data", standard)
    more = ("--recipe", "none", "--seeds", "0", "--max-train", "6", "--max-eval", "3", *sets)
    result = call(*command, *more)
    assert result.exit_code == 0, result.stderr
    assert "a trial: 6 training and 3 test examples a task, seeds 0" in result.stderr
    assert "2 runs, about" in result.stderr
    assert "[figure-3](figure-3.md)" in (out / "index.md").read_text()
    rows = list(csv.DictReader((out / "figure-3.csv").open()))
    assert {row["method"] for row in rows} == {"o-lora", "n-lora"}
    assert all(float(row["nuclear norm"]) > 0 for row in rows)
    shares = list(csv.DictReader((out / "figure-2.csv").open()))
    assert {row["threshold"] for row in shares} == {"1e-3", "0.1rms"}
    page = (out / "figure-2.md").read_text()
    assert "(% of the entries), order-1" in page
    assert "task 1 is dbpedia, task 2 is amazon" in page
    assert "of the first task, dbpedia, where" in (out / "figure-3.md").read_text()
    assert (out / "figure-2.pdf").read_bytes().startswith(b"%PDF")
    before = (out / "figure-3.svg").read_bytes()

    again = call(*command, *more)
    assert again.exit_code == 0, again.stderr
    assert "all runs are finished" in again.stderr
    assert (out / "figure-3.svg").read_bytes() == before

    other = call(*command, *more, "--max-train", "5", "--dry-run")
    assert other.exit_code == 2
    assert "disagrees with this one (max_train 6, not 5)" in other.stderr
    assert "all runs are finished" not in other.stderr

    runs = out / f"runs/{llama.name}-for-t5-large"
    drawn = call(
        *("paper", "spectra", "table-4", "--out", tmp_path / "more", "--models", runs),
        *("--from", runs / "ledger.jsonl"),
    )
    assert drawn.exit_code == 0, drawn.stderr
    [o_lora, both] = csv.DictReader((tmp_path / "more/table-4.csv").open())
    assert o_lora["order-1"]
    assert not o_lora["order-2"]
    assert not both["order-1"]
