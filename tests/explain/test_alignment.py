"""Gradients of an old task and of a new one, against one plain backward pass per example."""

import json
from dataclasses import replace

import pytest
import torch

from nlora.continual.model import ContinualModel
from nlora.data.task import digest, sample
from nlora.explain.alignment import aligned, cosine, gradient
from nlora.explain.asked import Options, learned
from nlora.explain.examples import examples_of
from nlora.explain.looks import Looks
from nlora.explain.texts import SEED
from nlora.progress import NoProgress
from nlora.store.atomic import write_json

COUNT = 3


@pytest.fixture(scope="module")
def model(finished):
    return ContinualModel.open(finished("seq-lora").out)


def tasks_of(model):
    stream = examples_of(model.directory, None, None, NoProgress())
    return learned(model, stream, Options())


def plainly(model, examples):
    """The mean gradient by the library's own loss, which is a mean over an answer's tokens."""
    network, encoder = model.adapter.model.eval(), model.encoder
    weights = [m.get_base_layer().weight for m in model.adapter.matrices().values()]
    for weight in weights:
        weight.requires_grad_(True)
    sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    for example in examples:
        [row] = encoder.all([example])
        prompt, answer = list(row.prompt), list(row.answer)
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        loss = network(input_ids=ids, labels=labels).loss
        for total, one in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            total += one.double() / len(examples)
    for weight in weights:
        weight.requires_grad_(False)
    return dict(zip(model.adapter.matrices(), sums, strict=True))


def test_the_cosine_is_that_of_plain_gradients_on_the_model_before_the_stage(model, tmp_path):
    colour, animal = tasks_of(model)
    looks = Looks(model, tmp_path)
    found = aligned(looks, [colour, animal], COUNT)
    assert set(found) == {"colour"}
    with model.standing(1):
        old, new = (
            plainly(model, sample(task.data.train, COUNT, SEED)) for task in (colour, animal)
        )
    assert found["colour"] == {2: pytest.approx(cosine(old, new), abs=1e-4)}
    assert abs(found["colour"][2]) > 1e-3
    frozen = [m.get_base_layer().weight for m in model.adapter.matrices().values()]
    assert not any(weight.requires_grad for weight in frozen)
    [kept] = tmp_path.rglob("*gradients*.json")
    another = {"values": {"colour": 0.25}}
    write_json(kept, json.loads(kept.read_text()) | another)
    assert aligned(looks, [colour, animal], COUNT) == found  # it was changed
    another["hash"] = digest(another["values"])
    write_json(kept, json.loads(kept.read_text()) | another)
    assert aligned(looks, [colour, animal], COUNT) == {"colour": {2: 0.25}}  # not measured again
    other = animal.data.task.labels[0]
    train = tuple(replace(example, label=other) for example in animal.data.train)
    relabelled = replace(animal, data=replace(animal.data, train=train))
    again = aligned(looks, [colour, relabelled], COUNT)  # the same texts, and other answers
    assert again["colour"][2] not in (0.25, pytest.approx(found["colour"][2], abs=1e-4))


def test_a_step_on_the_new_task_changes_the_old_loss_by_the_product(model):
    colour, animal = (list(task.data.train[:COUNT]) for task in tasks_of(model))
    ctx, step = model.context(), 1e-3
    weights = {n: m.get_base_layer().weight for n, m in model.adapter.matrices().items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    old, new = gradient(ctx, weights, colour), gradient(ctx, weights, animal)

    def loss():
        rows = zip(colour, ctx.encoder.all(colour), strict=True)
        return -sum(ctx.score([e])[0] / len(row.answer) for e, row in rows) / COUNT

    def moved(by):
        for name, weight in weights.items():
            weight.data -= by * new[name]
        return loss()

    down, up = moved(step), moved(-2 * step)
    moved(step)
    for weight in weights.values():
        weight.requires_grad_(False)
    product = sum(float((old[name] * new[name]).sum()) for name in old)
    assert (down - up) / 2 == pytest.approx(-step * product, rel=0.02)
