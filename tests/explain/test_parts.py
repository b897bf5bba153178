"""Constructed cases in which each part of a loss is known."""

from dataclasses import replace

import numpy as np
import pytest

from nlora.data.task import Task, TaskData
from nlora.evaluation.matching import probabilities
from nlora.explain.asked import Learned
from nlora.explain.explained import Found, over_tasks
from nlora.explain.parts import PARTS, Reading, Way, accuracies, by_example, kept, length, parts
from nlora.explain.probe import probed
from nlora.explain.sources import Known, corrections, no_old_text

RIGHT = np.tile([0, 1, 2], 20)
TRAIN = np.tile([0, 1, 2], 40)
EVEN = Known(train=TRAIN.tolist())


def scores(right, margin=4.0, bias=(0.0, 0.0, 0.0), seed=0):
    """Scores that favour the right label by a margin, some noise, and a bias per label."""
    noise = 0.3 * np.random.default_rng(seed).standard_normal((len(right), 3))
    return margin * np.eye(3)[right] + noise + np.array(bias) - 5


def states(right, direction=0, seed=0, strength=3.0):
    """Hidden states in which the label stands in three directions, or not at all."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((len(right), 12))
    found[:, direction : direction + 3] += strength * np.eye(3)[right]
    return found


def reading(score=lambda right, seed: scores(right, seed=seed), free=None, strength=3.0):
    """All readings of a model with such scores, states and free answers (by default the likely)."""
    test, train = score(RIGHT, 1), score(TRAIN, 2)
    among = test.argmax(1)
    given = among if free is None else free
    made = corrections({}, {"train": train}, EVEN)["train"]
    read = probed(
        states(TRAIN, seed=3, strength=strength), TRAIN, states(RIGHT, seed=4, strength=strength)
    )
    return Reading(
        free=given == RIGHT,
        among=among == RIGHT,
        matched={"train": made(test).argmax(1) == RIGHT},
        probe=read == RIGHT,
        listed=given >= 0,
    )


def unknowing(right, seed):
    return 0.3 * np.random.default_rng(seed).standard_normal((len(right), 3)) - 5


def noisy_free(wrong):
    free = RIGHT.copy()
    free[:wrong] = -1
    return free


CASES = {
    "off the list": reading(free=noisy_free(30)),
    "bias": reading(lambda right, seed: scores(right, bias=(9, 0, 0), seed=seed)),
    "inaccessible": reading(unknowing),
    "gone": reading(unknowing, strength=0.0),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_loss_of_one_kind_is_that_part_alone(part):
    then, now = reading(), CASES[part]
    assert then.answers.all()
    found = parts(then, now, "train")
    lost = 1 - now.answers.mean()
    assert lost > 0.3
    others = sum(abs(value) for name, value in found.items() if name != part)
    assert found[part] == pytest.approx(lost, abs=0.08)
    assert others < 0.1
    each = by_example(then, now, "train")
    assert each["lost"] == round(60 * lost)
    assert each["won"] == 0
    assert each[part] >= 0.6 * each["lost"]  # single answers may come back by chance
    assert each["unlisted"] == (30 if part == "off the list" else 0)


@pytest.mark.parametrize("seed", range(20))
def test_parts_add_up_to_the_protocol_s_loss_whatever_the_answers(seed):
    rng = np.random.default_rng(seed)

    def anything():
        drawn = rng.random((5, 40)) < rng.random((5, 1))
        return Reading(drawn[0], drawn[1], {"train": drawn[2]}, drawn[3], drawn[4] | drawn[0])

    then, now = anything(), anything()
    protocol = then.free.mean() - now.free.mean()
    assert sum(parts(then, now, "train").values()) == pytest.approx(protocol)
    each = by_example(then, now, "train")
    assert sum(each[part] for part in PARTS) == each["lost"]
    assert each["lost"] - each["won"] == round(40 * protocol)
    back = parts(now, then, "train")
    assert back == pytest.approx({k: -v for k, v in parts(then, now, "train").items()})


def test_tasks_of_which_not_all_have_texts_and_a_probe_are_counted_alike():
    """Of `a` the training texts are there, of `b` they are not; each has 20 tests."""

    def share(right):
        return np.arange(20) < round(20 * right)

    def task(name, **readings):
        data = TaskData(Task(name, "?", ("x", "y")), (), ())
        read = {
            stage: Reading(*(share(r[n]) for n in (0, 1)), {s: share(v) for s, v in r[2].items()})
            for stage, r in enumerate(readings.values())
        }
        if name == "a":
            read = {k: replace(r, probe=share(0.9 - 0.1 * k)) for k, r in read.items()}
        return Found(Learned(data, 1, (2,)), read, {}, {})

    a = task(
        "a",
        never=(0.1, 0.4, {"train": 0.5, "test": 0.4}),
        then=(0.9, 0.9, {"train": 0.85, "test": 0.9}),
        now=(0.4, 0.5, {"train": 0.55, "test": 0.65}),
    )
    b = task(
        "b",
        never=(0.1, 0.4, {"test": 0.5}),
        then=(0.9, 0.9, {"test": 0.9}),
        now=(0.4, 0.5, {"test": 0.6}),
    )
    over = over_tasks([a, b], 2)
    assert sum(v for v in over["parts"].values() if v is not None) == pytest.approx(50)
    assert over["parts"]["gone"] == pytest.approx((25 + 30) / 2)
    left = over["kept"]["base"]["test"]["value"]
    assert left == pytest.approx(100 * (0.25 + 0.1) / (0.5 + 0.4))
    alone = over_tasks([a], 2)
    assert alone["parts"]["gone"] == pytest.approx(10)
    assert alone["kept"]["base"]["train"]["value"] == pytest.approx(100 * 0.05 / 0.35)


def test_a_gain_is_a_part_below_zero():
    found = parts(CASES["bias"], reading(), "train")
    assert found["bias"] < -0.5
    assert found["gone"] == pytest.approx(0, abs=0.05)


def test_without_a_probe_gone_is_what_matching_does_not_bring_back():
    bare = [Reading(r.free, r.among, r.matched) for r in (reading(), CASES["gone"])]
    found = parts(*bare, "train")
    assert found["inaccessible"] is None
    assert sum(v for v in found.values() if v is not None) == pytest.approx(
        bare[0].free.mean() - bare[1].free.mean()
    )
    assert by_example(*bare, "train")["inaccessible"] == 0


def test_each_source_takes_a_bias_out_that_came_since():
    """Right after the task all is well; now label 0 is favoured, and answers are half as sure."""
    then = {kind: scores(TRAIN, seed=i) for i, kind in enumerate(("train", "newest", "self"))}
    now = {kind: 0.5 * s + np.array([6.0, 0, 0]) for kind, s in then.items()}
    test = scores(RIGHT, seed=9)
    now |= {"test": 0.5 * test + np.array([6.0, 0, 0]), "dev": now["train"][:30]}
    then["content-free"] = np.zeros((3, 3))
    now["content-free"] = np.array([[6.0, 0, 0]] * 3)
    found = corrections(then, now, Known(TRAIN.tolist(), TRAIN[:30].tolist()))
    assert (now["test"].argmax(1) == RIGHT).mean() < 0.5
    names = ["dev", "test", "train", "contextual"]
    for kind in ("newest", "self", "content-free"):
        names += [f"{kind}: {v}{m}" for m in ("", ", matched") for v in ("shares", "answers")]
    assert sorted(found) == sorted(names)
    for source, made in found.items():
        if source != "contextual" and not source.startswith("content-free"):
            assert (made(now["test"]).argmax(1) == RIGHT).mean() > 0.95, source
    again = found["self: answers"](now["self"])
    assert np.allclose(probabilities(again), probabilities(then["self"]), atol=1e-5)
    assert [no_old_text(name) for name in ("train", "self: shares", "contextual")] == [
        False,
        True,
        True,
    ]


def test_of_the_same_moment_nothing_is_corrected_or_as_it_is_once_matched():
    then = {kind: scores(TRAIN, bias=(1, 0, 0), seed=i) for i, kind in enumerate(("train", "self"))}
    found = corrections(then, then, EVEN)
    for variant in ("shares", "answers"):
        assert np.allclose(found[f"self: {variant}"].offsets, 0, atol=1e-5)
    matched = found["self: answers, matched"]
    assert np.allclose(matched.offsets, found["train"].offsets, atol=1e-4)
    assert matched.scale == pytest.approx(1, abs=1e-4)


def way(never, then, now, count=200):
    """Right answers in these shares, the same examples first."""
    shares = {"never": never, "then": then, "now": now}
    right = {moment: np.arange(count) < round(share * count) for moment, share in shares.items()}
    return Way(**accuracies("a task", right))


def test_how_much_of_the_way_is_left():
    ways = {"a": way(0.5, 0.7, 0.6), "b": way(0.4, 0.8, 0.8)}
    assert kept({"a": ways["a"]}).value == pytest.approx(0.5)
    over = kept(ways)
    assert over.value == pytest.approx(0.5 / 0.6)
    assert over.low < over.value < over.high
    assert over.high <= 1
    assert length(ways["b"]).value == pytest.approx(0.4)
    assert length(ways["b"]).low == pytest.approx(0.335, abs=0.01)


def test_of_no_way_nothing_can_be_kept():
    assert kept({"a": way(0.5, 0.5, 0.4)}).value is None
    assert kept({}).value is None
    short = kept({"a": way(0.5, 0.51, 0.5, count=100)})
    assert short.value == 0
    assert short.low is None
