"""What is asked of a comparison, before anything runs."""

import json
from types import SimpleNamespace

import pytest
import yaml

from nlora.errors import NloraError
from nlora.plan.config import RunConfig
from nlora.plan.points import parse_points
from nlora.plan.resolve import choose, resolve
from nlora.study import grid as grids
from nlora.study import output, tune
from nlora.study.grid import Grid, parse_seeds, stream_name
from nlora.study.share import shared
from nlora.study.worker import on_dev
from tests.runs import tree, write_stream
from tests.tiny import task


def grid(model="m", streams=("demo",), methods="inc-lora", **values) -> Grid:
    return Grid(model=str(model), streams=streams, points=parse_points([methods]), **values)


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_methods_may_have_settings_of_their_own():
    text = "n-lora, inc-lora:routing=input,consolidation=largest,o-lora:l1=[0.1,0.2],penalty=l1"
    points = parse_points([text, "mtl"])
    assert [(p.label, p.method, p.settings) for p in points] == [
        ("n-lora", "n-lora", {}),
        (
            "inc-lora:routing=input,consolidation=largest",
            "inc-lora",
            {"routing": "input", "consolidation": "largest"},
        ),
        ("o-lora:l1=[0.1,0.2],penalty=l1", "o-lora", {"l1": [0.1, 0.2], "penalty": "l1"}),
        ("mtl", "mtl", {}),
    ]


def test_all_is_every_method():
    from nlora.methods.registry import methods

    assert [p.label for p in parse_points(["all"])] == list(methods())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inc-lora,nlora", "unknown method 'nlora'; did you mean 'n-lora'"),
        ("inc-lora,rank=4", "unknown method 'rank=4'"),
        ("inc-lora:routing", "after the colon come settings, KEY=VALUE"),
        ("", "unknown method ''"),
    ],
)
def test_a_misspelt_method_is_one_line(text, said):
    with pytest.raises(NloraError) as error:
        parse_points([text])
    assert said in one_line(error)


@pytest.mark.parametrize("text", ["", "1,", "a", "-1", "1.5", "0;1"])
def test_seeds_are_numbers(text):
    with pytest.raises(NloraError, match="--seeds takes numbers"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"streams": ("demo", "Demo")}, "stream 'demo' is named twice"),
        ({"methods": "inc-lora,inc-lora"}, "method 'inc-lora' is named twice"),
        ({"seeds": (1, 1)}, "seed '1' is named twice"),
        ({"streams": ("a/x.yaml", "b/x.yaml")}, "stream 'x' is named twice"),
        ({"settings": {"nlora": {"l1": 1}}}, "unknown method with settings 'nlora'"),
        ({"streams": ()}, "needs a stream"),
    ],
    ids=str,
)
def test_what_cannot_be_told_apart_is_refused(values, said):
    with pytest.raises(NloraError) as error:
        grid(**values)
    assert said in one_line(error)


def test_settings_of_a_cell_win_over_its_methods_and_these_over_the_common():
    asked = grid(
        methods="n-lora:l1=3,inc-lora,n-lora",
        settings={"rank": 4, "dropout": 0.5, "n-lora": {"l1": 2, "rank": 2}},
    )
    settings = [asked.settings_of("order-1", point) for point in asked.points]
    assert settings == [
        {"rank": 2, "dropout": 0.5, "l1": 3},
        {"rank": 4, "dropout": 0.5},
        {"rank": 2, "dropout": 0.5, "l1": 2},
    ]


def test_every_cell_has_a_folder_fit_for_any_system(tmp_path, monkeypatch):
    asked = grid(methods="inc-lora:routing=input,target_modules=[q,v]", streams=("a, b",))
    monkeypatch.setattr(
        grids, "resolve", lambda config, tasks, base: SimpleNamespace(config=config)
    )
    monkeypatch.setattr(Grid, "tasks", {"a,b": []})
    monkeypatch.setattr(Grid, "base", None)
    cell = asked.cell("a, b", asked.points[0], 3)
    assert cell.name == "a,b/inc-lora,routing=input,target_modules=-q,v-/seed-3"
    assert cell.plan.config.evaluate == "next"
    assert stream_name(str(write_stream(tmp_path))) == "stream"


