"""Ten families of different build do all that the sweep over every family asks of them."""

import json

import pytest
from benchmarks.families import check
from benchmarks.tiny_families import shrunk

FAMILIES = [
    "phi",  # PEFT would adapt its MLP
    "phi3",  # one fused projection
    "qwen3_moe",  # experts
    "gpt_oss",  # sliding windows and sinks
    "deepseek_v3",  # compressed projections
    "gemma3",  # beside a tower for pictures
    "lfm2",  # convolutions between attentions
    "bert",  # reads in both directions unless told not to
    "xlm",  # its cache takes no mask of the whole
    "pegasus",  # an encoder, and positions that are computed
]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_goes_on_routes_predicts_is_exported_and_analysed(family, tmp_path):
    row = {}
    check(family, tmp_path, row)
    assert row["step"] is None
    record = json.loads((tmp_path / "n-lora/stages/001-colour/stage.json").read_text())
    chosen = record["notes"]["adapted"]
    assert chosen["modules"]
    assert chosen["reason"]


def test_a_configuration_is_made_small_with_every_kind_of_its_layers():
    kinds = ["sliding", "sliding", "full"] * 10
    made = shrunk({"hidden_size": 4096, "num_hidden_layers": 30, "layer_types": kinds})
    assert (made["hidden_size"], made["num_hidden_layers"]) == (32, 2)
    assert made["layer_types"] == ["sliding", "full"]
