"""The commands that list something: tables for people, and JSON and nothing else for programs."""

import json
from typing import get_args

import pytest

from nlora.carriers.lora import Consolidation
from nlora.data.download import Download
from nlora.methods.sparsity import SparsityKind


def listed(result):
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_methods(nlora):
    found = {m["name"]: m for m in listed(nlora("methods", "--json"))}
    for name in ("inc-lora", "seq-lora", "o-lora", "n-lora", "mtl", "replay", "prog-prompt", "ns"):
        assert name in found
    assert found["prog-prompt"]["needs_task_id"]
    assert found["replay"]["needs_old_data"]
    assert found["replay"]["carrier"] == "full"
    for name, mergeable in (("n-lora", True), ("de-lora", False), ("l2p", False), ("mtl", True)):
        assert found[name]["mergeable"] is mergeable
    assert found["de-lora"]["storage_grows"]
    table = nlora("methods").stdout
    assert all(name in table for name in found)


def test_the_space_of_lora_methods_is_shown_whole(nlora):
    settings = {s["name"]: s for s in listed(nlora("methods", "inc-lora", "--json"))["settings"]}
    table = nlora("methods").stdout
    for name, values in (
        ("penalty", get_args(SparsityKind)),
        ("consolidation", get_args(Consolidation)),
        ("routing", ("none", "input", "told")),
    ):
        assert name in settings
        assert all(value in table for value in (name, *values))


def test_one_method_has_its_settings_defaults_and_paper(nlora):
    found = listed(nlora("methods", "n-lora", "--json"))
    settings = {s["name"]: s for s in found["settings"]}
    assert settings["l1"]["default"] == 0.05
    assert all(s["description"] for s in settings.values())
    text = nlora("methods", "n-lora").stdout
    for word in ("l1_unit", "learning_rate", found["paper"], "0.05"):
        assert word in text


def test_recipes(nlora):
    found = {r["name"]: r for r in listed(nlora("methods", "--recipes", "--json"))}
    assert found["n-lora-t5-large-order-1"]["stream"] == "order-1"
    assert "n-lora-t5-large-order-1" in nlora("methods", "--recipes").stdout


def test_streams(nlora):
    found = listed(nlora("streams", "--json"))
    assert found["streams"]["order-1"] == ["dbpedia", "amazon", "yahoo", "agnews"]
    assert found["datasets"]["mnli"] == "NLI/MNLI"
    assert "order-6" in nlora("streams").stdout


def test_models(nlora, monkeypatch, tmp_path):
    monkeypatch.setenv("NLORA_CACHE", str(tmp_path))
    (found,) = [m for m in listed(nlora("models", "list", "--json")) if m["name"] == "smollm2-135m"]
    assert (found["fetched"], found["path"]) == (False, None)
    assert "Apache-2.0" in nlora("models", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["smollm-135m"], "did you mean 'smollm2-135m'"), (["smollm2-135m", "--source", "x"], "hub")],
    ids=str,
)
def test_a_model_that_cannot_be_fetched_is_one_line(refused, arguments, said):
    assert said in refused("models", "fetch", *arguments)


def test_env(nlora):
    found = listed(nlora("env", "--json"))
    assert {"nlora", "torch", "transformers", "peft", "python", "platform", "cores"} <= set(found)
    assert found["torch"] in nlora("env").stdout


def test_data_check_is_quiet_about_good_data(nlora, benchmark):
    found = listed(nlora("data", "check", benchmark, "--json"))
    assert [d["name"] for d in found["datasets"]] == ["mail", "shop"]
    assert found["problems"] == []
    assert "mail" in nlora("data", "check", benchmark).stdout


def test_data_check_lists_every_problem_with_status_2(nlora, benchmark):
    (benchmark / "TC/mail/test.json").unlink()
    (benchmark / "SC/shop/labels.json").write_text("{")
    result = nlora("data", "check", benchmark, "--json")
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert any("test.json" in p for p in problems)
    assert any("labels.json" in p for p in problems)
    table = nlora("data", "check", benchmark)
    assert table.exit_code == 2
    assert table.stdout.count("problem: ") == len(problems)


def test_data_check_takes_the_folder_from_the_environment(nlora, refused, benchmark, monkeypatch):
    assert "folder" in refused("data", "check").lower()
    monkeypatch.setenv("NLORA_DATA", str(benchmark))
    assert nlora("data", "check").exit_code == 0


@pytest.mark.parametrize("total", [None, 30_000_000])
def test_data_download_says_how_far_it_is_and_what_was_left_out(
    nlora, monkeypatch, tmp_path, total
):
    def download(folder, progress):
        for done in range(0, 30_000_001, 5_000_000):
            progress(done, total)
        return Download("url", "commit", {"TC/yahoo/train.json": 3}, {}), True

    monkeypatch.setattr("nlora.data.download.download", download)
    result = nlora("data", "download", tmp_path / "data")
    assert result.exit_code == 0, result.exception
    assert "TC/yahoo/train.json: 3 rows left out" in result.stdout
    assert f"the benchmark is in {tmp_path / 'data'}" in result.stdout
    assert ("30/30" if total else "20 MB") in result.stderr