@pytest.fixture
def files(llama, tmp_path):
    """Streams that begin with the same tasks, and grids over them."""
    stream = write_stream(tmp_path)

    def made(methods="inc-lora", **values):
        return grid(llama, (str(stream),), methods, **values)

    return made


def claim(out, asked, row='{"cell": {}}\n'):
    """Let a grid have a folder, and leave a row there."""
    with output.claimed(out, asked):
        (out / "ledger.jsonl").write_text(row)


def test_streams_and_methods_may_be_added_to_a_folder(files, tmp_path, llama):
    out = tmp_path / "out"
    claim(out, files())
    claim(out, files("n-lora"))
    (tmp_path / "more").mkdir()
    other = write_stream(tmp_path / "more", "animal").rename(tmp_path / "more" / "other.yaml")
    claim(out, grid(llama, (str(other),), "mtl", seeds=(7,)))
    found = json.loads((out / "compare.json").read_text())
    assert list(found["methods"]) == ["inc-lora", "n-lora", "mtl"]
    assert list(found["data"]) == ["stream", "other"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_train": 6}, "max_train None, not 6"),
        ({"max_eval": 6}, "max_eval None, not 6"),
        ({"evaluate": "all"}, "evaluate 'next', not 'all'"),
        ({"tune": 3}, "tune 0, not 3"),
        ({"settings": {"rank": 4}}, "rank 8, not 4"),
        ({"settings": {"inc-lora": {"rank": 4}}}, "methods: inc-lora: settings: rank 8, not 4"),
    ],
    ids=str,
)
def test_a_grid_that_disagrees_with_its_folder_is_refused(files, tmp_path, values, said):
    out = tmp_path / "out"
    claim(out, files())
    before = tree(out)
    with pytest.raises(NloraError) as error:
        claim(out, files(**values))
    assert f"{out} holds a grid that disagrees" in one_line(error)
    assert said in one_line(error)
    assert tree(out) == before


def test_a_grid_of_which_nothing_came_may_be_corrected(files, tmp_path):
    out = tmp_path / "out"
    claim(out, files(settings={"target_modules": "foo"}), '{"cell": {}, "error": "no module"}\n')
    claim(out, files())
    with pytest.raises(NloraError, match="disagrees"):
        claim(out, files(settings={"rank": 4}))


def test_a_default_that_is_another_now_disagrees_and_a_new_setting_does_not(files, tmp_path):
    out = tmp_path / "out"
    claim(out, files())
    written = json.loads((out / "compare.json").read_text())
    settings = written["methods"]["inc-lora"]["settings"]
    del settings["schedule"]  # as if nlora had not had it yet
    (out / "compare.json").write_text(json.dumps(written))
    claim(out, files())
    settings["dropout"] = 0.7
    (out / "compare.json").write_text(json.dumps(written))
    with pytest.raises(NloraError, match=r"methods: inc-lora: settings: dropout 0\.7, not 0\.1"):
        claim(out, files())


def test_a_grid_of_an_earlier_version_agrees_under_todays_names(files, tmp_path):
    out = tmp_path / "out"
    asked = files("ewc:adapter=lora,inc-lora:routing=task")
    claim(out, asked)
    written = json.loads((out / "compare.json").read_text())
    ewc, inc = (m["settings"] for m in written["methods"].values())
    ewc["carrier"] = ewc.pop("adapter")
    inc["routing"] = "told"
    (out / "compare.json").write_text(json.dumps(written))
    claim(out, asked)


def test_other_data_and_another_model_disagree_too(files, tmp_path, t5):
    out = tmp_path / "out"
    claim(out, files())
    with pytest.raises(NloraError, match="model: title"):
        claim(out, grid(t5, files().streams))
    asked = files()
    write_stream(tmp_path, start=50)
    with pytest.raises(NloraError, match="data: stream: colour"):
        claim(out, Grid(asked.model, asked.streams, asked.points))


@pytest.mark.parametrize("name", ["photo.jpg", "model.json", "stages"])
def test_a_folder_that_holds_something_else_is_refused(files, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("{}")
    with pytest.raises(NloraError, match="not a comparison's folder"):
        claim(tmp_path / "out", files())
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"format": 999}', "is not a comparison's"),
    ],
)
def test_a_damaged_or_foreign_description_is_refused_and_left_alone(files, tmp_path, content, said):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "compare.json"
    path.write_text(content)
    with pytest.raises(NloraError, match=said) as error:
        claim(tmp_path / "out", files())
    assert str(path) in one_line(error)
    assert path.read_text() == content


