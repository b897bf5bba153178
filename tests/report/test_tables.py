"""Tables say what the rows of a ledger say."""

import csv
import io
import json
from statistics import fmean, stdev

import pytest

from nlora.errors import NloraError
from nlora.report.formats import ENDINGS, render
from nlora.report.ledger import read
from nlora.report.ledger import write as add
from nlora.report.table import Table, Value, text
from nlora.report.tables import KEYS, tables
from tests.report.rows import failed, geometry, row, write

ORDERS = ("order-1", "order-2", "order-3")


def grid(methods=("inc-lora", "n-lora"), streams=ORDERS, seeds=(0, 1, 2), **values):
    return [row(m, s, seed, **values) for m in methods for s in streams for seed in seeds]


@pytest.fixture
def make(tmp_path):
    """One table of a ledger of these rows, its rows by the first column's text."""

    def made(rows, key, **options):
        (found,) = tables([write(tmp_path / "ledger.jsonl", rows)], [key], **options)
        return found

    return made


def cells(table: Table, name: str) -> dict:
    """A row of a table by column."""
    (found,) = [r for r in table.rows if text(r[0]).rstrip("†‡§") == name]
    return dict(zip(table.columns, found, strict=True))


def test_accuracy_has_the_orders_their_average_and_what_belongs_to_it(make):
    rows = grid()
    found = cells(make(rows, "accuracy"), "n-lora")
    assert list(found) == [
        *("method", *ORDERS, "standard: average", "standard: learning", "standard: forgetting"),
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
    alone = row("zero-shot:chat=true", zero_shot=[1.0] * 4, stages=[], accuracy_matrix=[])
    alone["configuration"]["settings"]["chat"] = True
    found = make([row(), other, alone], "accuracy")
    names = [text(r[0]) for r in found.rows]
    zero = ["zero-shot", "zero-shot:chat=true", "zero-shot:prompt=released"]
    assert names == [*zero, "inc-lora", "inc-lora:prompt=released"]
    assert cells(found, "zero-shot:prompt=released")["order-1"].mean == 25
    assert cells(found, "zero-shot:chat=true")["order-1"].mean == 1


def test_what_a_method_needs_is_marked_and_explained(make):
    needs = {"task_identity": True, "old_data": True, "storage": True, "carrier": "prompt"}
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
    assert cells(make(rows, "accuracy"), "mtl")["order-1: learning"] is None
    found = cells(make(rows, "differences"), "mtl")
    assert found["learning"] is None
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


def test_differences_are_those_of_accuracy_on_the_same_runs(make):
    rows = grid(("inc-lora", "n-lora", "o-lora"))
    rows = [r for r in rows if r["cell"] != {"stream": "order-1", "method": "o-lora", "seed": 0}]
    rows[0]["tests"] = {"other": "examples"}  # inc-lora, order-1, seed 0: answers to other texts
    found = make(rows, "differences")
    by_cell = {tuple(r["cell"].values()): r for r in rows}

    def expected(method, metric):
        return fmean(
            by_cell[s, method, seed][metric] - by_cell[s, "inc-lora", seed][metric]
            for s in ORDERS
            for seed in range(3)
            if (s, seed) != ("order-1", 0)
        )

    for method in ("n-lora", "o-lora"):
        shown = cells(found, method)
        assert shown["average"].mean == pytest.approx(expected(method, "average_accuracy"))
        assert shown["learning"].mean == pytest.approx(expected(method, "learning_accuracy"))
        assert shown["average"].low <= shown["average"].mean <= shown["average"].high
        assert (shown["orders"], shown["seeds"]) == (3, 3)


def test_another_baseline_may_be_chosen(make):
    rows = grid(("a", "b", "c"), seeds=(0,))
    found = make(rows, "differences", baseline="b")
    assert [text(r[0]) for r in found.rows] == ["a", "c"]
    with pytest.raises(NloraError, match="unknown baseline 'bb'; did you mean 'b'"):
        make(rows, "differences", baseline="bb")


def with_geometry():
    many = {"o-lora": (20.0, 50.0, 1.0, 0.6), "n-lora": (4.0, 0.5, 0.1, 0.2)}
    return [row(m, s, geometry=geometry(*values)) for m, values in many.items() for s in ORDERS] + [
        row("replay", s) for s in ORDERS
    ]


def test_overlap_stands_by_order_with_the_size_of_the_updates(make):
    found = make(with_geometry(), "orthogonality")
    assert found.columns[0] == "stream"
    assert [r[0] for r in found.rows] == [*ORDERS, "average"]
    for shown in (cells(found, "order-2"), cells(found, "average")):
        assert (shown["OO o-lora"].mean, shown["OO n-lora"].mean) == pytest.approx((20, 4))
        assert (shown["AWOM o-lora"].mean, shown["AWOM n-lora"].mean) == pytest.approx((50, 0.5))
        assert shown["‖ΔW‖_F n-lora"].mean == pytest.approx(0.1)
    assert not any("replay" in column for column in found.columns)


def test_the_longer_side_of_the_overlap_runs_down(make):
    rows = [row(m, geometry=geometry(1.0, 1.0, 1.0, 0.1)) for m in "abc"]
    found = make(rows, "orthogonality")
    assert found.columns == ["method", "OO order-1", "AWOM order-1", "‖ΔW‖_F order-1"]
    assert [text(r[0]) for r in found.rows] == ["a", "b", "c"]


def test_an_adapter_that_is_continued_is_no_update_per_task(make):
    continued = {**geometry(1.0, 1.0, 1.0, 0.1), "continues": {"b": "a"}}
    rows = [*with_geometry(), row("seq-lora", geometry=continued)]
    assert "seq-lora" not in render([make(rows, "orthogonality")], "csv")


def test_ratios_are_how_many_times_lower(make):
    found = cells(make(with_geometry(), "ratios", baseline="o-lora"), "n-lora")
    names = ("ACR 0.1rms ×", "ACR 1e-3 ×", "OO ×", "AWOM ×", "‖ΔW‖_F ×", "GSR ×")
    assert [found[n].mean for n in names] == pytest.approx([3, 1, 5, 100, 10, 1])
    rows = with_geometry()
    mean = {
        m: fmean(r["average_accuracy"] for r in rows if r["cell"]["method"] == m)
        for m in ("n-lora", "o-lora")
    }
    assert found["average"].mean == pytest.approx(mean["n-lora"] - mean["o-lora"])


def met(*rates, size=0.5):
    """What a stage of sparse updates notes."""
    return {"sparse": {"collision_rates": [*rates], "matrices": {"q": {"frobenius": size}}}}


def test_collisions_stand_beside_size_and_what_is_kept_and_learned(make):
    same = {"red": met(), "blue": met(0.06, size=1.5)}
    rows = [*with_geometry(), row("sparse-masks", notes=same), row("o-lora", "order-4")]
    found = make(rows, "collisions")
    assert [text(r[0]) for r in found.rows] == ["o-lora", "n-lora", "sparse-masks"]
    shown = cells(found, "n-lora")
    names = ("ACR 0.1rms", "ACR 1e-3", "GSR", "‖ΔW‖_F")
    assert [shown[n].mean for n in names] == pytest.approx([20, 25, 0.5, 0.1])
    for name, key in (
        *(("average", "average_accuracy"), ("learning", "learning_accuracy")),
        ("forgetting", "forgetting"),
    ):
        mine = fmean(r[key] for r in rows if r["cell"]["method"] == "n-lora")
        assert shown[name].mean == pytest.approx(mine)
    shown = cells(found, "sparse-masks")
    assert [shown[n] and shown[n].mean for n in names] == pytest.approx([6, 6, None, 1.0])
    assert shown["streams"] == "order-1"


def test_marks_stand_wherever_a_method_does_and_say_what_they_mean(make):
    needs = {"task_identity": True, "old_data": False, "storage": True, "carrier": "lora"}
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
    rows = grid(("inc-lora", "n-lora"), ORDERS[:2], seeds=(0,))
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
    found = make([row(tuning=trials), row("zero-shot", stages=[])], "accuracy")
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


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_with_different_settings_are_not_averaged(make, seed):
    other = row(seed=seed)
    other["configuration"]["settings"]["learning_rate"] = 0.1
    other["hash"] = "other"
    with pytest.raises(NloraError, match=r"learning_rate 0\.001 and 0\.1") as error:
        make([row(), other], "accuracy")
    assert "\n" not in str(error.value)


def test_the_same_ledger_twice_counts_once(make, tmp_path):
    ledger = write(tmp_path / "l.jsonl", grid())
    again = write(tmp_path / "again.jsonl", grid())
    once, twice = (tables(paths) for paths in ([ledger], [ledger, again]))
    assert render(once, "json") == render(twice, "json")


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


@pytest.fixture
def every(tmp_path):
    rows = [*with_geometry(), *grid(("inc-lora",), geometry=geometry(1.0, 2.0, 3.0, 0.4))]
    found = tables([write(tmp_path / "l.jsonl", rows)])
    assert [t.key for t in found] == list(KEYS)
    return found


def test_csv_and_json_have_the_numbers_unrounded(every):
    for table in every:
        rows = list(csv.DictReader(io.StringIO(render([table], "csv"))))
        objects = json.loads(render([table], "json"))[0]["rows"]
        assert len(rows) == len(objects) == len(table.rows)
        for made, flat, whole in zip(table.rows, rows, objects, strict=True):
            for name, cell in zip(table.columns, made, strict=True):
                if isinstance(cell, Value):
                    assert float(flat[name]) == whole[name]["mean"] == cell.mean
                    if cell.spread is not None:
                        assert float(flat[f"{name} sd"]) == whole[name]["sd"] == cell.spread


def test_markdown_rows_have_a_cell_per_column(every):
    for table in every:
        lines = [line for line in render([table], "markdown").split("\n") if line[:1] == "|"]
        assert len(lines) == 2 + len(table.rows)
        assert {line.replace("\\|", "").count("|") for line in lines} == {len(table.columns) + 1}


def test_latex_is_balanced_and_escapes_what_it_must(every):
    odd = Table("odd", "100 % of a_b & c", ["x#", "y"], [["{~^\\$}", Value(1.0, 0.5)]], ["note"])
    for table in [*every, odd]:
        shown = render([table], "latex")
        body = shown.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().split("\n")
        assert len(body) == len(table.rows)
        for line in body:
            assert line.replace(r"\&", "").count("&") == len(table.columns) - 1
            assert line.endswith(r" \\")
        assert shown.replace(r"\{", "").count("{") == shown.replace(r"\}", "").count("}")
        assert shown.replace(r"\$", "").count("$") % 2 == 0
        assert all(ord(letter) < 128 for letter in shown), [c for c in shown if ord(c) > 127]
    assert r"100 \% of a\_b \& c" in shown
    assert r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\$\}" in shown


@pytest.mark.parametrize("form", ENDINGS)
def test_several_tables_come_one_after_another(every, form):
    shown = render(every, form)
    assert all(table.title.split(".")[0] in shown for table in every)


def test_the_minus_of_a_zero_is_not_shown():
    assert Value(-0.01, form="+.1f").text() == "+0.0"
    assert Value(-0.01).text() == "0.0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{\n", r"line 1: not valid JSON"),
        (b"\n[1]\n", r"line 2: not a row of a ledger"),
        (b'{"value": 1}\n', r"line 1: not a row of a ledger"),
        (b"\xff\n", "not UTF-8"),
        (b"", "no runs"),
    ],
    ids=str,
)
def test_what_is_no_ledger_is_one_line(tmp_path, content, said):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(content)
    with pytest.raises(NloraError, match=said) as error:
        tables([path])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_is_added_once_and_takes_the_place_of_a_failure(tmp_path):
    path = tmp_path / "ledger.jsonl"
    odd = row("n-lora", notes="a\u2028b")
    add(path, failed("inc-lora"))
    add(path, odd)
    add(path, row("inc-lora"))
    add(path, row("inc-lora"))
    assert read(path) == [odd, row("inc-lora")]
