"""Real language models learn tasks, and what one learns next does not take it all away."""

import pytest

from nlora.backbones.catalog import catalog
from nlora.continual.learning import run
from nlora.data.demo import demo_stream
from nlora.plan.config import RunConfig
from nlora.plan.resolve import resolve
from nlora.study.share import adopt

SMOLLM2 = "smollm2-135m"
fetched = any(entry.fetched for entry in catalog() if entry.name == SMOLLM2)


@pytest.mark.real_model
@pytest.mark.skipif(
    not fetched,
    reason=f"{SMOLLM2} is not in the cache; `nlora models fetch {SMOLLM2}` puts it there",
)
def test_a_real_model_learns_a_task_that_it_could_not_do(tmp_path):
    topic = demo_stream(train=24, test=12, dev=1)[0]
    asked = RunConfig(
        model=SMOLLM2,
        method="n-lora",
        evaluate="all",
        settings={"batch_size": 4, "max_text_tokens": 48, "max_new_tokens": 12},
    )
    found = run(asked, tmp_path / "out", stream=[topic])
    chance = 100 / len(topic.task.labels)
    assert found["zero_shot"][0] < chance  # it answers in sentences
    assert found["accuracy_matrix"][0][0] > 2 * chance


@pytest.fixture(scope="module")
def on_two_tasks(tmp_path_factory):
    """What `tiny-t5` makes of two tasks in a row, by method."""
    folder = tmp_path_factory.mktemp("runs")
    stream = demo_stream(train=96, test=60, dev=1)[:2]
    found = {}
    for method in ("seq-lora", "n-lora"):
        asked = RunConfig(model="tiny-t5", method=method, evaluate="all")
        if found:  # before the first task and after it all methods are one model
            adopt(resolve(asked, stream), folder / method, *[folder / "seq-lora"] * 2)
        found[method] = run(asked, folder / method, stream=stream)
    return found


def test_the_model_of_the_package_learns_tasks_with_its_own_settings(on_two_tasks):
    _, sentiment = on_two_tasks["seq-lora"]["zero_shot"]
    for found in on_two_tasks.values():
        assert found["accuracy_matrix"][0][0] >= 90
        assert found["accuracy_matrix"][1][1] >= sentiment + 10


def test_a_fresh_adapter_per_task_forgets_less_than_one_that_is_continued(on_two_tasks):
    first = {method: found["accuracy_matrix"] for method, found in on_two_tasks.items()}
    lost = {method: matrix[0][0] - matrix[1][0] for method, matrix in first.items()}
    assert lost["n-lora"] <= lost["seq-lora"]