def test_a_file_is_no_folder(files, tmp_path):
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(NloraError, match="is a file"):
            claim(out, files())


def test_only_one_comparison_may_write(files, tmp_path):
    with output.claimed(tmp_path / "out", files()), pytest.raises(NloraError, match="in use by"):
        claim(tmp_path / "out", files())


def keys(llama, tmp_path, method, stream=None, seed=0, evaluate="next", **settings):
    config = RunConfig(
        model=str(llama),
        method=method,
        stream=str(stream or tmp_path / "stream.yaml"),
        seed=seed,
        evaluate=evaluate,
        settings=settings,
    )
    return shared(resolve(config))


def test_the_first_stage_is_shared_where_it_is_the_same(llama, tmp_path):
    write_stream(tmp_path)
    first = keys(llama, tmp_path, "inc-lora").first_stage
    assert first is not None
    same = {
        "seq-lora": {},
        "o-lora": {"orthogonality_weight": 7},
        "ns": {},
        "n-lora": {"l1": 0},
        "inc-lora": {"penalty": "l1", "l1": 0},
    }
    for method, settings in same.items():
        assert keys(llama, tmp_path, method, **settings).first_stage == first, method
    other = {
        "n-lora": {},
        "o-lora": {"norm_weight": 0.1},
        "seq-lora": {"routing": "input"},
        "inc-lora": {"rank": 4},
    }
    for method, settings in other.items():
        assert keys(llama, tmp_path, method, **settings).first_stage not in (None, first), method
    assert keys(llama, tmp_path, "inc-lora", seed=1).first_stage != first
    for method in ("replay", "mtl", "prog-prompt", "per-task"):
        assert keys(llama, tmp_path, method).first_stage is None
    assert keys(llama, tmp_path, "seq-lora", frozen_layers=1).first_stage == first
    asked = keys(llama, tmp_path, "seq-lora", replay="self").first_stage
    assert asked not in (None, first)
    assert keys(llama, tmp_path, "inc-lora", replay="self", rehearsal="soft").first_stage == asked
    assert keys(llama, tmp_path, "seq-lora", loss="among-labels").first_stage not in (first, asked)
    penalised = keys(llama, tmp_path, "n-lora").first_stage
    assert keys(llama, tmp_path, "o-lora+n-lora").first_stage == penalised
    assert keys(llama, tmp_path, "sa").first_stage != penalised


def test_a_subclass_does_not_share_what_it_may_change(llama, tmp_path):
    write_stream(tmp_path)
    (plugin := tmp_path / "mine.py").write_text(
        "from nlora.methods.inc_lora import IncLora\n"
        "class Mine(IncLora):\n    name = 'mine'\n    summary = 'mine'\n"
    )
    config = RunConfig(
        model=str(llama), method="mine", stream=str(tmp_path / "stream.yaml"), plugin=str(plugin)
    )
    assert shared(resolve(config)).first_stage is None


def test_streams_share_what_they_begin_with(llama, tmp_path):
    one = write_stream(tmp_path)  # colour, animal, fruit
    colour, animal, fruit = yaml.safe_load(one.read_text())
    two, three = tmp_path / "two.yaml", tmp_path / "three.yaml"
    two.write_text(yaml.safe_dump([colour, fruit, animal]))
    three.write_text(yaml.safe_dump([colour, animal]))

    def of(stream, evaluate):
        return keys(llama, tmp_path, "inc-lora", stream, evaluate=evaluate)

    assert of(one, "next").zero_shot == of(two, "next").zero_shot  # the same tasks
    assert of(one, "next").zero_shot != of(three, "next").zero_shot
    assert of(one, "next").first_stage == of(three, "next").first_stage
    assert of(one, "next").first_stage != of(two, "next").first_stage  # another task is next
    assert of(one, "seen").first_stage == of(two, "seen").first_stage
    assert of(one, "seen").zero_shot is None


