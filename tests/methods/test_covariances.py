"""Covariances of the inputs of adapted matrices, in a step and on request, against float64."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from nlora.adapters.full import Full
from nlora.adapters.lora import Lora
from nlora.adapters.registry import adapter as by_name
from nlora.data.batches import Collator
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from nlora.methods.base import Method
from nlora.plan.settings import RunSettings
from tests import tiny
from tests.loop import context, encode, first_epoch, stage, train_stage

DATA = tiny.task(count=21)


def begun(shape: str) -> Lora:
    """A fresh adapter whose B is not 0."""
    torch.manual_seed(0)
    adapter = Lora(tiny.model(shape), rank=2, alpha=4.0, dropout=0.0)
    adapter.begin()
    with torch.no_grad():
        for factors in adapter.factors().values():
            factors.B.normal_(std=0.05)
    return adapter


class Measuring(Method):
    """Keeps the covariances of every step. A teacher's pass in its loss does not count."""

    name = "measuring"
    needs_covariances = True

    def __init__(self, settings):
        super().__init__(settings)
        self.seen = []

    def loss(self, ctx, batch):
        with torch.no_grad():
            ctx.logits(batch)
        return super().loss(ctx, batch)

    def gradients(self, ctx):
        self.seen.append(dict(ctx.step.covariances))


def covariances_by_hand(adapter, shape, rows) -> dict[str, torch.Tensor]:
    """Σ x xᵀ / n over the tokens of the rows, one by one without padding, in float64."""
    exact, sums, counts = deepcopy(adapter.model).double(), {}, {}
    wanted = {n.removesuffix(".base_layer"): m for n, m in exact.named_modules()}
    for name in adapter.matrices():

        def keep(module, inputs, name=name):
            x = inputs[0][0]
            sums[name] = sums.get(name, 0.0) + x.T @ x
            counts[name] = counts.get(name, 0) + len(x)

        wanted[f"base_model.model.{name}"].register_forward_pre_hook(keep)
    for row in rows:
        with torch.no_grad():
            answer_logits(exact, Collator(0, shape == "t5")([row]))
    return {name: square / counts[name] for name, square in sums.items()}


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("shape", ["llama", "t5", "gpt2"])
def test_covariances_of_a_step_are_those_of_all_its_tokens(shape, accumulation):
    adapter, rows, built = begun(shape), encode(shape, DATA), Measuring(Measuring.Settings())
    expected = [
        covariances_by_hand(adapter, shape, [rows[i] for i in b]) for b in first_epoch(rows)
    ]
    train_stage(shape, adapter, built, DATA, accumulation=accumulation, learning_rate=0.0)
    assert len(built.seen) == 3
    for found, exact in zip(built.seen, expected, strict=True):
        assert found.keys() == exact.keys() == adapter.factors().keys()
        for name, covariance in found.items():
            torch.testing.assert_close(covariance.double(), exact[name], rtol=1e-4, atol=1e-5)


def test_answers_as_long_as_the_prompts_are_told_apart_from_them():
    adapter = begun("t5")
    ids = [(list(range(5, 5 + p)), list(range(40, 40 + a))) for p, a in ((6, 2), (3, 6), (4, 4))]
    template = encode("t5", DATA)[0]
    rows = [replace(template, prompt=p, answer=a) for p, a in ids]
    batch = Collator(0, True)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape
    with context("t5", adapter, stage()).input_covariances() as measured:
        with torch.no_grad(), measured.of(batch) as seen:
            found = answer_logits(adapter.model, seen)
        assert torch.equal(found.targets, answer_logits(adapter.model, batch).targets)
    for name, exact in covariances_by_hand(adapter, "t5", rows).items():
        torch.testing.assert_close(measured.means()[name].double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sparse", "osf", "peft"])
def test_other_adapters_of_matrices_have_covariances_too(kind):
    more = {"peft_type": "LOHA", "peft_options": {"r": 2}} if kind == "peft" else {}
    settings = RunSettings(precision="fp32", target_modules=["q_proj"], **more)
    made = by_name(kind).build(tiny.model("llama"), settings)
    made.begin()
    lora = Lora(tiny.model("llama"), 2, 4.0, 0.0, target_modules=["q_proj"])
    lora.begin()
    examples = DATA.train[:5]
    found, expected = (context("llama", a, stage()).covariances(examples) for a in (made, lora))
    assert found.keys() == expected.keys()
    for name, covariance in expected.items():
        torch.testing.assert_close(found[name], covariance, rtol=1e-4, atol=1e-5)


def test_an_adapter_without_matrices_has_no_covariances():
    ctx = context("llama", Full(tiny.model("llama")), stage())
    with pytest.raises(NloraError, match="adapter 'full' adapts no matrices"):
        ctx.covariances(DATA.train[:1])
