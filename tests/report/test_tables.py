"""Tables say what the rows of a ledger say."""

import csv
import io
import json
from statistics import fmean, stdev

import pytest

from nlora.errors import NloraError
from nlora.report.formats import render
from nlora.report.ledger import unpack
from nlora.report.table import Name, text
from nlora.report.tables import tables
from tests.report.rows import (
    STANDARD,
    UNTRAINED,
    cells,
    failed,
    geometry,
    grid,
    row,
    watching,
    with_geometry,
    write,
)


def test_accuracy_has_the_orders_their_average_and_what_belongs_to_it(make):
    rows = grid()
    found = cells(make(rows, "accuracy"), "n-lora")
    assert list(found) == [
        *("method", *STANDARD, "standard: average", "standard: learning", "standard: forgetting"),
        *("standard: backward", "standard: forward"),
    ]
    mine = [r for r in rows if r["cell"]["method"] == "n-lora"]
    first = [r["average_accuracy"] for r in mine if r["cell"]["stream"] == "order-1"]
    assert found["order-1"].mean == pytest.approx(fmean(first))
    assert found["order-1"].spread == pytest.approx(stdev(first))
    by_seed = [
        fmean(r["average_accuracy"] for r in mine if r["cell"]["seed"] == seed) for seed in range(3)
    ]
    assert found["standard: average"].mean == pytest.approx(fmean(by_seed))
    assert found["standard: average"].spread == pytest.approx(stdev(by_seed))
    learning = fmean(r["learning_accuracy"] for r in mine)
    assert found["standard: learning"].mean == pytest.approx(learning)


def test_both_benchmarks_and_streams_of_ones_own_stand_side_by_side(make):
    rows = grid(streams=("my-tasks", "order-4", "order-1"), seeds=(0,))
    found = make(rows, "accuracy")
    shown = [c for c in found.columns if ":" not in c]
    assert shown == ["method", "order-1", "order-4", "my-tasks"]
    assert "order-4: learning" in found.columns


def test_an_average_over_orders_needs_all_of_them(make):
    rows = grid()
    rows = [r for r in rows if r["cell"] != {"stream": "order-2", "method": "n-lora", "seed": 0}]
    found = make(rows, "accuracy")
    assert cells(found, "n-lora")["standard: average"].spread is None  # of different seeds
    rows = [r for r in rows if (r["cell"]["stream"], r["cell"]["method"]) != ("order-2", "n-lora")]
    found = make(rows, "accuracy")
    assert cells(found, "n-lora")["order-2"] is None
    assert cells(found, "n-lora")["standard: average"] is None
    assert cells(found, "inc-lora")["standard: average"] is not None


def test_the_zero_shot_row_stands_first_once_for_each_prompt(make):
    other = row("inc-lora:prompt=released", zero_shot=[10.0, 20.0, 30.0, 40.0])
    other["configuration"]["settings"]["prompt"] = "released"
    alone = row("zero-shot:chat=true", zero_shot=[1.0] * 4, **UNTRAINED)
    alone["configuration"]["settings"]["chat"] = True
    found = make([row(), other, alone], "accuracy")
    names = [text(r[0]) for r in found.rows]
    zero = ["zero-shot", "zero-shot:chat=true", "zero-shot:prompt=released"]
    assert names == [*zero, "inc-lora", "inc-lora:prompt=released"]
    assert cells(found, "zero-shot:prompt=released")["order-1"].mean == 25
    assert cells(found, "zero-shot:chat=true")["order-1"].mean == 1


def test_what_a_method_needs_is_marked_and_explained(make):
    needs = {"task_identity": True, "old_data": True, "storage": True, "adapter": "prompt"}
    rows = [row(), row("other", needs=needs)]
    for key in ("accuracy", "metrics", "differences"):
        found = make(rows, key)
        shown = render([found], "markdown")
        assert "other†‡§" in shown
        assert "inc-lora†" not in shown
        assert any(note.startswith("† prediction is told") for note in found.notes)
    assert "told the task" in cells(make(rows, "cost"), "other")["needs"]
    assert json.loads(render([make(rows, "accuracy")], "json"))[0]["rows"][-1]["method"] == "other"


