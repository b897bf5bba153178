"""The paper's tables and figures: from a ledger, and from runs."""

import csv
import json
from pathlib import Path

import pytest

from nlora.errors import NloraError
from nlora.paper import published
from nlora.paper.artefacts import ARTEFACTS, chosen
from nlora.paper.bars import figure_1c, figure_6
from nlora.paper.explained import explained
from nlora.paper.index import write_index
from nlora.paper.make import folder_of, grids_of, write
from nlora.paper.material import material
from nlora.paper.scale import Scale, scale
from nlora.paper.tables import table_1, table_3
from nlora.report.table import Value
from nlora.study.estimate import work

LEDGER = Path(__file__).parents[2] / "docs/results/first-evidence.jsonl"


@pytest.fixture(scope="module")
def measured():
    return material([LEDGER])


def by_name(table, *keys):
    return {tuple(row[: len(keys) or 1]): row for row in table.rows}


def test_the_printed_averages_that_are_no_means_are_those_that_are_named():
    printed = {"seq-lora": (43.7, 1.6), "l2p": (60.7, 56.1), "n-lora": (78.8, 72.4)}
    for method, averages in printed.items():
        row = published.TABLE_1[method]
        means = [sum(row[s] for s in g) / 3 for g in (published.STANDARD, published.LARGE)]
        right = [abs(m - a) < 0.06 for m, a in zip(means, averages, strict=True)]
        assert right == {"seq-lora": [True, False], "l2p": [False, True]}.get(method, [True] * 2)


def test_table_1_has_ours_and_the_papers_and_shows_what_was_not_run(measured):
    ours, beside = table_1(measured)
    cells = {getattr(row[0], "label", row[0]): row[1:] for row in ours.rows}
    assert list(cells) == list(published.TABLE_1)
    assert cells["n-lora"][0].text() == "59.8 ± 1.9"
    assert cells["seq-ft"] == [None] * 8
    row = next(r for r in beside.rows if r[:2] == ["n-lora", "order-1"])
    assert [v.text() for v in row[3:]] == ["59.8 ± 1.9", "79.2", "-19.4"]
    assert not [r for r in beside.rows if r[0] == "seq-ft"]


def test_table_3_is_by_order(measured):
    ours, beside = table_3(measured)
    assert [row[0] for row in ours.rows] == ["order-1", "order-2", "order-3", "average"]
    assert {row[2] for row in beside.rows} == {"OO", "AWOM"}
    assert next(r for r in beside.rows if r[:3] == ["n-lora", "order-1", "AWOM"])[4].mean == 0.13


def test_figure_1c_sets_ratios_beside_the_papers(measured):
    rows = {row[0]: row for row in figure_1c(measured).data.rows}
    for _, o, n, ratio, _ in rows.values():
        assert ratio.mean == pytest.approx(o.mean / n.mean)
    assert rows["OO"][4] == Value(4.1)
    assert rows["AWOM"][4] is None
    assert rows["ACR 1e-3"][3].mean > rows["ACR 0.1rms"][3].mean  # shrinking is no sparsity


def test_no_penalty_is_inc_lora_at_the_same_budget_alone(measured):
    assert figure_6(measured).data.rows[0][1].text() == "60.1 ± 1.0"
    for run in measured.section.of("inc-lora"):
        run.settings["epochs"] += 1
    try:
        assert figure_6(measured).data.rows[0][1] is None
    finally:
        for run in measured.section.of("inc-lora"):
            run.settings["epochs"] -= 1


def test_what_may_explain_a_difference_is_said(measured):
    said = explained(measured, "t5-large", ["n-lora", "inc-lora"])
    assert any("the paper's is google-t5/t5-large" in line for line in said)
    assert any("384 training and 120 test" in line for line in said)
    assert any(line.startswith("n-lora: epochs 1, not 10") for line in said)
    assert any(line.startswith("inc-lora: not published") for line in said)
    assert not any("seed" in line for line in said)


@pytest.mark.parametrize("key", ["figure-1c", "figure-5"])
def test_a_figure_is_vector_text_with_its_numbers_beside_the_same_each_time(
    key, measured, tmp_path
):
    pytest.importorskip("matplotlib")
    files = [write(ARTEFACTS[key], measured, tmp_path / place) for place in ("one", "two")]
    assert [p.suffix for p in files[0]] == [".md", ".pdf", ".svg", ".png", ".csv", ".csv"]
    for one, two in zip(*files, strict=True):
        assert one.read_bytes() == two.read_bytes()
    svg = (tmp_path / f"one/{key}.svg").read_text()
    assert "<text" in svg  # can be read and searched
    rows = list(csv.DictReader((tmp_path / f"one/{key}.csv").open()))
    assert rows
    page = (tmp_path / f"one/{key}.md").read_text()
    assert f"]({key}.svg)" in page


