"""What hooks that act within a step are given, and what becomes of what they return."""

import logging
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from nlora.adapters.lora import Lora
from nlora.adapters.prompt import Prompt
from nlora.data.batches import IGNORED, Collator
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from nlora.lowrank.factors import Factors
from nlora.methods.base import Method, MixedIn, Settings, Term
from nlora.plan.settings import RunSettings
from nlora.training.loop import mixed_examples, train
from tests import tiny
from tests.loop import context, encode, first_epoch, stage, train_stage

SHAPES = ["llama", "t5"]
RATE = 0.5
SGD = {"optimizer": "sgd", "learning_rate": RATE, "weight_decay": 0.0, "schedule": "constant"}
DATA = tiny.task(count=21)


def begun(shape: str, **how) -> Lora:
    """A fresh adapter whose B is not 0."""
    torch.manual_seed(0)
    adapter = Lora(tiny.model(shape), rank=2, alpha=4.0, dropout=0.0)
    adapter.begin(**how)
    with torch.no_grad():
        for factors in adapter.factors().values():
            factors.B.normal_(std=0.05)
    return adapter


def make(kind: type[Method]) -> Method:
    return kind(kind.Settings())


class Turns(Method):
    """Examples with a second turn after the answer, and only some tokens of each that count."""

    name = "turns"
    Settings = Settings

    def encode(self, ctx, examples):
        rows = [replace(e, answer=[*e.answer, *range(60, 66)]) for e in ctx.encoder.all(examples)]
        return [replace(e, counts=[i % 3 != 1 for i in range(len(e.answer))]) for e in rows]


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_turns_that_count_are_in_the_loss_and_all_are_read(shape, accumulation):
    adapter = begun(shape)
    exact = deepcopy(adapter.model).double()
    rows = make(Turns).encode(context(shape, adapter, stage()), DATA.train)
    found, _ = train_stage(
        shape, adapter, make(Turns), DATA, accumulation=accumulation, learning_rate=0.0
    )
    for step, chosen in zip(found, first_epoch(rows), strict=True):
        total, count = 0.0, 0
        for row in (rows[i] for i in chosen):  # one by one, without padding
            prompt, answer = torch.tensor([row.prompt]), torch.tensor([row.answer])
            with torch.no_grad():
                if shape == "t5":
                    read = torch.cat([torch.zeros(1, 1, dtype=torch.long), answer[:, :-1]], 1)
                    logits = exact(input_ids=prompt, decoder_input_ids=read).logits[0]
                else:
                    logits = exact(input_ids=torch.cat([prompt, answer], 1)).logits[0]
                    logits = logits[prompt.shape[1] - 1 : -1]
            losses = cross_entropy(logits, answer[0], reduction="none")
            total += float(losses[row.counts].sum())
            count += sum(row.counts)
        assert step["task"] == pytest.approx(total / count, rel=1e-5)


class Shortened(Method):
    """Batches of which the first answer token of each row does not count."""

    name = "shortened"

    def batch(self, ctx, batch):
        labels = batch["labels"].clone()
        first = (labels != IGNORED).int().argmax(1)
        labels[range(len(labels)), first] = IGNORED
        read = {"answers": batch["labels"]} if ctx.encoder.encoder_decoder else {}
        return {**batch, **read, "labels": labels}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_is_changed_before_its_answer_tokens_are_counted(shape):
    adapter, rows = begun(shape), encode(shape, DATA)
    cut = [replace(e, counts=[i > 0 for i in range(len(e.answer))]) for e in rows]
    expected = []
    for chosen in first_epoch(rows):
        batch = Collator(0, shape == "t5")([cut[i] for i in chosen])
        with torch.no_grad():
            expected.append(float(cross_entropy(*answer_logits(adapter.model, batch))))
    found, _ = train_stage(shape, adapter, make(Shortened), DATA, accumulation=2, learning_rate=0.0)
    assert [step["task"] for step in found] == pytest.approx(expected, rel=1e-5)