def test_a_failed_cell_is_shown_with_its_error(make):
    found = make([row(), failed("n-lora", error="it broke")], "accuracy")
    assert cells(found, "n-lora")["order-1"] == "failed"
    assert "failed: n-lora on order-1, seed 0: it broke" in found.notes


def test_a_method_without_a_stage_per_task_has_no_learning_accuracy(make):
    rows = [row(), row("mtl", stages=["mtl"], learning_accuracy=None, forgetting=None)]
    rows[1]["answers"]["stages"] = rows[1]["answers"]["stages"][-1:]
    rows[1]["accuracy_matrix"] = rows[1]["accuracy_matrix"][-1:]
    assert cells(make(rows, "accuracy"), "mtl")["order-1: learning"] is None
    found = cells(make(rows, "differences"), "mtl")
    assert found["learning"] is None
    assert found["backward"] is None
    assert found["average"] is not None


def test_metrics_has_a_row_for_each_method_and_stream(make):
    found = make(grid(seeds=(0, 1), drop=0.1), "metrics")
    assert len(found.rows) == 3 * 3  # with the zero-shot rows
    shown = dict(zip(found.columns, found.rows[1], strict=True))
    assert (shown["stream"], text(shown["method"]), shown["seeds"]) == (
        "order-1",
        "inc-lora",
        "0, 1",
    )
    for name in ("average", "learning", "forgetting", "backward", "forward"):
        assert shown[name].spread is not None


def test_differences_are_those_of_the_metrics_on_the_same_runs(make):
    rows = grid(("inc-lora", "n-lora", "o-lora"))
    rows = [r for r in rows if r["cell"] != {"stream": "order-1", "method": "o-lora", "seed": 0}]
    rows[0]["tests"] = {"other": "examples"}  # inc-lora, order-1, seed 0: answers to other texts
    found = make(rows, "differences")
    by_cell = {tuple(r["cell"].values()): r for r in rows}

    def expected(method, metric):
        return fmean(
            by_cell[s, method, seed][metric] - by_cell[s, "inc-lora", seed][metric]
            for s in STANDARD
            for seed in range(3)
            if (s, seed) != ("order-1", 0)
        )

    for method in ("n-lora", "o-lora"):
        shown = cells(found, method)
        assert shown["average"].mean == pytest.approx(expected(method, "average_accuracy"))
        assert shown["learning"].mean == pytest.approx(expected(method, "learning_accuracy"))
        assert shown["backward"].mean == pytest.approx(expected(method, "backward_transfer"))
        assert shown["average"].low <= shown["average"].mean <= shown["average"].high
        assert (shown["orders"], shown["seeds"]) == (3, 3)


def test_a_task_that_is_only_tested_is_in_no_difference(make):
    rows = grid(seeds=(0,))
    watched = [watching(r, r["cell"]["method"] == "inc-lora") for r in rows]
    found = [make(some, "differences").rows for some in (rows, watched)]
    assert found[0] == found[1]
    assert None not in found[0][0]


def test_a_task_of_another_metric_than_exact_match_is_in_no_difference(make):
    """Its answers are kept as right or wrong, which its accuracy is not made of."""
    rows = grid(seeds=(0,))
    some = make(rows, "differences")
    for made in rows:
        for measured in made["accuracy_matrix"]:
            measured[0] = measured[0] and measured[0] / 2 + 10  # as ROUGE-L or F1 would have it
    found = make(rows, "differences")
    assert found.notes[1] == "without dbpedia, yahoo, whose metric is not exact match"
    others = (r["answers"]["stages"][-1] for r in rows)
    shares = [
        fmean(100 * unpack(answers[t]).mean() for t in ("amazon", "agnews")) for answers in others
    ]
    expected = fmean(theirs - ours for ours, theirs in zip(shares[:3], shares[3:], strict=True))
    assert cells(found, "n-lora")["average"].mean == pytest.approx(expected)
    assert cells(some, "n-lora")["average"].mean != pytest.approx(expected)


