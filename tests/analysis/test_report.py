import itertools
import json

import pytest
import torch

from nlora.analysis.adapters import read_adapters
from nlora.analysis.report import analyse, layer_kinds
from nlora.analysis.steps import steps
from nlora.lowrank.supports import Threshold

from .made import MODULES, tensors, write

THRESHOLDS = [Threshold.parse(text) for text in ("0.1rms", "1rms", "0.5")]


@pytest.fixture
def adapters(tmp_path):
    """Three adapters of different ranks; the second collides with the first in all it does."""
    write(tmp_path / "a", tensors(0))
    write(tmp_path / "b", {k: v * (3 if "lora_A" in k else 1) for k, v in tensors(0).items()})
    write(tmp_path / "c", tensors(2, rank=5), r=5, use_rslora=True)
    return read_adapters([str(tmp_path / name) for name in "abc"])


def dense(adapter, module):
    return adapter.factors(module).delta().double()


def expected(x, y, A, B):
    """The measures of one matrix by their definitions."""
    inner = float((x * y).sum())
    return {
        "oo": float((A @ B.T).norm() ** 2),
        "awom_input_fro": float((x @ y.T).norm()),
        "awom_input_spectral": float(torch.linalg.matrix_norm(x @ y.T, 2)),
        "awom_output_fro": float((x.T @ y).norm()),
        "awom_output_spectral": float(torch.linalg.matrix_norm(x.T @ y, 2)),
        "inner_product": inner,
        "cosine": inner / float(x.norm() * y.norm()),
        "entry_overlap": float((x * y).square().sum()),
    }


