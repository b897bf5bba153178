import math

import pytest

from nlora.backbones.catalog import BUILT_IN
from nlora.errors import NloraError
from nlora.methods.registry import methods
from nlora.plan.config import RunConfig, parse_config, parse_overrides
from nlora.plan.resolve import choose


def asked(method="inc-lora", **settings):
    return RunConfig(model="m", method=method, settings=settings)


def test_overrides_are_numbers_lists_and_null():
    texts = ["l1=1e-3", "epochs=[1,10]", "learning_rate=[1e-3,0.5]", "max_text_tokens=null"]
    found = parse_overrides([*texts, "prompt=released", "rank=4", "chat=true"])
    assert found == {
        "l1": 0.001,
        "epochs": [1, 10],
        "learning_rate": [0.001, 0.5],
        "max_text_tokens": None,
        "prompt": "released",
        "rank": 4,
        "chat": True,
    }
    assert isinstance(found["l1"], float)


@pytest.mark.parametrize("text", ["rank", "=4", "rank=[4"])
def test_an_override_that_cannot_be_read_is_one_line(text):
    with pytest.raises(NloraError, match="--set") as error:
        parse_overrides([text])
    assert "\n" not in str(error.value)


def test_the_later_of_two_overrides_wins():
    assert parse_overrides(["rank=4", "rank=2"]) == {"rank": 2}


def test_defaults_give_way_to_the_models_and_these_to_the_users():
    recommended = {"lora": {"learning_rate": 2e-3}, "full": {"learning_rate": 5e-6}}
    prompt = {"prompt": {"learning_rate": 0.1}}
    assert choose(asked()).run.learning_rate == 1e-3
    assert choose(asked(), recommended).run.learning_rate == 2e-3
    assert choose(asked(learning_rate=3e-3), recommended).run.learning_rate == 3e-3
    # the default of an adapter and that of a method's paper are defaults too
    assert choose(asked("replay")).run.learning_rate < 1e-3
    assert choose(asked("replay"), recommended).run.learning_rate == 5e-6
    assert choose(asked("replay", adapter="lora"), recommended).run.learning_rate == 2e-3
    assert choose(asked("prog-prompt")).run.learning_rate == 0.3
    assert choose(asked("prog-prompt"), prompt).run.learning_rate == 0.1


@pytest.mark.parametrize("model", BUILT_IN)
def test_what_a_model_recommends_gives_all_methods_the_same_budget(model):
    """Or a comparison would be between budgets."""
    recommended = BUILT_IN[model].recommended
    plans = [choose(RunConfig(model=model, method=name), recommended).run for name in methods()]
    budget = ("epochs", "batch_size", "max_length", "max_text_tokens", "max_new_tokens")
    assert len({tuple(getattr(run, name) for name in budget) for run in plans}) == 1


def test_run_settings_have_the_documented_defaults():
    run = choose(asked()).run
    assert (run.epochs, run.batch_size, run.learning_rate) == (1, 16, 1e-3)
    assert (run.schedule, run.weight_decay, run.max_length) == ("constant", 0, 512)
    assert (run.rank, run.alpha, run.dropout) == (8, 32, 0.1)
    assert (run.max_text_tokens, run.target_modules, run.prompt) == (None, None, "paper")


def test_all_settings_as_resolved_build_the_same_plan():
    first = choose(asked("n-lora", l1=[0, 0.1], epochs=[1, 2], target_modules=["q_proj"]))
    again = choose(asked("n-lora", **first.settings()))
    assert again.settings() == first.settings()


@pytest.mark.parametrize(
    ("method", "setting", "near"),
    [
        ("inc-lora", "lerning_rate", "learning_rate"),
        ("n-lora", "l1unit", "l1_unit"),
        ("replay", "bufer", "buffer"),
    ],
)
def test_an_unknown_setting_is_named_with_the_nearest(method, setting, near):
    with pytest.raises(NloraError, match=f"'{setting}'; did you mean '{near}'"):
        choose(asked(method, **{setting: 1}))


