import json

import pytest

from nlora.api.configs import configuration
from nlora.plan.config import parse_config, parse_overrides
from nlora.plan.resolve import choose
from nlora.recipes import recipe

RECIPE = "n-lora-t5-large-order-1"


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    published = recipe(RECIPE).settings
    path = tmp_path / "run.yaml"
    path.write_text("model: mine\nseed: 3\nmax_eval: 7\nsettings: {batch_size: 5, rank: 6}\n")
    asked = parse_overrides(["rank=2", "l1=1e-3"])
    values = configuration(asked, RECIPE, path, seed=4, max_train=None)
    assert values["model"] == "mine"
    assert (values["method"], values["stream"]) == ("n-lora", "order-1")  # the recipe's
    assert (values["seed"], values["max_eval"]) == (4, 7)
    assert "max_train" not in values
    assert values["settings"] == {**published, "batch_size": 5, "rank": 2, "l1": 0.001}


def test_every_level_gives_way_to_the_next(tmp_path):
    path = tmp_path / "run.yaml"
    recommended = {"lora": {"learning_rate": 0.2}}
    rates = []
    path.write_text("model: m\n")
    rates.append(choose(parse_config({"model": "m", "method": "n-lora"}, "")).run.learning_rate)
    for name, text, overrides in (
        (None, "", []),
        (RECIPE, "", []),
        (RECIPE, "settings: {learning_rate: 0.4}", []),
        (RECIPE, "settings: {learning_rate: 0.4}", ["learning_rate=0.5"]),
    ):
        path.write_text(f"model: m\n{text}\n")
        flags = {} if name else {"method": "n-lora"}
        values = configuration(parse_overrides(overrides), name, path, **flags)
        rates.append(choose(parse_config(values, ""), recommended).run.learning_rate)
    assert rates == [1e-3, 0.2, recipe(RECIPE).settings["learning_rate"], 0.4, 0.5]
    assert len(set(map(str, rates))) == 5 or rates[0] == rates[2]


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_numbers_are_numbers_in_files_and_overrides(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(f"model: m\nmethod: n-lora\nsettings:\n  l1: {text}\n")
    assert configuration(config=path)["settings"]["l1"] == 0.001
    assert configuration(parse_overrides([f"l1={text}"]))["settings"]["l1"] == 0.001


def test_the_model_json_of_a_run_is_a_configuration(tmp_path):
    asked = parse_config(
        {"model": "m", "method": "n-lora", "stream": "demo", "settings": {"l1": [0, 1e-4]}}, ""
    )
    first = choose(asked)
    stored = {**asked.model_dump(mode="json"), "settings": first.settings()}
    derived = {"format": 1, "base": {}, "tasks": ["a"], "versions": {}}
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**stored, **derived}))
    read = parse_config(configuration(config=path), "")
    assert choose(read).settings() == first.settings()
    nothing = {"settings": {}}
    assert read.model_copy(update=nothing) == asked.model_copy(update=nothing)


def test_text_that_looks_like_an_interpolation_stays_text(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: 'm'\nplugin: '/home/${USER}/p.py'\n")
    assert configuration(config=path)["plugin"] == "/home/${USER}/p.py"