def test_the_task_that_is_not_learned_yet_is_found_beside_one_that_is_only_tested(make):
    rows = grid(seeds=(0,))
    plain, watched = (make(some, "metrics").rows for some in (rows, [*map(watching, rows)]))
    unseen = make(rows, "metrics").columns.index("unseen")
    trained = [[r[unseen] for r in some if text(r[1]) == "n-lora"] for some in (plain, watched)]
    assert trained[0] == trained[1]
    assert None not in trained[0]


def test_another_baseline_may_be_chosen(make):
    rows = grid(("a", "b", "c"), seeds=(0,))
    found = make(rows, "differences", baseline="b")
    assert [text(r[0]) for r in found.rows] == ["a", "c"]
    with pytest.raises(NloraError, match="unknown baseline 'bb'; did you mean 'b'"):
        make(rows, "differences", baseline="bb")


def test_marks_stand_wherever_a_method_does_and_say_what_they_mean(make):
    needs = {"task_identity": True, "old_data": False, "storage": True, "adapter": "lora"}
    rows = [*with_geometry(), row("per-task", geometry=geometry(1, 1, 1, 0.5), needs=needs)]
    for key in ("accuracy", "metrics", "orthogonality", "collisions", "ratios", "differences"):
        found = make(rows, key, baseline="o-lora")
        assert "per-task†§" in render([found], "markdown")
        assert {note[0] for note in found.notes} >= {"†", "§"}
        if key != "orthogonality":  # there methods are columns
            marks = [r.get("marks") for r in json.loads(render([found], "json"))[0]["rows"]]
            flat = list(csv.DictReader(io.StringIO(render([found], "csv"))))
            assert "†§" in marks
            assert [r["marks"] or None for r in flat] == marks


def test_rows_of_an_earlier_version_mean_the_same(make):
    today, before = row("ewc"), row("ewc")
    today["configuration"]["settings"] |= {"adapter": "lora", "routing": "task"}
    before["configuration"]["settings"] |= {"carrier": "lora", "routing": "told"}
    before["needs"]["carrier"] = before["needs"].pop("adapter")
    assert make([today], "cost").to_json() == make([before], "cost").to_json()
    assert cells(make([before], "cost"), "ewc")["adapter"] == "lora"


def test_cost_is_a_mean_over_runs(make):
    rows = grid(("inc-lora",), seeds=(0, 1))
    for r in rows:
        r["seconds_by"] = {"training": 60.0 * (1 + r["cell"]["seed"]), "evaluation": 6.0}
    found = make(rows, "cost")
    shown = cells(found, "inc-lora")
    assert shown["training (min)"].mean == pytest.approx(1.5)
    assert shown["peak memory (GB)"].mean == pytest.approx(2)
    assert any("a processor, 2 threads" in note for note in found.notes)


def test_what_is_not_alike_for_all_methods_is_said(make):
    rows = grid(("inc-lora", "n-lora"), STANDARD[:2], seeds=(0,))
    assert not [n for n in make(rows, "accuracy").notes if "same" in n]
    for r in rows:
        r["configuration"]["settings"]["epochs"] = 1 + (r["cell"]["method"] == "n-lora")
    rows[0]["configuration"]["settings"]["learning_rate"] = 0.5
    notes = make(rows, "accuracy").notes
    assert "not the same for all methods: epochs (inc-lora 1; n-lora 2)" in notes
    [said] = [n for n in notes if n.startswith("inc-lora has not the same learning_rate")]
    assert "0.5 on order-1; 0.001 on order-2" in said


def test_the_model_as_it_is_needs_no_tuning(make):
    trials = {"seed": 1000, "trials": [{"trial": 1}, {"trial": 2}]}
    found = make([row(tuning=trials), row("zero-shot", **UNTRAINED)], "accuracy")
    assert "settings chosen on dev in 2 trials for each method and stream" in found.notes


