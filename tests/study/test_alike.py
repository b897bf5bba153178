from math import log, sqrt

import pytest

from nlora.data.task import Example, Task, TaskData
from nlora.study.alike import alike


def task(name, texts, labels):
    made = Task(name, labels=labels)
    return TaskData(made, (), tuple(Example(made, text, "x") for text in texts))


def test_tasks_are_as_alike_as_their_words_and_labels():
    tasks = [
        task("a", ["the red ball", "The blue ball!"], ("good", "bad")),
        task("b", ["the red car"], ("good", "bad", "so-so")),
        task("c", ["el gato"], None),
    ]
    ab, ac, bc = alike(tasks)
    assert (ab["a"], ab["b"], ab["labels"]) == ("a", "b", pytest.approx(2 / 3))
    # Of 4 texts: the in 3, red in 2, ball in 2, blue, car in 1.
    the, two, one = log(4 / 3), log(2), log(4)
    a = {"the": 2 * the / 3, "red": two / 3, "ball": 2 * two / 3, "blue": one / 3}
    b = {"the": the / 3, "red": two / 3, "car": one / 3}
    product = a["the"] * b["the"] + a["red"] * b["red"]
    norms = [sqrt(sum(x * x for x in v.values())) for v in (a, b)]
    assert ab["texts"] == pytest.approx(product / norms[0] / norms[1])
    assert (ac["texts"], ac["labels"], bc["labels"]) == (0, 0, 0)