def test_a_setting_of_another_method_is_unknown():
    with pytest.raises(NloraError, match="setting of inc-lora 'buffer'"):
        choose(asked(buffer=0.1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("learning_rate", v)
            for v in (-1e-3, "fast", [1e-3, -1], math.nan, math.inf, 1e38, None)
        ],
        *[("batch_size", 10**20), ("alpha", math.inf), ("weight_decay", math.inf)],
        *[("epochs", v) for v in (0, 1.5, -1, [1, 0], "many")],
        *[("l1", v) for v in (-0.1, "x", math.nan)],
        *[("batch_size", 0), ("rank", -4), ("rank", "x"), ("dropout", 1), ("weight_decay", -1)],
        *[("prompt", "papper"), ("schedule", "cosin"), ("precision", "fp8")],
    ],
)
def test_a_bad_value_is_one_line_with_setting_and_value(name, value):
    with pytest.raises(NloraError) as error:
        choose(asked("n-lora", **{name: value}))
    assert f"setting '{name}'" in str(error.value)
    assert repr(value) in str(error.value) or isinstance(value, list)
    assert "\n" not in str(error.value)


def test_micro_batches_must_divide_the_batch():
    with pytest.raises(NloraError, match="accumulation"):
        choose(asked(batch_size=16, accumulation=3))
    assert choose(asked(batch_size=16, accumulation=4)).run.accumulation == 4


def test_lists_must_have_as_many_values_as_the_method_has_stages():
    made = choose(asked("n-lora", l1=[0, 0.1, 0.2], target_modules=["q_proj"]))
    made.check_lists(3)
    made.check_lists(2, exactly=False)
    for stages, exactly in ((2, True), (4, True), (4, False)):
        with pytest.raises(NloraError, match="'l1' lists 3 values"):
            made.check_lists(stages, exactly)
    choose(asked("n-lora", l1=0.1)).check_lists(99)


@pytest.mark.parametrize(
    ("method", "name"),
    [*[("n-lora", n) for n in ("epochs", "l1", "max_kl")], ("osf", "effective_rank")],
)
def test_a_list_of_no_values_is_refused(method, name):
    with pytest.raises(NloraError, match=f"'{name}' lists 0 values"):
        choose(asked(method, **{name: []}))


def test_an_unknown_key_is_named_with_the_nearest():
    with pytest.raises(NloraError, match=r"run\.yaml.*'modle'; did you mean 'model'"):
        parse_config({"modle": "m", "method": "inc-lora"}, "run.yaml")


@pytest.mark.parametrize(
    "values",
    [
        {"seed": -1},
        {"seed": "x"},
        {"max_train": 0},
        {"max_eval": -2},
        {"evaluate": "everything"},
        {"settings": [1]},
        {"model": None},
        {"stream": 3},
    ],
)
def test_a_bad_key_is_one_line(values):
    with pytest.raises(NloraError, match=f"'{next(iter(values))}'") as error:
        parse_config({"model": "m", "method": "inc-lora", **values}, "run.yaml")
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named():
    with pytest.raises(NloraError, match=r"run\.yaml.*'method'"):
        parse_config({"model": "m"}, "run.yaml")


def test_paths_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    found = RunConfig(model="my-model", method="m", stream="mine.yaml", data="data", plugin="p.py")
    assert found.model == str(tmp_path / "my-model")
    assert found.stream == str(tmp_path / "mine.yaml")
    assert found.data == str(tmp_path / "data")
    assert found.plugin == str(tmp_path / "p.py")


def test_names_stay_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2-135m").mkdir()  # the built-in name wins over the folder
    found = RunConfig(model="smollm2-135m", method="m", stream="order-1")
    assert (found.model, found.stream) == ("smollm2-135m", "order-1")
    assert RunConfig(model="some/model", method="m", stream="agnews,yelp").model == "some/model"


def test_off_is_the_word_and_not_yaml_s_false():
    settings = parse_overrides(["shared_prefix=off"])
    run = choose(RunConfig(model="m", method="inc-lora", settings=settings)).run
    assert run.shared_prefix == "off"