def test_nothing_is_drawn_that_was_not_run(measured, tmp_path):
    with pytest.raises(NloraError, match="figure-2: nothing that it shows was run"):
        write(ARTEFACTS["figure-2"], measured, tmp_path)
    assert not list(tmp_path.iterdir())


def test_latex_stands_with_booktabs_and_every_row(measured, tmp_path):
    write(ARTEFACTS["table-4"], measured, tmp_path)
    text = (tmp_path / "table-4.tex").read_text()
    assert r"\toprule" in text
    assert text.count(" \\\\\n") == 1 + len(published.TABLE_4)
    assert r"o-lora+n-lora" in text


def test_a_ledger_with_two_budgets_of_one_cell_is_refused(tmp_path):
    rows = [json.loads(line) for line in LEDGER.read_text().splitlines()]
    one = next(r for r in rows if r["cell"]["method"] == "n-lora" and "error" not in r)
    other = json.loads(json.dumps(one))
    other["configuration"]["max_train"] = 99
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (one, other)))
    with pytest.raises(NloraError, match="n-lora on order-1 was run twice"):
        material([path])


def test_each_cell_has_the_recipe_of_its_order(standard):
    table = ARTEFACTS["table-4"]
    asked = Scale(model="tiny-t5", seeds=(0,), data=str(standard))
    grids = dict.fromkeys(grid.recipes for _, grid in grids_of([table], asked))
    assert [*grids] == ["t5-large"]
    streams = [stream for _, grid in grids_of([table], asked) for stream in grid.streams]
    assert tuple(streams) == published.ORDERS
    [(_, grid)] = grids_of([ARTEFACTS["table-2"]], Scale(model="m"))
    assert grid.recipes == "llama-7b"
    for _, grid in grids_of([table], Scale(model="m", recipes=None)):
        assert grid.recipes is None


def test_forgetting_is_drawn_against_how_far_the_model_moved(measured, tmp_path):
    artefact = ARTEFACTS["kl"]
    with pytest.raises(NloraError, match="kl: nothing that it shows was run"):
        write(artefact, measured, tmp_path / "none")
    ledger = tmp_path / "ledger.jsonl"
    every = [json.loads(line) for line in LEDGER.read_text().splitlines()]
    rows = [row for row in every if row["cell"]["method"] in ("seq-lora", "n-lora")][:3]
    moved = [{**row, "kl": {"own": 1.5, "earlier": 0.25}} for row in rows]
    ledger.write_text("".join(json.dumps(row) + "\n" for row in moved))
    write(artefact, material([ledger]), tmp_path / "some")
    found = list(csv.DictReader((tmp_path / "some/kl.csv").open()))
    assert {float(row["forgetting"]) for row in found} == {row["forgetting"] for row in rows}
    assert {(row["KL, own task"], row["KL, earlier tasks"]) for row in found} == {("1.5", "0.25")}


def test_what_two_artefacts_show_is_run_once_and_measured_for_both():
    asked = Scale(model="tiny-t5", seeds=(0,), max_train=6)
    grids = [g for _, g in grids_of([ARTEFACTS[k] for k in ("table-1", "kl", "figure-6")], asked)]
    pairs = [(stream, point.label) for grid in grids for stream, point in grid.pairs()]
    assert len(pairs) == len({*pairs}) == 6 * len(published.TABLE_1) + 3 * 4
    assert ("order-1", "sa") in pairs
    assert ("order-4", "sa") not in pairs
    settings = {
        (stream, point.label): grid.settings_of(stream, point)
        for grid in grids
        for stream, point in grid.pairs()
    }
    assert settings["order-1", "n-lora"]["measure_kl"] is True
    assert "measure_kl" not in settings["order-4", "n-lora"]  # which no artefact shows
    assert "measure_kl" not in settings["order-1", "mtl"]


def test_max_train_makes_it_a_trial_where_nothing_else_is_said():
    open_ = {"seeds": None, "max_eval": None, "settings": {}}
    whole = scale(max_train=None, **open_)
    assert (whole, whole.told) == (Scale(), "")
    trial = scale(max_train=64, **open_)
    assert (trial.seeds, trial.max_eval, trial.settings["epochs"]) == ((0,), 2, 1)
    assert trial.settings["ewc"] == {"fisher_examples": 4}
    assert "ewc.fisher_examples=4" in trial.told
    more = scale(max_train=64, **{**open_, "settings": {"ewc": {"fisher_examples": 9}}})
    assert more.settings["ewc"] == {"fisher_examples": 9}
    assert "64 training and 2 test examples a task, seeds 0, epochs=1" in trial.told
    asked = scale(max_train=64, max_eval=30, seeds=(1, 2), settings={"epochs": 3})
    assert (asked.seeds, asked.max_eval, asked.settings["epochs"]) == ((1, 2), 30, 3)


