"""The recipes have the published numbers."""

import pytest

from nlora.errors import NloraError
from nlora.recipes import fitting, published_for, recipe, recipes

# Section 7.5 of the N-LoRA paper: order -> epochs, batch size, learning rate, λ.
T5_LARGE = {
    1: (10, 32, 1e-3, 0.4),
    2: (10, 32, 1e-3, 0.4),
    3: (10, 32, 1e-3, 0.4),
    4: (
        10,
        32,
        5e-4,
        {
            "mnli": 0.4,
            "cb": 0.4,
            "wic": 1.2,
            "copa": 0.4,
            "qqp": 0.4,
            "boolqa": 0.4,
            "rte": 1.2,
            "imdb": 1.2,
            "yelp": 1.2,
            "amazon": 0.4,
            "sst-2": 1.2,
            "dbpedia": 1.2,
            "agnews": 0.4,
            "multirc": 0.4,
            "yahoo": 1.2,
        },
    ),
    5: (10, 32, 8e-4, 0.55),
    6: (10, 32, 1e-3, 1.8),
}
LLAMA_7B = {
    1: ([1, 10, 1, 1], 4, [1e-3, 1e-4, 1e-4, 1e-4], 0.46),
    2: ([1, 5, 1, 1], 4, [1e-4, 5e-5, 5e-5, 5e-5], 0.38),
    3: ([5, 10, 1, 1], 4, 1e-4, 0.4),
}
PUBLISHED = {
    f"n-lora-{model}-order-{order}": values
    for model, rows in (("t5-large", T5_LARGE), ("llama-7b", LLAMA_7B))
    for order, values in rows.items()
}
# Of O-LoRA's code: order 6 (λ₁, λ₂ by task).
LONG = {
    "yelp": (0, 0),
    "amazon": (0.5, 0),
    "mnli": (0.5, 0),
    "cb": (0.5, 0),
    "copa": (0.5, 0.1),
    "qqp": (0.5, 0.1),
    "rte": (0.5, 0.3),
    "imdb": (0.5, 0),
    "sst-2": (0.5, 0.1),
    "dbpedia": (5, 0),
    "agnews": (5, 0),
    "yahoo": (5, 0.1),
    "multirc": (5, 0),
    "boolqa": (5, 0.1),
    "wic": (5, 0.3),
}
LORA = {"rank": 8, "alpha": 32, "dropout": 0.1}
RELEASED = {"prompt": "released", "precision": "fp32"}
MODELS = ("t5-large", "llama-7b")


@pytest.mark.parametrize("name", PUBLISHED)
def test_n_lora_has_every_value_of_section_7_5_and_the_penalty_that_they_are_for(name):
    epochs, batch_size, learning_rate, l1 = PUBLISHED[name]
    large = "t5-large" in name
    assert recipe(name).unpublished == {}
    assert recipe(name).published == {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": 0,
        **LORA,
        **(RELEASED if large else {"prompt": "released"}),
        "penalty": "released",
        "l1": list(l1.values()) if isinstance(l1, dict) else l1,
        "l1_unit": "sum",
    }
    assert "released r×r penalty" in recipe(name).description


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("model", MODELS)
def test_o_lora_has_the_released_settings(model, order):
    assert recipe(f"o-lora-{model}-order-{order}").settings == {
        "epochs": 1,
        "batch_size": 8 * 8 if model == "t5-large" else 1 * 8 * 8,  # per GPU, steps, GPUs
        "learning_rate": 1e-3 if model == "t5-large" else [1e-3, 1e-4, 1e-4, 1e-4],
        "weight_decay": 0,
        **LORA,
        "orthogonality": "entrywise",
        "orthogonality_weight": 0.5,
        "norm_weight": 0,
    }


def test_o_lora_on_order_6_has_a_weight_for_each_task():
    assert recipe("o-lora-t5-large-order-6").settings == {
        "epochs": [2 if task == "mnli" else 1 for task in LONG],
        "batch_size": 8 * 8,
        "learning_rate": 1e-3,
        "weight_decay": 0,
        **LORA,
        "orthogonality": "entrywise",
        "orthogonality_weight": [overlap for overlap, _ in LONG.values()],
        "norm_weight": [norm for _, norm in LONG.values()],
    }


@pytest.mark.parametrize("order", [4, 5])
def test_what_o_lora_does_not_publish_is_named_and_filled(order):
    found = recipe(f"o-lora-t5-large-order-{order}")
    assert found.published == {**LORA, "orthogonality": "entrywise"}
    first = recipe("o-lora-t5-large-order-1").settings
    assert found.unpublished == {k: v for k, v in first.items() if k not in found.published}
    assert "not given" in found.description


def test_values_per_task_stand_in_the_order_of_the_stream():
    from nlora.data.streams import ORDERS

    assert list(T5_LARGE[4][3]) == list(ORDERS["order-4"])
    assert list(LONG) == list(ORDERS["order-6"])
    for found in recipes().values():
        for key, value in found.settings.items():
            if isinstance(value, list):
                assert len(value) == len(ORDERS[found.stream]), (found.name, key)


def test_every_cell_of_the_tables_has_a_recipe():
    from nlora.paper.published import TABLE_1, TABLE_2, TABLE_4

    for model, table in (("t5-large", TABLE_1), ("t5-base", TABLE_4), ("llama-7b", TABLE_2)):
        for method, row in table.items():
            for stream in row:
                found = fitting(method, stream, model)
                assert found is not None, (method, stream, model)
                assert found.name == f"{method}-{model}-{stream}"
                assert found.source


def test_nothing_is_published_for_t5_base():
    large, base = recipe("n-lora-t5-large-order-6"), recipe("n-lora-t5-base-order-6")
    assert base.published == {}
    assert base.settings == large.settings
    assert "T5-base" in base.description


def test_the_model_whose_recipes_are_meant():
    assert published_for("auto", "huggyllama/llama-7b") == "llama-7b"
    assert published_for("t5-large", "smollm2-135m") == "t5-large"
    for asked, model in (("auto", "smollm2-135m"), ("t5-lrge", "tiny-t5")):
        with pytest.raises(NloraError, match="t5-large"):
            published_for(asked, model)


@pytest.mark.parametrize("name", [name for name in recipes() if "base" not in name])
def test_a_recipe_is_a_valid_configuration_that_changes_nothing_it_says(name):
    from nlora.plan.config import RunConfig
    from nlora.plan.resolve import choose

    found = recipe(name)
    config = RunConfig(model=found.paper_model, method=found.method, settings=found.settings)
    resolved = choose(config).settings()
    assert {key: resolved[key] for key in found.settings} == found.settings


def test_an_unknown_recipe_gives_the_nearest():
    with pytest.raises(NloraError, match=r"unknown recipe.*'n-lora-t5-large-order-1'"):
        recipe("n-lora-t5-large-order1")
    with pytest.raises(NloraError, match=r"^unknown recipe 't5-large'; `nlora methods --recipes`"):
        recipe("t5-large")  # a model is named to `compare` alone
