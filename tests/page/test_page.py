"""The page says what folders and ledgers say, and what is missing."""

import json
import shutil
import signal
from html import unescape
from itertools import pairwise
from pathlib import Path

import pytest

from nlora.continual.learning import learn
from nlora.continual.results import write_results
from nlora.data.files import task_from_files
from nlora.page import build, material
from nlora.page.build import page
from nlora.page.charts import layers, over_stages, training
from nlora.page.heat import heats
from nlora.page.material import gather
from nlora.page.measures import costs, falls, tasks_of
from nlora.page.words import told
from nlora.store.directory import ModelDirectory
from nlora.store.records import committed
from tests.calling import call
from tests.page.conftest import CODE
from tests.report.rows import failed, geometry, grid, row, write
from tests.runs import write_task

pytest.importorskip("vl_convert")

SPLITS = ("train", "test")


@pytest.fixture(autouse=True)
def no_vega(monkeypatch):
    """Vega takes a second to bundle; tests/page/test_browser.py has it."""
    monkeypatch.setattr(build, "_vega", lambda: "")


def row_of(matrix, **changes):
    """A ledger's row with this accuracy matrix of two tasks."""
    last = [a for a in matrix[-1] if a is not None]
    found = {
        "accuracy_matrix": matrix,
        "average_accuracy": sum(last) / len(last),
        "learning_accuracy": sum(matrix[i][i] for i in range(len(matrix))) / len(matrix),
        "forgetting": matrix[0][0] - matrix[-1][0],
    }
    return row(stream="red,blue", **{**found, **changes})


def test_the_words_are_the_numbers(tmp_path):
    kept = row_of([[90.0, None], [40.0, 70.0]], zero_shot=[10.0, 30.0])
    kept["off_list"] = {"matrix": [[0.0, None], [55.0, 0.0]], "average": 27.5}
    (section,) = gather([write(tmp_path / "ledger.jsonl", [kept])]).sections
    said = " ".join(told(section))
    for part in (
        *("Before any training a model answers 20.0 %", "2 tasks, one after another: red, blue"),
        *("answered 80.0 %", "after the last one, 55.0 %", "Forgetting is 50.0 points"),
        *("red fell from 90.0 to 40.0 %", "55 % of the answers to red are none of its labels"),
    ):
        assert part in said
    table = tasks_of(section.runs[0])
    assert [getattr(cell, "mean", cell) for cell in table.rows[0]] == ["red", 10, 90, 40, 50, 55]
    ((_, zero), (_, first), (_, last)) = heats(section)[0].rows
    assert [cell.value for cell in zero] == [10, 30]
    assert [cell.own for cell in (*first, *last)] == [True, False, False, True]


def test_several_methods_are_ranked_and_little_learned_is_no_merit(tmp_path):
    rows = [
        row_of([[90.0, None], [60.0, 80.0]], method="inc-lora"),
        row_of([[50.0, None], [49.0, 51.0]], method="n-lora"),
    ]
    (section,) = gather([write(tmp_path / "ledger.jsonl", rows)]).sections
    said = " ".join(told(section))
    assert "taught with inc-lora answers most right at the end, 70.0 %" in said
    assert "n-lora forgot least (1.0 points" in said
    assert "inc-lora most (30.0: red fell from 90.0 to 60.0 %)" in said
    assert "But n-lora had learned less" in said
    assert "With one seed" in said


def test_a_gain_is_not_called_a_fall(tmp_path):
    gained = row_of([[40.0, None], [50.0, 70.0]])
    (section,) = gather([write(tmp_path / "ledger.jsonl", [gained])]).sections
    said = " ".join(told(section))
    assert "Forgetting is -10.0 points, below zero: the earlier tasks are above" in said
    assert "did the earlier tasks fall" not in said


