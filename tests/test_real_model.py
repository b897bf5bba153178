"""A real language model learns a real task. Skipped where the model has not been fetched."""

import pytest

from nlora.data.demo import demo_stream
from nlora.models.catalog import catalog
from nlora.training.config import RunConfig
from nlora.training.run import run

NAME = "smollm2-135m"


@pytest.mark.real_model
@pytest.mark.skipif(
    not any(entry.fetched for entry in catalog() if entry.name == NAME),
    reason=f"{NAME} is not in the cache; `nlora models fetch {NAME}` puts it there",
)
def test_a_real_model_learns_a_task_that_it_could_not_do(tmp_path):
    topic = demo_stream(train=48, test=24, dev=1)[0]
    asked = RunConfig(
        model=NAME,
        method="n-lora",
        evaluate="all",
        settings={"batch_size": 4, "max_text_tokens": 48, "max_new_tokens": 12},
    )
    found = run(asked, tmp_path / "out", stream=[topic])
    chance = 100 / len(topic.task.labels)
    assert found["zero_shot"][0] < chance  # it answers in sentences
    assert found["accuracy_matrix"][0][0] > 2 * chance
