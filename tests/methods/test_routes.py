"""What a router cannot tell, it says: two questions about the same texts, and texts of no task."""

import pytest
import torch

from nlora.continual.answering import predict
from nlora.continual.learning import run
from nlora.continual.model import ContinualModel
from nlora.data.task import Example, Task, TaskData
from nlora.methods.parts.lora import RouterState
from nlora.methods.parts.routing import HELD_OUT, Fitted, Router, unclear
from nlora.store.directory import ModelDirectory
from tests.methods.helpers import answers, stages
from tests.runs import LEARNING, Listener, config

TEXTS = [f"{a * 3} {b * 3} {i}" for i in range(17) for a in "xyz" for b in "uv"]
LABELS = {"topic": {"x": "a", "y": "b", "z": "c"}, "sentiment": {"u": "d", "v": "e"}}


def question(name, place):
    """A task that asks for the letter at a place of the text."""
    labels = LABELS[name]
    task = Task(name, f"Which {name}?", tuple(labels.values()), dataset=name)
    rows = [Example(task, text, labels[text[place]]) for text in TEXTS]
    return TaskData(task, tuple(rows), tuple(rows[:12]))


@pytest.fixture(scope="module")
def both(llama, tmp_path_factory):
    """Two questions about the same texts, learned by de-lora."""
    out = tmp_path_factory.mktemp("both")
    asked = config(llama, None, {**LEARNING, "epochs": 3}, method="de-lora")
    run(asked, out, stream=[question("topic", 0), question("sentiment", 4)])
    return out


def test_tasks_on_the_same_texts_are_said_to_be_so(both):
    [said] = ModelDirectory(both).results()["routing"]["unclear"]
    assert said.startswith("topic and sentiment cannot be told apart by their texts (")
    assert said.endswith("% taken for the other): name the task when you predict")
    assert stages(both)[1].notes["routing"]["unclear"] == [said]
    assert stages(both)[0].notes["routing"]["unclear"] == []
    counts = stages(both)[1].notes["routing"]["held_out"]
    assert {name: sum(row.values()) for name, row in counts.items()} == {
        "topic": 20,
        "sentiment": 20,
    }


def test_a_named_task_is_answered_by_its_own_model(both):
    own = {"topic": answers(both, 1, "topic")}
    model = ContinualModel.open(both)
    asked = list(question("sentiment", 4).test)
    with model.after(2):
        own["sentiment"] = [p.text for p in model.asked.answers(asked)]
    for name, expected in own.items():
        found = predict(both, [e.text for e in asked], name)
        assert [a.answer for a in found] == expected
        assert all((a.task, a.confidence, a.unknown) == (name, None, False) for a in found)
    assert own["topic"] != own["sentiment"]


def test_a_route_between_two_equals_is_not_sure(both):
    watch = Listener()
    found = predict(both, TEXTS[:6], progress=watch)
    assert all(a.confidence < 0.9 for a in found)
    assert not any(a.unknown for a in found)
    names = {"topic", "sentiment"}
    assert all({a.task, *a.alike} == names for a in found)
    assert any("6 of 6 texts are of a kind that several tasks have" in m for m in watch.messages)


FAR = ["QQ! QQ! QQ! QQ! QQ!", "{}[]<>@#$%^&*" * 3]


@pytest.mark.parametrize("setting", ["none", "base", "nearest"])
def test_a_text_far_from_every_task_is_answered_as_the_settings_say(both, tmp_path, setting):
    copy = tmp_path / "model"
    copy.symlink_to(both) if setting == "none" else _with(both, copy, setting)
    found = predict(copy, [TEXTS[0], *FAR])
    assert [a.unknown for a in found] == [False, True, True]
    assert found[0].answer is not None
    for answer in found[1:]:
        if setting == "nearest":
            assert answer.task in LABELS
            assert answer.answer is not None
            continue
        assert answer.task is None
        assert answer.confidence is None
        assert answer.reason.startswith("far from every task: at a distance of ")
        assert (answer.answer is None) == (setting == "none")
    model = ContinualModel.open(copy)
    if setting == "base":
        assert [a.answer for a in found[1:]] == [p.text for p in model.bare(FAR)]