def test_models_precisions_and_budgets_are_never_mixed(make, tmp_path):
    other = row(base={"title": "another model", "revision": None})
    small = row()
    small["configuration"]["max_train"] = 5
    rounded = row()
    rounded["configuration"]["settings"]["precision"] = "bf16"
    newer = row(base={"title": "a model", "revision": "2"})
    ledger = write(tmp_path / "l.jsonl", [row(), other, small, rounded, newer])
    found = tables([ledger], ["accuracy"])
    assert len(found) == 5
    assert "another model" in found[1].title
    assert ", bf16, " in found[3].title


def test_streams_of_one_name_that_are_of_other_tasks_are_not_one(make):
    other = row("n-lora", stream="mine", seed=1)
    for place in (other["configuration"], other):
        place["tasks"] = ["red", "green"]
    other["data"] = {"red": "f", "green": "f"}
    shown = make([row(stream="mine"), other], "accuracy").columns
    assert [c for c in shown if ": " not in c] == ["method", "mine (red,blue)", "mine (red,green)"]


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_with_different_settings_are_not_averaged(make, seed):
    other = row(seed=seed)
    other["configuration"]["settings"]["learning_rate"] = 0.1
    other["hash"] = "other"
    with pytest.raises(NloraError, match=r"learning_rate 0\.001 and 0\.1") as error:
        make([row(), other], "accuracy")
    assert "\n" not in str(error.value)


def test_a_setting_that_a_row_does_not_name_is_what_it_is_without(make):
    other = row(seed=1)
    other["configuration"]["settings"]["replay"] = 0.05
    with pytest.raises(NloraError, match=r"replay 'none' and 0\.05"):
        make([row(), other], "accuracy")
    other["configuration"]["settings"]["replay"] = "none"
    make([row(), other], "accuracy")


def test_the_same_ledger_twice_counts_once(make, tmp_path):
    ledger = write(tmp_path / "l.jsonl", grid())
    again = write(tmp_path / "again.jsonl", grid())
    once, twice = (tables(paths) for paths in ([ledger], [ledger, again]))
    assert render(once, "json") == render(twice, "json")


def test_rows_that_are_dropped_are_told_with_the_reason(tmp_path, caplog):
    other = {**row(), "average_accuracy": 1.0}
    paths = [
        write(tmp_path / "l.jsonl", [failed("inc-lora"), row()]),
        write(tmp_path / "again.jsonl", [row(), other]),
    ]
    tables(paths)
    [told] = caplog.messages
    assert told.startswith("3 of 4 rows are left out:")
    assert "l.jsonl, row 1: a failed run that was done again" in told
    assert f"again.jsonl, row 1: the run of {paths[0]}, row 2 once more" in told
    assert "row 2, once more with other numbers; the first counts" in told
    caplog.clear()
    tables([write(tmp_path / "one.jsonl", [row()])])
    assert caplog.messages == []


def test_only_the_methods_asked_for(make):
    rows = grid(("inc-lora", "n-lora", "o-lora"), seeds=(0,))
    found = make(rows, "accuracy", methods=["o-lora", "n-lora"])
    assert [text(r[0]) for r in found.rows] == ["zero-shot", "n-lora", "o-lora"]
    with pytest.raises(NloraError, match="unknown method in the ledger 'nlora'; did you mean"):
        make(rows, "accuracy", methods=["nlora"])


def test_a_row_of_before_there_were_cells_has_its_tables(tmp_path):
    old = row()
    for name in ("cell", "needs", "answers", "tests", "geometry", "tuning", "seconds_by"):
        del old[name]
    del old["trainable_parameters"]
    found = {t.key: t for t in tables([write(tmp_path / "l.jsonl", [old])])}
    assert set(found) == {"accuracy", "metrics", "cost"}
    assert cells(found["accuracy"], "inc-lora")["order-1"].mean == old["average_accuracy"]


