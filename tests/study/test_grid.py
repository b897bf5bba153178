"""What is asked of a comparison, before anything runs."""

from types import SimpleNamespace

import pytest
import yaml

from nlora.errors import NloraError
from nlora.plan.points import parse_points
from nlora.progress import NoProgress
from nlora.study import grid as grids
from nlora.study.estimate import seconds_of, work
from nlora.study.grid import Grid, parse_seeds, stream_name
from tests.runs import write_stream


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


def test_a_setting_that_is_called_as_a_method_is_one_of_all():
    asked = grid(methods="replay,inc-lora", settings={"replay": 0.05})
    settings = [asked.settings_of("order-1", point) for point in asked.points]
    assert settings == [{"replay": 0.05}] * 2


def test_a_setting_whose_value_is_a_mapping_is_one_of_all_methods():
    options = {"peft_options": {"use_rslora": True}}
    asked = grid(methods="n-lora,inc-lora", settings={**options, "n-lora": {"l1": 2}})
    settings = [asked.settings_of("order-1", point) for point in asked.points]
    assert settings == [{**options, "l1": 2}, options]


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


def test_a_run_answers_what_it_is_evaluated_on_and_what_is_only_tested(llama, tmp_path):
    stream = write_stream(tmp_path)
    tasks = yaml.safe_load(stream.read_text())
    del tasks[0]["train"]
    stream.write_text(yaml.safe_dump(tasks))
    counted = {
        (method, evaluate): grid(llama, (str(stream),), method, evaluate=evaluate)
        for method, evaluate in (
            *(("inc-lora", "seen"), ("inc-lora", "next")),
            *(("mtl", "seen"), ("mtl", "next"), ("zero-shot", "next")),
        )
    }
    cells = {key: made.cell(str(stream), made.points[0], 0) for key, made in counted.items()}
    assert {key: work(cell.plan) for key, cell in cells.items()} == {
        ("inc-lora", "seen"): (24, 6 * (1 + 2 + 3)),
        ("inc-lora", "next"): (24, 6 * (3 + 3 + 3)),
        ("mtl", "seen"): (24, 6 * (1 + 3)),
        ("mtl", "next"): (24, 6 * (3 + 3)),
        ("zero-shot", "next"): (0, 18),
    }


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ("zero-shot", 18 * 1.0),
        ("zero-shot,seq-lora", 18 * 0.5 + 36 * 1.0 + (18 + 12 + 18 + 18) * 0.5),
    ],
)
def test_time_is_told_by_a_run_that_trains_if_any_does(llama, tmp_path, monkeypatch, methods, told):
    ran = []

    class Short:
        def __init__(self, out, workers, progress, commit, finished):
            self.finished = finished

        def run(self, jobs):
            ran.extend(job.plan.config.method for job in jobs)
            self.finished(jobs[0], {"seconds_by": {"training": 12.0, "evaluation": 6.0}})

    monkeypatch.setattr("nlora.study.estimate.Runner", Short)
    stream = str(write_stream(tmp_path))
    asked = grid(llama, (stream,), methods)
    plans = [asked.cell(stream, point, 0).plan for point in asked.points]
    assert seconds_of(plans, asked, 1, NoProgress()) == pytest.approx(told)
    assert ran == [methods.split(",")[-1]]


def test_one_run_that_is_left_takes_as_long_as_it_takes_whoever_is_idle(
    llama, tmp_path, monkeypatch
):
    monkeypatch.setattr("nlora.study.estimate._rates", lambda *asked: (2.0, 0.0))
    stream = str(write_stream(tmp_path))
    asked = grid(llama, (stream,), "seq-lora")
    plan = asked.cell(stream, asked.points[0], 0).plan
    alone = seconds_of([plan], asked, 1, NoProgress())
    assert seconds_of([plan], asked, 4, NoProgress()) == alone
    assert seconds_of([plan] * 8, asked, 4, NoProgress()) == 2 * alone