def _with(out, copy, setting):
    """The model directory with another value of `unknown`."""
    copy.mkdir()
    (copy / "stages").symlink_to(out / "stages")
    document = ModelDirectory(out).config()
    document["settings"]["unknown"] = setting
    ModelDirectory(copy).write_config(document)


def test_evaluation_takes_the_nearest_task_and_records_how_many_were_far(both):
    told = stages(both)[1].notes["routing"]
    assert sum(told["tests"]["topic"].values()) == 12
    assert set(told["far"]) == {"topic", "sentiment"}
    assert all(share < 0.2 for share in told["far"].values())


def test_prompts_tell_apart_what_texts_do_not(llama, tmp_path):
    asked = config(llama, None, {**LEARNING, "epochs": 1, "route_by": "prompt"}, method="de-lora")
    streams = [question("topic", 0), question("sentiment", 4)]
    results = run(asked, tmp_path, stream=streams)
    [said] = results["routing"]["unclear"]  # of texts whose task is not named
    assert said.startswith("topic and sentiment cannot be told apart by their texts (")
    assert results["routing"]["by"] == "prompt"
    assert results["routing"]["tests"] == {"topic": {"topic": 12}, "sentiment": {"sentiment": 12}}
    model = ContinualModel.open(tmp_path)
    by_text = model.method.routes(model.context(), streams[0].test, named=False)
    assert {route.stage for route in by_text} == {1, 2} or by_text[0].confidence < 0.9


def groups(*sizes, seed=0, apart=3.0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in sizes]
    return [rows + apart * i for i, rows in enumerate(made)]


def test_held_out_rows_are_taken_out_of_the_statistics_exactly():
    router, rest = Router(RouterState()), []
    made = [rows.float().double() for rows in groups(50, 200, 3)]
    for stage, rows in enumerate(made, start=1):
        router.add(stage, rows)
        held = router.state.held_out.get(str(stage), rows[:0]).double()
        assert len(held) == len(rows) // 5
        rest.append(rows[~(rows[:, None] == held[None]).all(2).any(1)])
    means = torch.stack([rows.mean(0) for rows in rest])
    scatter = sum((rows - rows.mean(0)).T @ (rows - rows.mean(0)) for rows in rest)
    plain = Fitted.of(means, scatter, sum(map(len, rest)))
    for ours, theirs in zip(router.without_held_out(), plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_as_many_of_a_tasks_own_texts_count_as_far_as_the_quantile_says():
    router = Router(RouterState(), quantile=0.9)
    first, second = groups(1000, 1000)
    router.add(1, first)
    router.add(2, second)
    assert len(router.state.held_out["1"]) == HELD_OUT
    fresh = groups(1000, 1000, seed=1)
    for stage, rows in enumerate(fresh, start=1):
        far = [route.unknown for route in router.judge(rows)]
        assert 50 < sum(far) < 160, stage
    assert all(route.unknown for route in router.judge(first[:10] + 40))


def test_the_confidence_of_routes_is_how_often_they_are_right():
    router = Router(RouterState())
    for stage, rows in enumerate(groups(400, 400, apart=0.4), start=1):
        router.add(stage, rows)
    fresh = groups(2000, 2000, seed=1, apart=0.4)
    routes = [(r, s) for s, rows in enumerate(fresh, start=1) for r in router.judge(rows)]
    right = sum(r.stage == s for r, s in routes) / len(routes)
    assert sum(r.confidence for r, _ in routes) / len(routes) == pytest.approx(right, abs=0.05)


def test_a_state_of_before_goes_on_without_what_it_lacks():
    first, second = groups(60, 60)
    old = RouterState([first.mean(0)], [1], (first - first.mean(0)).T @ (first - first.mean(0)), 60)
    router = Router(old)
    assert not any(route.unknown for route in router.judge(first + 100))
    router.add(2, second)
    assert list(router.confusion()) == [2]
    assert router.choose(torch.cat([first[:2], second[:2]])) == [1, 1, 2, 2]


def test_only_what_is_often_taken_for_each_other_is_called_unclear():
    counts = {"a": {"a": 90, "b": 10}, "b": {"b": 60, "c": 40}, "c": {"b": 60, "c": 40}}
    [said] = unclear(["a", "b", "c"], counts, "text")
    assert said.startswith("b and c cannot be told apart by their texts (50 % taken")
    assert unclear(["a", "b"], {"a": {"a": 50, "b": 50}}, "text") == []