def test_settings_are_every_runs_or_a_methods_or_refused():
    def grids(key="table-1", **settings):
        asked = scale(seeds=None, max_train=6, max_eval=None, settings=settings, model="tiny-t5")
        return [grid for _, grid in grids_of([ARTEFACTS[key]], asked)]

    one, *_ = grids(replay=0.05)
    assert {one.settings_of("order-1", point)["replay"] for point in one.points} == {0.05}
    one, *_ = grids(**{"n-lora": {"l1": 0.1}, "peft_options": {"use_dora": True}})
    assert one.settings["n-lora"]["l1"] == 0.1
    assert one.settings["peft_options"] == {"use_dora": True}
    assert "ewc" not in grids("figure-3")[0].settings  # no method of this figure
    with pytest.raises(NloraError, match="method with settings 'nlora'; did you mean 'n-lora'"):
        grids(nlora={"l1": 0.1})


def test_a_figure_that_cannot_be_drawn_has_no_page(measured, tmp_path, monkeypatch):
    def missing(*given):
        raise NloraError("matplotlib is missing")

    monkeypatch.setattr("nlora.paper.style.save", missing)
    with pytest.raises(NloraError, match="matplotlib"):
        write(ARTEFACTS["figure-6"], measured, tmp_path)
    page = tmp_path / "figure-6.md"
    assert not page.exists()
    page.write_text("of an earlier call")
    index = write_index(tmp_path, {"figure-6": "matplotlib is missing"}).read_text()
    assert "| figure-6 | " in index
    assert "matplotlib is missing" in index


def test_what_is_missing_in_a_folder_is_listed_with_the_reason(measured, tmp_path):
    write(ARTEFACTS["table-4"], measured, tmp_path)
    said = ARTEFACTS["spectra"].missing
    assert "o-lora, n-lora on order-1, and their models" in said
    page = write_index(tmp_path, {"spectra": said}).read_text()
    assert "| [table-4](table-4.md) |" in page
    assert f"| spectra | singular values | {said} |" in page
    assert "| figure-2 | parameters of two tasks | not asked for |" in page


def test_each_model_has_a_folder_of_its_own(tmp_path):
    names = {
        (key, model): folder_of(ARTEFACTS[key].model, Scale(model=model), tmp_path).name
        for key in ("table-1", "table-2")
        for model in (None, "tiny-t5", "google-t5/t5-large", f"{tmp_path}/mine/")
    }
    assert names["table-1", None] == names["table-1", "google-t5/t5-large"] == "t5-large"
    assert names["table-1", "tiny-t5"] == "tiny-t5-for-t5-large"
    assert names["table-2", f"{tmp_path}/mine/"] == "mine-for-llama-7b"
    assert len(set(names.values())) == 7


def test_names():
    assert [a.key for a in chosen(["figure-6", "table-2"])] == ["table-2", "figure-6"]
    assert len(chosen(["all"])) == len(ARTEFACTS)
    with pytest.raises(NloraError, match="did you mean 'figure-1c'"):
        chosen(["figure-1"])


def test_what_a_run_does_is_counted_in_examples(llama, standard):
    scale = Scale(model=str(llama), recipes=None, data=str(standard), max_train=6)
    [(_, grid)] = grids_of([ARTEFACTS["figure-2"]], scale)
    plan = grid.cell("order-1", grid.points[0], 0, epochs=[1, 2, 1, 1]).plan
    # Tests: of all tasks before training, then of those learned and the next one.
    assert work(plan) == (6 * 5, 6 * (4 + 2 + 3 + 4 + 4))


def test_what_goes_with_forgetting_is_drawn_from_the_pairs_of_a_ledger(tmp_path):
    every = [json.loads(line) for line in LEDGER.read_text().splitlines()]
    rows = [r for r in every if r["cell"]["method"] in ("inc-lora", "o-lora", "sb")]
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write(ARTEFACTS["predictors"], material([ledger]), tmp_path)
    found = {row["quantity"]: row for row in csv.DictReader((tmp_path / "predictors.csv").open())}
    assert float(found["output overlap"]["ρ"]) > float(found["collision rate, 0.1rms"]["ρ"])