class Rehearsing(Method):
    """Half of what is trained on is the same two examples of another task."""

    name = "rehearsing"
    share: float | None = 0.5
    seen: list

    def mixed_in(self, ctx):
        return MixedIn(tiny.task("size").train[:2], self.share)

    def end(self, ctx):
        self.seen = ctx.examples


def test_mixed_in_examples_make_up_their_share_and_follow_the_stages_own():
    own, other = list(DATA.train), list(tiny.task("size").train)
    for share, count in ((0.5, 21), (0.25, 7), (0.0, 0), (None, 12)):
        mixed = mixed_examples(len(own), MixedIn(other, share), seed=3)
        assert len(mixed) == count
        assert mixed == mixed_examples(len(own), MixedIn(other, share), seed=3)
        if count > len(other):  # every one is there before one is there twice more
            assert {mixed.count(e) for e in other} == {1, 2}
        elif share:
            assert len(set(mixed)) == count
    assert mixed_examples(21, MixedIn(other, 0.25), 3) != mixed_examples(
        21, MixedIn(other, 0.25), 4
    )
    assert mixed_examples(21, MixedIn((), 0.5), 3) == []
    assert len(mixed_examples(4, MixedIn(other, 0.05), 3)) == 1  # a share is never nothing
    assert mixed_examples(4, MixedIn(other, 0.0), 3) == []
    for share in (1.0, -0.1, float("nan")):
        with pytest.raises(NloraError, match="share of mixed-in examples must be at least 0 and"):
            mixed_examples(21, MixedIn(other, share), 3)


def test_the_loop_trains_on_what_is_mixed_in():
    found, _ = train_stage("llama", begun("llama"), make(Rehearsing), DATA)
    assert len(found) == 6  # 21 and 21 in batches of 8


class Halved(Method):
    """A penalty, and gradients that are looked at, turned and halved."""

    name = "halved"

    def __init__(self, settings):
        super().__init__(settings)
        self.seen, self.after = [], []

    def penalties(self, ctx):
        return [Pull(ctx.adapter.trainable())]

    def gradients(self, ctx):
        named, step = ctx.adapter.trained(), ctx.step
        own = {n: step.gradients[p].clone() for n, p in named.items()}
        self.seen.append((own, {n: p.grad.clone() for n, p in named.items()}))
        return {p: -0.5 * p.grad for n, p in named.items() if "lora_A" in n}

    def after_step(self, ctx):
        named = ctx.adapter.trained()
        given = {n: ctx.step.gradients[p].clone() for n, p in named.items()}
        rates = {n: ctx.step.rates(p) for n, p in named.items()}
        self.after.append((given, rates, {n: p.detach().clone() for n, p in named.items()}))


class Pull:
    """0.1 · Σ p², whose gradient is 0.2 · p."""

    name = "pull"

    def __init__(self, parameters):
        self.parameters = parameters

    def __call__(self, step):
        pairs = [(p, 0.2 * p.detach()) for p in self.parameters]
        return Term(0.1 * sum(float(p.detach().square().sum()) for p in self.parameters), pairs)

    def notes(self):
        return {}


