import numpy as np
import pytest

from nlora.report.falls import falls
from nlora.report.runs import sections
from nlora.report.tables import tables

from .rows import row, watching, write

TASKS = ("dbpedia", "amazon", "yahoo", "agnews")


def geometry(rng, steps=False):
    """Of four updates; the numbers of each pair are told by its names."""

    def measured(value):
        return {"sum": 60 * value, "mean": value}

    pairs = [
        {"a": a, "b": b, "oo": measured(rng.random()), "inner_product": measured(-rng.random())}
        for i, a in enumerate(TASKS)
        for b in TASKS[i + 1 :]
    ]
    rates = [
        {
            **{"a": p["a"], "b": p["b"], "collision_rate": {"mean": rng.random()}},
            "opposing": None if steps else 0.5,
        }
        for p in pairs
    ]
    each = [
        {"name": t, "frobenius": measured(rng.random()), "gsr": measured(rng.random())}
        for t in TASKS
    ]
    last = {"oo": measured(1.0), "awom_input_fro": measured(1.0)}
    found = {
        "pairs": pairs,
        "per_adapter": each,
        "collisions": [{"acr": 0.5, "pairs": rates}, {"acr": 0.1, "pairs": rates}],
    }
    return {**found, "continues": {}, "last": last}


def runs(count=6):
    """Tasks fall by what was measured as OO of the pair, in points."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        made = row(seed=seed, geometry=geometry(rng))
        overlap = {(p["a"], p["b"]): p["oo"]["sum"] for p in made["geometry"]["pairs"]}
        matrix = [[50.0] + [None] * 3]
        for stage in range(1, 4):
            before = matrix[-1][:stage]
            fell = [a - overlap[TASKS[i], TASKS[stage]] / 3 for i, a in enumerate(before)]
            matrix.append([*fell, 50.0, *[None] * (3 - stage)])
        made["accuracy_matrix"] = matrix
        made["kl"] = {"matrix": [[1.0 * (i + s) for i in range(4)] for s in range(4)]}
        pair = {"a": "amazon", "b": "yahoo", "texts": 0.7, "labels": 0.0}
        made["alike"] = [pair] if seed == 0 else []
        yield made


@pytest.fixture
def ledger(tmp_path):
    return write(tmp_path / "ledger.jsonl", list(runs()))


def test_a_fall_knows_what_was_measured_of_its_pair(ledger):
    (section,) = sections([ledger])
    found = {(f.old, f.new): f for f in falls(section) if f.data == "order-1 1"}
    assert len(found) == 6
    made = list(runs())[1]
    pairs = {(p["a"], p["b"]): p for p in made["geometry"]["pairs"]}
    for names, fall in found.items():
        assert fall.measured["OO"] == pairs[names]["oo"]["sum"]
        assert fall.measured["|⟨ΔW_i, ΔW_t⟩|"] == -pairs[names]["inner_product"]["sum"]
        assert fall.fall == pytest.approx(fall.measured["OO"] / 3)
        assert fall.before == fall.measured["accuracy before"]
    of = found["amazon", "agnews"].measured
    rate = made["geometry"]["collisions"][0]["pairs"][4]["collision_rate"]["mean"]
    assert of["collision rate, 0.1rms"] == rate == 2 * of["collisions of opposite sign"]
    assert of["‖ΔW_t‖_F"] == made["geometry"]["per_adapter"][3]["frobenius"]["sum"]
    assert (of["KL on the old task"], of["KL on the new task"]) == (4.0, 6.0)
    assert of["stages since it was learned"] == 2
    # One row has told how alike the texts of these tests are, which holds for all on the same.
    assert found["amazon", "yahoo"].measured["texts alike"] == 0.7
    assert "texts alike" not in of


def test_what_was_altered_was_not_trained_and_is_no_fall(ledger, tmp_path):
    [other, *_] = runs()
    other["cell"]["method"] = "inc-lora:scale=0.5"
    other["configuration"]["settings"]["scale"] = 0.5
    path = write(tmp_path / "altered.jsonl", [*runs(), other])
    one, both = (falls(next(iter(sections([p])))) for p in (ledger, path))
    assert one == both


def test_updates_that_never_meet_never_collide_with_another_sign(tmp_path):
    [made, *_] = runs()
    for at in made["geometry"]["collisions"]:
        for pair in at["pairs"]:
            pair["collision_rate"] = {"mean": 0.0}
            pair["opposing"] = None
    (section,) = sections([write(tmp_path / "l.jsonl", [made])])
    assert {f.measured["collisions of opposite sign"] for f in falls(section)} == {0.0}


def test_a_task_that_is_only_tested_is_no_fall_and_moves_no_other(ledger, tmp_path):
    watched = write(tmp_path / "watched.jsonl", [watching(made) for made in runs()])
    one, other = (falls(next(iter(sections([path])))) for path in (ledger, watched))
    assert one == other


def test_what_falls_are_made_of_goes_with_them_and_predicts_them(ledger):
    (table,) = tables([ledger], ["predictors"])
    found = {cells[0]: dict(zip(table.columns, cells, strict=True)) for cells in table.rows}
    assert found["OO"]["ρ"].mean > 0.99
    assert found["OO"]["within a pair"].low > 0.99
    assert found["OO"]["held out"].mean > 0.9
    assert abs(found["collision rate, 1e-3"]["ρ"].mean) < 0.5
    assert (found["OO"]["falls"], found["OO"]["runs"]) == (36, 6)


def test_runs_that_cannot_lose_and_updates_that_are_no_steps_are_left_out(tmp_path):
    apart, continued, stepped, failed = runs(4)
    apart["needs"]["storage"] = True
    continued["geometry"]["continues"] = {"amazon": "dbpedia"}
    stepped["geometry"] |= {"continues": {"amazon": "dbpedia"}}
    stepped["geometry"]["steps"] = geometry(np.random.default_rng(9), steps=True)
    failed["error"] = "no luck"
    (section,) = sections([write(tmp_path / "l.jsonl", [apart, continued, stepped, failed])])
    found = falls(section)
    assert {(f.data, f.method) for f in found} == {(f"order-1 {n}", "inc-lora") for n in "12"}
    without, steps = (next(f for f in found if f.data.endswith(n)) for n in "12")
    assert "OO" not in without.measured
    assert steps.measured["OO"] == stepped["geometry"]["steps"]["pairs"][0]["oo"]["sum"]
    assert "collisions of opposite sign" not in steps.measured