def test_accuracy_among_labels_stands_beside_where_any_run_has_it(make):
    before = grid(streams=("order-1",), seeds=(0,))
    for name in ("accuracy", "metrics"):
        assert not any("labels" in c or "list" in c for c in make(before, name).columns)
    measured = {
        "among_labels": {"zero_shot": [30.0, 50.0] * 2, "average_accuracy": 81.0},
        "off_list": {"zero_shot": [100.0, 90.0] * 2, "average": 12.5},
    }
    rows = [before[0], {**before[1], **measured}]
    found = make(rows, "accuracy")
    assert found.columns[-2:] == ["order-1: among labels", "order-1: off the list"]
    assert cells(found, "n-lora")["order-1: among labels"].mean == 81.0
    assert cells(found, "n-lora")["order-1: off the list"].mean == 12.5
    assert cells(found, "zero-shot")["order-1: among labels"] is None  # the first run's
    assert cells(found, "inc-lora")["order-1: off the list"] is None
    assert any("most likely" in note for note in found.notes)
    assert cells(make(rows[1:], "accuracy"), "zero-shot")["order-1: off the list"].mean == 95.0
    shown = make(rows, "metrics")
    assert shown.columns[-4:] == ["among labels", "off the list", "unseen", "seeds"]
    assert [row[-4].mean for row in shown.rows if row[-4] is not None] == [81.0]


def test_an_average_over_fewer_tasks_says_over_how_many(make):
    row = grid(("n-lora",), streams=("order-1",), seeds=(0,))[0]
    some = [50.0, None, 100.0, None]
    tables = {
        "among_labels": {"zero_shot": None, "accuracy_matrix": [some], "average_accuracy": 75.0},
        "off_list": {"zero_shot": None, "matrix": [some], "average": 75.0},
    }
    for name in ("accuracy", "metrics"):
        notes = make([{**row, **tables}], name).notes
        assert "among labels on order-1: over the 2 of 4 tasks that have labels" in notes
        assert "off the list on order-1: over the 2 of 4 tasks that have labels" in notes


def test_a_method_that_is_never_asked_among_labels_has_no_note_about_how_many(make):
    row = grid(("gain-lora",), streams=("order-1",), seeds=(0,))[0]
    none = {"zero_shot": None, "accuracy_matrix": [[None] * 4], "average_accuracy": None}
    notes = make([{**row, "among_labels": none}], "accuracy").notes
    assert not any("tasks that have labels" in note for note in notes)


def test_the_row_of_the_untrained_model_leaves_out_what_is_only_tested_as_others_do(make):
    row = grid(("n-lora",), streams=("order-1",), seeds=(0,))[0]
    row["zero_shot"] = [10.0, 20.0, 30.0, 100.0]
    assert cells(make([row], "accuracy"), "zero-shot")["order-1"].mean == 40.0
    row["only_tested"] = {row["tasks"][3]: {"before": 100.0, "now": 90.0, "lost": 10.0}}
    assert cells(make([row], "accuracy"), "zero-shot")["order-1"].mean == 20.0


def test_a_penalty_that_never_came_into_force_is_marked_where_two_methods_are_equal(make):
    plain, penalised = grid(("inc-lora", "n-lora"), streams=("order-1",), seeds=(0,))
    idle = {"l1": {"lambda": None, "warm_up_steps": 4}, "truncated": 0}
    penalised["notes"] = {"a": idle, "b": {"l1": {"lambda": 0.3, "warm_up_steps": 4}}}
    for name in ("accuracy", "metrics", "differences"):
        found = make([plain, penalised], name)
        marks = {text(cell) for row in found.rows for cell in row if isinstance(cell, Name)}
        assert "n-lora¶" in marks
        assert "inc-lora¶" not in marks
        [note] = [line for line in found.notes if line.startswith("¶")]
        assert "(n-lora: l1 in 1 of 2 stages)" in note