def test_a_task_that_came_again_has_a_row_a_line_and_a_loss_of_its_own(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    write_task(tmp_path, "colour", train=3, start=50)
    learn(out, task_from_files("colour", *(tmp_path / f"colour-{s}.jsonl" for s in SPLITS)))
    first, second, last = ModelDirectory(out).stages()
    material = gather([out])
    (section,) = material.sections
    best = max(first.accuracy["colour"], second.accuracy["colour"])
    now = last.parts["colour"][first.folder].accuracy
    assert falls(section.runs[0])["colour"] == pytest.approx((best, now))
    shown = [[getattr(cell, "mean", cell) for cell in r] for r in tasks_of(section.runs[0]).rows]
    assert [line[0] for line in shown] == ["colour", "colour (2)", "animal"]
    assert shown[0][3:5] == pytest.approx([now, best - now])
    assert shown[1][4] is None  # nothing came after it
    spec = over_stages(section)[0].spec
    line = [v["stage"] for v in spec["data"]["values"] if v["task"] == "colour"]
    assert line == spec["encoding"]["x"]["axis"]["values"] == [1, 2, 3]
    assert [[cell.own for cell in cells] for _, cells in heats(section)[0].rows[-3:]] == [
        [True, False],
        [False, True],
        [True, False],
    ]
    (steps,) = training(section, material)
    assert {v["stage"] for v in steps.spec["data"]["values"]} == {"colour", "animal", "colour (2)"}


def test_what_stages_cost_and_where_updates_meet_is_there(finished):
    material = gather([finished("n-lora").out])
    (section,) = material.sections
    table = costs(section)
    assert [r[2] for r in table.rows] == ["colour", "animal"]
    assert table.rows[0][3].mean == 24
    collisions, density = layers(section)
    matrices = {v["matrix"] for v in density.spec["data"]["values"]}
    assert {v["matrix"] for v in collisions.spec["data"]["values"]} == matrices
    assert len(density.spec["data"]["values"]) == 2 * len(matrices)
    (steps,) = training(section, material)
    assert {"loss/task", "gradient_norm", "learning_rate"} <= set(steps.spec["data"]["values"][0])
    (tasks,) = over_stages(section)
    assert {v["stage"] for v in tasks.spec["data"]["values"] if v["task"] == "animal"} == {2}


def test_what_comes_from_data_is_text(nasty, tmp_path):
    ledger = write(tmp_path / "ledger.jsonl", [row(f"n-lora:{CODE}")])
    made = page([nasty, ledger])
    for part in (CODE, "<i>run", "</td>" + CODE[:4], "<b>yes", "\u202e"):
        assert part not in made
    assert unescape(made).count(f"n-lora:{CODE}") > 3
    assert "</td>" + CODE in unescape(made)
    for block in made.split('<script type="application/json">')[1:]:
        json.loads(block.split("</script>")[0])


def test_a_run_that_is_not_finished_says_so(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    directory = ModelDirectory(out)
    shutil.rmtree(out / "stages" / "002-animal")
    write_results(directory, ["colour", "animal"], "inc-lora")
    made = page([out])
    assert "1 of 2 tasks are learned" in made
    assert "goes on with &#39;animal&#39;" in made
    assert "taught" in made
    for path in (out / "stages", out / "results.json"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    made = page([out])
    assert "nothing is learned yet" in made
    assert "There is no result yet" in made


def test_failed_and_empty_grids_say_so(tmp_path, finished):
    (tmp_path / "compare.json").write_text("{}")
    assert "There is no result yet" in page([tmp_path])
    rows = [row("inc-lora"), failed("n-lora", error="no <b>luck</b>")]
    write(tmp_path / "ledger.jsonl", rows)
    begun = tmp_path / "order-1" / "o-lora" / "seed-0"
    begun.mkdir(parents=True)
    shutil.copy(finished("inc-lora").out / "model.json", begun)
    made = page([tmp_path])
    assert "1 run failed" in made
    assert "n-lora on order-1, seed 0: no &lt;b&gt;luck&lt;/b&gt;" in made
    assert "order-1/o-lora/seed-0: nothing is learned yet" in made
    write(tmp_path / "ledger.jsonl", [failed("n-lora")])
    assert "No run has a result." in page([tmp_path])


def test_a_place_that_is_none_is_one_line(tmp_path):
    for place in (tmp_path, tmp_path / "missing"):
        result = call("report", place, "--out", tmp_path / "page.html")
        assert result.exit_code == 2
        assert str(place) in result.stderr
        assert not (tmp_path / "page.html").exists()


def test_two_runs_of_one_method_are_told_apart_by_their_folders(finished, tmp_path):
    out = finished("inc-lora").out
    other = shutil.copytree(out, tmp_path / "other")
    (section,) = gather([out, other]).sections
    assert section.methods == ["inc-lora (out)", "inc-lora (other)"]


def test_models_that_learned_other_tasks_are_no_seeds_of_one_another(finished, tmp_path):
    more, other, third = (
        shutil.copytree(finished("inc-lora").out, tmp_path / name) for name in ("m", "o", "t")
    )
    for seed, out in enumerate((other, third), start=1):
        ModelDirectory(out).write_config({**ModelDirectory(out).config(), "seed": seed})
    write_task(tmp_path, "fruit", train=3)
    learn(more, task_from_files("fruit", *(tmp_path / f"fruit-{s}.jsonl" for s in SPLITS)))
    (section,) = gather([more, other, third]).sections
    seeds = {
        stream: [run.seed for run in section.of("inc-lora", stream)] for _, stream in section.cells
    }
    assert seeds == {"colour,animal,fruit": [0], "colour,animal": [1, 2]}
    assert [len(heat.tasks) for heat in heats(section)] == [3, 2]
    assert over_stages(section)


def test_watch_goes_on_until_the_run_is_finished(finished, tmp_path, monkeypatch):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    last = shutil.move(out / "stages" / "002-animal", tmp_path / "last")
    write_results(ModelDirectory(out), ["colour", "animal"], "inc-lora")
    place, seen = tmp_path / "pages" / "page.html", []

    def sleep(seconds):
        seen.append((seconds, place.read_text(encoding="utf-8")))
        if len(seen) == 2:
            shutil.move(last, out / "stages" / "002-animal")
            write_results(ModelDirectory(out), ["colour", "animal"], "inc-lora")

    monkeypatch.setattr("time.sleep", sleep)
    assert call("report", out, "--out", place, "--watch", "--every", 3).exit_code == 0
    assert [seconds for seconds, _ in seen] == [3, 3]
    assert all('http-equiv="refresh" content="3"' in shown for _, shown in seen)
    assert "1 of 2 tasks" in seen[0][1]
    final = place.read_text(encoding="utf-8")
    assert "refresh" not in final
    assert "Not finished" not in final


def test_watch_of_a_grid_ends_with_ctrl_c(tmp_path, monkeypatch):
    (tmp_path / "compare.json").write_text("{}")
    monkeypatch.setattr("time.sleep", lambda seconds: signal.raise_signal(signal.SIGINT))
    assert call("report", tmp_path, "--out", tmp_path / "page.html", "--watch").exit_code == 0
    assert "refresh" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_large_grid_makes_a_small_page(tmp_path):
    methods = [f"m{i}" for i in range(9)]
    rows = grid(["inc-lora", *methods], ["order-4"], count=200)
    for one in rows:
        found = geometry(4.0, 0.5, 0.1, 0.2)
        names = one["tasks"]
        matrix = {"acr": 0.123, "density": [0.456] * len(names)}
        layers_ = {f"model.layers.{i}.self_attn.q_proj": matrix for i in range(30)}
        per_adapter = [{**found["per_adapter"][0], "nuclear_norm": {"mean": 1.0}}] * len(names)
        one["geometry"] = {
            **found,
            "adapters": names,
            "layers": layers_,
            "per_adapter": per_adapter,
        }
    assert len(page([write(tmp_path / "ledger.jsonl", rows)])) < 5_000_000


def test_averages_over_stages_are_of_the_tasks_learned_so_far(tmp_path):
    rows = [row_of([[90.0, 20.0], [60.0, 80.0]], method=m) for m in ("inc-lora", "n-lora")]
    (section,) = gather([write(tmp_path / "ledger.jsonl", rows)]).sections
    values = over_stages(section)[0].spec["data"]["values"]
    assert [v["accuracy"] for v in values if v["method"] == "n-lora"] == [90, 70]
    assert all(a["stage"] <= b["stage"] for a, b in pairwise(values[:2]))


def test_a_damaged_explanation_is_one_line(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    (out / "explain").mkdir()
    (out / "explain" / "explained.json").write_text('{"tasks": 1}')
    result = call("report", out, "--out", tmp_path / "page.html")
    assert result.exit_code == 2
    assert "explained.json is damaged" in result.stderr


def test_an_explanation_of_other_stages_is_left_out_and_that_is_told(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    directory = ModelDirectory(out)
    found = {"stages": ["colour", "animal"], "committed": committed(directory.stages())}
    found |= {"tasks": {}, "over_tasks": None, "all_tasks": {}, "free_text": {}}
    (out / "explain").mkdir()
    file = out / "explain" / "explained.json"
    file.write_text(json.dumps(found))
    of_today = gather([out])
    assert "explained" in of_today.sections[0].runs[0].row
    assert of_today.outdated == []
    before = {"stages": ["colour"], "committed": {"001-colour": "2020-01-01T00:00:00+00:00"}}
    for old in (before, {"stages": ["colour"]}):
        file.write_text(json.dumps({**{k: found[k] for k in found if k != "committed"}, **old}))
        assert "explained" not in gather([out]).sections[0].runs[0].row
    assert "is of other stages (colour); `nlora explain" in unescape(page([out]))


def test_a_task_that_was_taken_out_is_named(finished, tmp_path):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    assert call("remove", out, "colour").exit_code == 0
    assert "Not in the model any more: colour." in page([out])


def test_nothing_but_a_page_is_written_over(tmp_path, finished):
    ledger = tmp_path / "ledger.jsonl"
    write(ledger, grid(["inc-lora"], ["order-1"]))
    before = ledger.read_bytes()
    for place in (ledger, finished("inc-lora").out / "model.json"):
        done = call("report", ledger, "--out", place)
        assert done.exit_code == 2
        assert ("no page of `nlora report`" if place == ledger else "is a file of") in done.stderr
    assert ledger.read_bytes() == before
    for _ in range(2):
        assert call("report", ledger, "--out", tmp_path / "page.html").exit_code == 0


def test_a_page_of_something_else_is_not_written_over(tmp_path, finished):
    mine = tmp_path / "mine.html"
    mine.write_text("<!DOCTYPE html><title>My holidays</title>", encoding="utf-8")
    assert call("report", finished("inc-lora").out, "--out", mine).exit_code == 2
    assert "holidays" in mine.read_text(encoding="utf-8")


def test_folders_of_one_name_are_told_apart_by_as_much_as_differs(finished, tmp_path, monkeypatch):
    out = finished("inc-lora").out
    places = [shutil.copytree(out, tmp_path / "ab"[i] / "out") for i in range(2)]
    monkeypatch.chdir(shutil.copytree(out, tmp_path / "here"))
    (section,) = gather([*places, Path()]).sections
    assert section.methods == ["inc-lora (a/out)", "inc-lora (b/out)", "inc-lora (here)"]
    assert len(gather([out, out]).sections[0].runs) == 1


def test_a_stage_that_is_committed_while_a_page_reads_is_on_it_whole(
    finished, tmp_path, monkeypatch
):
    out = shutil.copytree(finished("inc-lora").out, tmp_path / "m")
    last = shutil.move(out / "stages" / "002-animal", tmp_path / "002-animal")
    whole = material.history

    def history(directory):
        if last.exists():
            shutil.move(last, out / "stages" / "002-animal")
        return whole(directory)

    monkeypatch.setattr(material, "history", history)
    (section,) = gather([out]).sections
    assert [one[0] for one in tasks_of(section.runs[0]).rows] == ["colour", "animal"]


def test_tasks_that_are_only_tested_are_in_no_mean(tmp_path):
    others = {"only_tested": {"blue": {}}, "stages": ["red", "red (2)"], "zero_shot": [20.0, 100.0]}
    rows = [row_of([[60.0, 90.0]] * 2, method=m, **others) for m in ("inc-lora", "n-lora")]
    (section,) = gather([write(tmp_path / "ledger.jsonl", rows)]).sections
    assert {v["accuracy"] for v in over_stages(section)[0].spec["data"]["values"]} == {60}
    said = " ".join(told(section))
    assert "(1 tasks, seed 0 alone)" in said
    assert "The untrained model answers 20.0 % right." in said
    alone = gather([write(tmp_path / "one.jsonl", rows[:1])]).sections[0]
    assert "answers 20.0 % of test examples right" in " ".join(told(alone))
