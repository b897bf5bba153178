"""When the space fills up: the simulation agrees with the closed forms it stands beside."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from nlora.errors import NloraError
from nlora.study import exhaustion
from nlora.study.exhaustion import (
    KINDS,
    MEASURES,
    Occupancy,
    Space,
    half_used,
    of_adapters,
    simulate,
)
from tests.analysis.made import tensors, write
from tests.calling import call
from tests.runs import read_jsonl

SMALL = Space(tasks=20, size=64, rank=4, densities=(0.3, 0.05))


@pytest.fixture(scope="module")
def rows():
    return list(simulate(SMALL))


def at_the_end(rows, kind):
    return [r for r in rows if r["kind"] == kind and r["tasks"] == SMALL.tasks]


def test_independent_supports_are_as_the_closed_forms_say(rows):
    found = at_the_end(rows, "independent")
    assert [r["density"] for r in found] == [0.3, 0.05]
    for row in found:
        for measure in MEASURES:
            assert row[measure] == pytest.approx(row["closed_form"][measure], rel=0.15, abs=0.005)


def test_supports_of_large_rows_that_all_tasks_share_fill_up_sooner(rows):
    newcomer = {kind: at_the_end(rows, kind)[1]["newcomer"] for kind in KINDS}
    assert newcomer["shared rows"] > 1.1 * newcomer["independent"]
    assert newcomer["shared rows"] > newcomer["low-rank"]


def test_collisions_do_not_show_that_the_space_is_full_but_its_use_does(rows):
    found = [r for r in rows if r["kind"] == "independent" and r["density"] == 0.3]
    assert max(r["acr"] for r in found) < 1.1 * min(r["acr"] for r in found)
    assert [r["used"] for r in found] == sorted(r["used"] for r in found)
    assert found[-1]["used"] > 0.99


def test_what_each_task_adds_is_counted():
    space = Occupancy(4, density=0.5)
    space.add(np.array([0, 1]), np.array([1.0, 2.0]))
    space.add(np.array([1, 2]), np.array([4.0, 0.0]))
    found = space.row("any")
    assert {m: found[m] for m in MEASURES} == {
        "acr": 0.25,
        "used": 0.75,
        "twice": 0.25,
        "newcomer": 0.5,
        "interference": 4 / 16,
    }


def test_input_spaces_are_spanned_after_size_over_rank_tasks(rows):
    for row in (r for r in rows if r["kind"] == "input space"):
        assert row["inside"] == pytest.approx(row["closed_form"]["inside"], abs=0.15)
    assert at_the_end(rows, "input space")[-1]["inside"] == pytest.approx(1)


def test_half_used_is_the_first_checkpoint_beyond(rows):
    dense, sparse = half_used(rows)
    assert dense["closed form"] == pytest.approx(2.94, abs=0.01)
    assert dense["independent"] == 3
    assert sparse["closed form"] == pytest.approx(14.5, abs=0.1)
    assert sparse["independent"] == 20


@pytest.mark.parametrize(
    "wrong",
    [{"tasks": 1}, {"rank": 0}, {"rank": 300}, {"seed": -1}, {"spread": -1}, {"spread": math.nan}],
)
def test_a_space_that_cannot_be_is_refused(wrong):
    with pytest.raises(NloraError):
        Space(**wrong)


def exhaust(*arguments):
    return call("study", "exhaustion", *arguments)


def test_the_command_writes_the_data_and_says_what_the_figure_needs(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "new"
    told = ["--tasks", 5, "--size", 16, "--rank", 2, "--out", out]
    result = exhaust(*told, "--json")
    assert result.exit_code == 0, result.stderr
    assert "pip install 'nlora[figures]'" in result.stderr
    assert [p.name for p in out.iterdir()] == ["exhaustion.jsonl"]
    written = read_jsonl(out / "exhaustion.jsonl")
    assert [r for r in written if r["tasks"] == 5] == json.loads(result.stdout)["last"]
    assert "half of a new support" in exhaust(*told).stdout


def test_the_figure(rows, tmp_path):
    pytest.importorskip("matplotlib")
    exhaustion.draw(rows, SMALL, tmp_path / "exhaustion.png")
    assert (tmp_path / "exhaustion.png").stat().st_size > 10_000


def test_sizes_may_come_from_adapters(tmp_path):
    modules = {"model.layers.0.q_proj": (64, 64)}
    made = tensors(rank=4, modules=modules)
    scales = torch.exp(0.7 * torch.randn(64, 1, generator=torch.Generator().manual_seed(0)))
    made = {name: scales * t if "lora_B" in name else t for name, t in made.items()}
    found = of_adapters(str(write(tmp_path / "adapter", made, r=4, target_modules=["q_proj"])))
    assert found["rank"] == 4
    assert found["spread"] == pytest.approx(0.7, abs=0.15)
    assert list(found["densities"]) == sorted(found["densities"], reverse=True)
    assert Space(tasks=5, size=16, **found).densities == found["densities"]


def test_densities_that_tell_nothing_are_left_out(tmp_path):
    found = of_adapters(str(write(tmp_path / "small")))  # 6 × 8 entries, none above 3rms
    assert 0 < len(found["densities"]) < 4
    assert all(0 < density < 1 for density in found["densities"])
    assert list(half_used(list(simulate(Space(tasks=3, size=8, **found)))))
    untrained = {name: 0 * value for name, value in tensors().items()}
    with pytest.raises(NloraError, match="not trained is 0 everywhere"):
        of_adapters(str(write(tmp_path / "untrained", untrained)))


def test_an_update_without_entries_meets_nobody():
    space = Occupancy(4, density=0.1)
    space.add(np.array([0]), np.array([1.0]))
    space.add(np.array([], dtype=int), np.array([]))
    assert (space.row("any")["newcomer"], space.row("any")["interference"]) == (0, 0)