def test_the_report_holds_sums_and_means_over_matrices(adapters):
    report = analyse(adapters, THRESHOLDS)
    assert report["adapters"] == ["a", "b", "c"]
    assert report["threshold"] == "0.1rms"
    assert [(p["a"], p["b"]) for p in report["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    by_name = {a.name: a for a in adapters}
    for pair in report["pairs"]:
        a, b = by_name[pair["a"]], by_name[pair["b"]]
        each = [
            expected(dense(a, m), dense(b, m), a.factors(m).A.double(), b.factors(m).A.double())
            for m in MODULES
        ]
        for key in each[0]:
            total = sum(values[key] for values in each)
            assert pair[key]["sum"] == pytest.approx(total, rel=1e-5, abs=1e-9), key
            assert pair[key]["mean"] == pytest.approx(total / 4, rel=1e-5, abs=1e-9), key
        rates = [
            float(((above(dense(a, m), 0.1)) & (above(dense(b, m), 0.1))).double().mean())
            for m in MODULES
        ]
        assert pair["collision_rate"] == {"mean": pytest.approx(sum(rates) / 4)}
    for adapter, row in zip(adapters, report["per_adapter"], strict=True):
        each = [dense(adapter, m) for m in MODULES]
        total = {
            "gsr": sum(float(x.abs().sum() / x.norm() / x.numel() ** 0.5) for x in each),
            "nuclear_norm": sum(float(torch.linalg.svdvals(x).sum()) for x in each),
            "effective_rank": sum(effective_rank(x) for x in each),
            "l1": sum(float(x.abs().sum()) for x in each),
            "frobenius": sum(float(x.norm()) for x in each),
            "spectral_norm": sum(float(torch.linalg.svdvals(x)[0]) for x in each),
        }
        for key, value in total.items():
            assert row[key]["sum"] == pytest.approx(value, rel=1e-5), key
            assert row[key]["mean"] == pytest.approx(value / 4, rel=1e-5), key
    rates = [p["collision_rate"]["mean"] for p in report["pairs"]]
    assert report["acr"] == pytest.approx(sum(rates) / 3)


def test_the_step_of_an_update_that_goes_on_is_the_difference(adapters):
    a, b, c = adapters
    b.continues = "a"
    one, step, other = steps(adapters)
    assert (one, other, step.name, step.shapes) == (a, c, "b", b.shapes)
    for module in MODULES:
        change = step.factors(module).delta().double()
        torch.testing.assert_close(
            change, dense(b, module) - dense(a, module), rtol=1e-5, atol=1e-6
        )
    sizes = analyse([one, step], THRESHOLDS)["per_adapter"]
    assert sizes[1]["frobenius"]["sum"] == pytest.approx(2 * sizes[0]["frobenius"]["sum"])


def above(x, share):
    return x.abs() > share * x.square().mean().sqrt()


def effective_rank(x):
    shares = torch.linalg.svdvals(x)
    shares = shares[shares > 1e-6 * shares[0]] / shares.sum()
    return float((-(shares * shares.log()).sum()).exp())


def test_the_last_adapter_against_all_before_it_is_table_3(adapters):
    report = analyse(adapters, THRESHOLDS)
    assert report["last"]["adapter"] == "c"
    for key in ("oo", "awom_input_fro", "awom_output_spectral"):
        earlier = [p[key]["sum"] for p in report["pairs"] if p["b"] == "c"]
        assert report["last"][key]["sum"] == pytest.approx(sum(earlier))
        assert report["last"][key]["mean"] == pytest.approx(sum(earlier) / len(MODULES))


def test_every_threshold_has_its_own_collisions(adapters):
    report = analyse(adapters, THRESHOLDS)
    assert [c["threshold"] for c in report["collisions"]] == ["0.1rms", "1rms", "0.5"]
    first, second, absolute = report["collisions"]
    assert first["acr"] == report["acr"] > second["acr"] > 0
    ab = first["pairs"][0]
    assert ab["collision_rate"] == report["pairs"][0]["collision_rate"]
    # b is three times a: at a relative threshold they have one support, and never oppose.
    assert first["density"][0] == first["density"][1] == ab["collision_rate"]["mean"]
    assert ab["opposing"] == 0
    assert ab["lift"] == pytest.approx(ab["collision_rate"]["mean"] / ab["expected"]["mean"])
    assert absolute["density"][0] < absolute["density"][1]
    assert first["used_by_at_least"] == sorted(first["used_by_at_least"], reverse=True)
    assert len(first["used_by_at_least"]) == 3


def test_kinds_and_matrices_add_up_to_the_whole(adapters):
    report = analyse(adapters, THRESHOLDS, every_matrix=True)
    assert list(report["kinds"]) == ["q_proj", "v_proj"]
    assert list(report["by_matrix"]) == list(MODULES)
    for parts in (report["kinds"].values(), report["by_matrix"].values()):
        parts = list(parts)
        assert sum(p["matrices"] for p in parts) == report["matrices"] == 4
        total = sum(p["pairs"][1]["oo"]["sum"] for p in parts)
        assert total == pytest.approx(report["pairs"][1]["oo"]["sum"])
        weighted = sum(p["acr"] * p["matrices"] for p in parts) / 4
        assert weighted == pytest.approx(report["acr"])
    most = max(report["by_matrix"], key=lambda m: report["by_matrix"][m]["acr"])
    assert report["most_colliding"][0]["matrix"] == most
    assert "by_matrix" not in analyse(adapters, THRESHOLDS)


def test_zero_updates_make_numbers_and_valid_json(tmp_path):
    zero = {k: 0 * v if "lora_B" in k else v for k, v in tensors().items()}
    folders = [write(tmp_path / "a", zero), write(tmp_path / "b", zero), write(tmp_path / "c")]
    report = analyse(read_adapters([str(f) for f in folders]), THRESHOLDS)
    text = json.dumps(report, allow_nan=False)
    assert report["per_adapter"][0]["effective_rank"] == {"sum": 0.0, "mean": 0.0}
    assert report["pairs"][0]["cosine"]["mean"] == report["acr"] == 0
    assert report["collisions"][0]["pairs"][0]["lift"] is None
    assert "null" in text


def test_one_adapter_alone_has_sizes_but_no_pairs(tmp_path):
    report = analyse(read_adapters([str(write(tmp_path / "a"))]), THRESHOLDS)
    json.dumps(report, allow_nan=False)
    assert report["pairs"] == []
    assert report["acr"] is None
    assert report["last"] is None
    assert report["per_adapter"][0]["frobenius"]["mean"] > 0


def test_every_file_is_read_once(adapters):
    asked = []
    for adapter in adapters:
        read = adapter.factors
        adapter.factors = lambda m, read=read, name=adapter.name: asked.append((name, m)) or read(m)
    ticks = []
    analyse(adapters, THRESHOLDS, advance=lambda: ticks.append(1))
    assert sorted(asked) == sorted(itertools.product("abc", MODULES))
    assert len(ticks) == len(MODULES)


def test_kinds_of_layers_are_told_by_name():
    names = [
        "encoder.block.0.layer.0.SelfAttention.q",
        "decoder.block.11.layer.0.SelfAttention.q",
        "decoder.block.11.layer.1.EncDecAttention.v",
    ]
    assert list(layer_kinds(names).values()) == [
        "encoder.block.layer.SelfAttention.q",
        "decoder.block.layer.SelfAttention.q",
        "decoder.block.layer.EncDecAttention.v",
    ]
    assert layer_kinds(["h.0.c_attn", "h.1.c_attn"]) == {
        "h.0.c_attn": "c_attn",
        "h.1.c_attn": "c_attn",
    }
    assert layer_kinds(["q"]) == {"q": "q"}
