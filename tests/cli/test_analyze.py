import json

import pytest
import torch

from tests.analysis.made import PREFIX, tensors, write
from tests.calling import call


@pytest.fixture
def folders(tmp_path):
    return [str(write(tmp_path / name, tensors(i))) for i, name in enumerate(("news", "films"))]


def test_json_is_one_object_with_the_documented_keys(folders):
    result = call("analyze", *folders, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["adapters"] == ["news", "films"]
    assert report["threshold"] == "0.1rms"
    assert report["acr"] == report["pairs"][0]["collision_rate"]["mean"]
    pair = report["pairs"][0]
    assert (pair["a"], pair["b"]) == ("news", "films")
    for key in ("oo", "awom_input_fro", "awom_input_spectral", "awom_output_fro",
                "awom_output_spectral", "inner_product", "cosine"):  # fmt: skip
        assert set(pair[key]) == {"sum", "mean"}
    assert set(pair["collision_rate"]) == {"mean"}
    for row in report["per_adapter"]:
        for key in ("gsr", "nuclear_norm", "effective_rank", "l1", "frobenius"):
            assert set(row[key]) == {"sum", "mean"}


def test_the_first_of_several_thresholds_is_the_main_one(folders):
    arguments = ["analyze", *folders, "--json", "--threshold", "1e-3", "--threshold", "0.5rms"]
    report = json.loads(call(*arguments).stdout)
    assert report["threshold"] == "0.001"
    assert [c["threshold"] for c in report["collisions"]] == ["0.001", "0.5rms"]
    assert report["acr"] == report["collisions"][0]["acr"] > report["collisions"][1]["acr"]


def test_a_terminal_gets_tables_with_sizes_and_plain_words(folders):
    result = call("analyze", *folders, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    for text in (
        "news × films",
        "‖ΔW‖_F",
        "q_proj",
        "v_proj",
        "Sparsity:",
        "Collisions",
        "Keeping",
    ):
        assert text in result.stdout
    assert "films against all before it, summed over matrices: OO " in result.stdout
    assert "layers.1.self_attn.q_proj" not in result.stdout.split("Sparsity:")[0]
    every = call("analyze", *folders, "--matrices", env={"COLUMNS": "100"})
    assert "layers.1.self_attn.q_proj" in every.stdout.split("Sparsity:")[0]


def test_many_pairs_are_cut_to_the_foremost(tmp_path):
    folders = [str(write(tmp_path / f"t{i}", tensors(i))) for i in range(8)]
    result = call("analyze", *folders, env={"COLUMNS": "100"})
    assert "the first 20 of 28 pairs" in result.stdout


@pytest.mark.parametrize("damage", ["nan", "truncated", "other model", "threshold", "nowhere"])
def test_what_is_wrong_is_one_line_and_exit_status_2(tmp_path, folders, damage):
    arguments = list(folders)
    name = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
    if damage == "nan":
        write(tmp_path / "films", {**tensors(), name: torch.full((2, 8), torch.nan)})
    elif damage == "truncated":
        path = tmp_path / "films/adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "other model":
        write(tmp_path / "films", tensors(), base_model_name_or_path="x/huge")
    elif damage == "threshold":
        arguments += ["--threshold", "-1"]
    else:
        arguments += ["no/such/adapter"]
    for form in ([], ["--json"]):
        result = call("analyze", *arguments, *form)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.count("error: ") == 1
        assert "Traceback" not in result.output


def test_other_names_of_one_base_model_can_be_declared_the_same(tmp_path, folders):
    write(tmp_path / "films", tensors(), base_model_name_or_path="x/huge")
    assert call("analyze", *folders, "--same-base").exit_code == 0