def size(tensors) -> float:
    return sum(float(t.double().square().sum()) for t in tensors) ** 0.5


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_seen_whole_and_what_is_returned_is_clipped_and_applied(shape, accumulation):
    adapter, clip = begun(shape), 0.05
    plain, rows = begun(shape), encode(shape, DATA)
    before = {n: p.detach().clone() for n, p in plain.trained().items()}
    batch = Collator(0, shape == "t5")([rows[i] for i in first_epoch(rows)[0]])
    cross_entropy(*answer_logits(plain.model, batch)).backward()
    built = make(Halved)
    settings = {**SGD, "max_grad_norm": clip, "accumulation": accumulation}
    found, _ = train_stage(shape, adapter, built, DATA, **settings)
    own, together = built.seen[0]
    given, rates, moved = built.after[0]
    used = {}
    for name, parameter in plain.trained().items():
        torch.testing.assert_close(own[name], parameter.grad, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(together[name], own[name] + 0.2 * before[name])
        assert torch.equal(given[name], own[name])  # neither the penalty's nor clipped
        used[name] = together[name] * (-0.5 if "lora_A" in name else 1.0)
    norm = size(used.values())
    assert norm > clip
    assert found[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    penalty = 0.2 * size(before.values())
    assert found[0]["penalty_gradient_norm"] == pytest.approx(penalty, rel=1e-4)
    for name, gradient in used.items():
        assert float(rates[name]) == pytest.approx(RATE * clip / norm, rel=1e-4)
        expected = before[name] - RATE * clip / norm * gradient
        torch.testing.assert_close(moved[name], expected, rtol=1e-5, atol=1e-7)


def test_a_gradient_of_another_shape_is_one_clear_line():
    class Wrong(Method):
        name = "wrong"

        def gradients(self, ctx):
            return {p: p.grad.T for p in ctx.adapter.trainable()}

    with pytest.raises(NloraError, match=r"wrong: a gradient is \[32, 2\] for a parameter of \[2,"):
        train_stage("llama", begun("llama"), make(Wrong), DATA)


class Reading(Method):
    """Asks for the step's sizes where it is set to."""

    name = "reading"
    asks = True

    def after_step(self, ctx):
        if self.asks:
            rates = {
                float(torch.as_tensor(ctx.step.rates(p)).max()) for p in ctx.adapter.trainable()
            }
            assert rates
            assert min(rates) >= 0


@pytest.mark.parametrize(
    ("optimizer", "asks", "said"),
    [("adafactor", True, 1), ("adafactor", False, 0), ("sgd", True, 0), ("adamw_torch", True, 0)],
)
def test_step_sizes_that_cannot_be_read_are_said_so(optimizer, asks, said, caplog, tmp_path):
    built = make(Reading)
    built.asks = asks
    run = RunSettings(precision="fp32", batch_size=8, optimizer=optimizer)
    ctx = context("llama", begun("llama"), stage(data=DATA))
    with caplog.at_level(logging.WARNING, logger="nlora"):
        kept = tmp_path / "checkpoints"
        trained = train(built, ctx, run, False, tmp_path, kept, {})
    assert caplog.text.count(f"step sizes of optimizer '{optimizer}' cannot be read") == said
    assert trained.notes.get("step_sizes") == ("learning rate" if said else None)


class Designed(Method):
    """Starts every matrix where it is told."""

    name = "designed"

    def start(self, ctx):
        def values(name: str, factors: Factors):
            return torch.full_like(factors.A, len(name)), torch.full_like(factors.B, 0.5)

        return values


def test_a_fresh_update_starts_where_the_method_says_and_is_counted_from_there():
    adapter = Lora(tiny.model("llama"), 2, 4.0, 0.0)
    exact = {name: layer.get_base_layer().weight.clone() for name, layer in adapter.layers.items()}
    batch = Collator(0, False)(encode("llama", DATA)[:2])
    before = answer_logits(adapter.model.eval(), batch).logits
    make(Designed).begin(context("llama", adapter, stage()))
    for name, factors in adapter.factors().items():
        assert factors.A.unique().tolist() == [len(name)]
        assert factors.B.unique().tolist() == [0.5]
    torch.testing.assert_close(
        answer_logits(adapter.model.eval(), batch).logits, before, rtol=0, atol=1e-4
    )
    assert exact.keys() == adapter.factors().keys()


def test_a_method_that_needs_another_adapter_is_one_clear_line():
    ctx = context("llama", begun("llama"), stage())
    with pytest.raises(NloraError, match="this needs adapter 'prompt', and there is 'lora'"):
        ctx.adapter_as(Prompt)