def test_the_untrained_model_is_the_same_for_every_method_and_seed(llama, tmp_path):
    write_stream(tmp_path)
    zero = keys(llama, tmp_path, "inc-lora").zero_shot
    assert keys(llama, tmp_path, "mtl", seed=3).zero_shot == zero
    assert keys(llama, tmp_path, "inc-lora", learning_rate=1.0).zero_shot == zero
    assert keys(llama, tmp_path, "inc-lora", prompt="released").zero_shot != zero
    assert keys(llama, tmp_path, "inc-lora", max_text_tokens=3).zero_shot != zero


def trials(method, count, **settings):
    return tune.trials(choose(RunConfig(model="m", method=method, settings=settings)), count)


def test_every_method_gets_as_many_trials_and_the_first_is_its_own():
    for method in ("inc-lora", "n-lora", "o-lora", "mtl"):
        for count in (1, 2, 5, 9):
            found = trials(method, count)
            assert len(found) == count
            assert len({json.dumps(t) for t in found}) == count
            assert found[0]["learning_rate"] == 1e-3


def test_trials_are_a_grid_of_the_learning_rate_and_the_methods_own_weight():
    nine = trials("n-lora", 9, l1=0.1)
    assert {t["learning_rate"] for t in nine} == {3.2e-4, 1e-3, 3.2e-3}
    assert {t["l1"] for t in nine} == {0.032, 0.1, 0.32}
    assert nine[0] == {"learning_rate": 1e-3, "l1": 0.1}
    assert [len({t["learning_rate"], 1e-3}) + len({t["l1"], 0.1}) for t in nine[1:5]] == [3] * 4
    assert {*trials("o-lora", 2)[0]} == {"learning_rate", "orthogonality_weight"}
    assert {*trials("ewc", 2)[0]} == {"learning_rate", "ewc_lambda"}
    assert {*trials("n-lora", 2, l1=0)[0]} == {"learning_rate"}
    alone = [t["learning_rate"] for t in trials("inc-lora", 5)]
    assert alone == [1e-3, 3.2e-4, 3.2e-3, 1e-4, 1e-2]
    lists = trials("inc-lora", 2, learning_rate=[1e-3, 1e-4])
    assert lists[1] == {"learning_rate": [3.2e-4, 3.2e-5]}


def test_the_best_on_dev_is_chosen_and_of_equals_the_nearest():
    rows = [
        {"settings": {"x": 1}, "average_accuracy": 50.0},
        {"settings": {"x": 2}, "error": "no luck"},
        {"settings": {"x": 3}, "average_accuracy": 60.0},
        {"settings": {"x": 4}, "average_accuracy": 60.0},
    ]
    assert tune.choose(rows) == {"x": 3}
    with pytest.raises(NloraError, match="none of its 1 tuning trials was finished: no luck"):
        tune.choose(rows[1:2])


def test_a_trial_never_sees_test():
    data = task()
    found = on_dev(data, 0)
    assert found.test == data.dev
    assert found.train == data.train
    tested = {e.text for e in data.test}

    published = type(data)(data.task, data.train, data.test, dev=data.test)
    found = on_dev(published, 0)
    assert not tested & {e.text for e in found.test}
    assert len(found.test) == 2  # a fifth of 12
    assert len(found.train) == 10
    assert {e.text for e in (*found.train, *found.test)} == {e.text for e in data.train}

    mixed = type(data)(data.task, data.train, data.test, dev=(*data.dev[:3], *data.test[:2]))
    assert on_dev(mixed, 0).test == data.dev[:3]


def test_recipes_give_each_cell_its_own_settings_and_what_is_asked_wins():
    from nlora.recipes import recipe

    asked = grid(
        streams=("order-1", "order-4"),
        methods="n-lora,o-lora,ella",
        settings={"rank": 4},
        recipes="t5-large",
    )
    [n_lora, o_lora, ella] = asked.points
    four = asked.settings_of("order-4", n_lora)
    assert four == {**recipe("n-lora-t5-large-order-4").settings, "rank": 4}
    assert asked.settings_of("order-1", n_lora)["l1"] == 0.4
    assert asked.settings_of("order-1", o_lora)["orthogonality_weight"] == 0.5
    assert asked.settings_of("order-1", ella) == {"rank": 4}
    assert asked.without_recipe() == ["ella on order-1", "ella on order-4"]
