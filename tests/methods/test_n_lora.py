import math

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.errors import NloraError
from nlora.methods.context import Step
from nlora.methods.registry import method
from tests import tiny
from tests.loop import context, stage, train_stage
from tests.methods.helpers import TASKS, learn, losses, same_bits, stages

RANK, ALPHA = 4, 8.0


def begun(shape: str) -> Lora:
    torch.manual_seed(0)
    adapter = Lora(tiny.model(shape, layers=1), RANK, ALPHA, dropout=0.0)
    adapter.begin()
    return adapter


def moved(shape: str) -> Lora:
    """An adapter whose B is not 0 any more."""
    adapter = begun(shape)
    with torch.no_grad():
        for factors in adapter.factors().values():
            factors.B.normal_(std=0.1)
    return adapter


def penalty(adapter: Lora, steps: int = 10, index: int = 1, name: str = "n-lora", **settings):
    ctx = context("llama", adapter, stage(index, steps=steps))
    found = method(name).build(settings).penalties(ctx)
    return found[0] if found else None


def norm_and_gradients(factors):
    """Σ ‖(α/r)·B·A‖₁ in float64, and its gradients by autograd, in the order A, B, A, B, …"""
    leaves = [f.detach().double().requires_grad_() for pair in factors for f in pair]
    pairs = zip(leaves[::2], leaves[1::2], strict=True)
    value = sum((ALPHA / RANK * (B @ A)).abs().sum() for A, B in pairs)
    value.backward()
    return float(value), [p.grad for p in leaves]


def length(tensors) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


class Recorder:
    """Keeps what each optimiser step sees: the factors, and the task's gradients by hooks."""

    name = "recorder"

    def __init__(self, adapter: Lora) -> None:
        self.parameters = [p for f in adapter.factors().values() for p in (f.A, f.B)]
        self.values, self.gradients = [], []
        self.latest = {}
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self.keep)

    def keep(self, parameter) -> None:
        self.latest[parameter] = parameter.grad.clone()

    def __call__(self, step: Step) -> None:
        self.values.append([p.detach().clone() for p in self.parameters])
        self.gradients.append([self.latest[p] for p in self.parameters])

    def notes(self) -> dict:
        return {}


@pytest.mark.parametrize(("count", "epochs", "warm_up"), [(24, 3, 4), (41, 8, 5)])
@pytest.mark.parametrize("shape", ["grouped-query", "t5-v1.1"])
def test_a_relative_weight_is_the_ratio_of_gradient_norms_after_the_warm_up(
    shape, count, epochs, warm_up
):
    rho, adapter = 0.3, begun(shape)
    recorder = Recorder(adapter)
    terms, [measured] = train_stage(
        shape,
        adapter,
        method("n-lora").build({"l1": rho}),
        tiny.task(count=count),
        extra=[recorder],
        epochs=epochs,
        accumulation=2,
        max_grad_norm=0.05,  # clipping is active, and must not show in λ
    )
    average = [torch.zeros_like(g) for g in recorder.gradients[0]]
    for step in range(warm_up):
        gradients = recorder.gradients[step]
        average = [0.9 * m + 0.1 * g for m, g in zip(average, gradients, strict=True)]
    g = length(average) / (1 - 0.9**warm_up)
    at = recorder.values[warm_up]
    h = length(norm_and_gradients(list(zip(at[::2], at[1::2], strict=True)))[1])
    weight = measured.notes()["lambda"]
    assert weight == pytest.approx(rho * g / h, rel=1e-4)
    assert measured.notes() == {
        "lambda": weight,
        "warm_up_steps": warm_up,
        "task_gradient": pytest.approx(g, rel=1e-4),
        "penalty_gradient": pytest.approx(h, rel=1e-4),
    }
    for step, (term, values) in enumerate(zip(terms, recorder.values, strict=True)):
        value, _ = norm_and_gradients(list(zip(values[::2], values[1::2], strict=True)))
        expected = weight * value if step >= warm_up else 0.0
        assert term["l1"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("unit", ["sum", "mean"])
def test_a_sum_or_a_mean_over_entries_is_in_force_from_the_first_step(unit):
    adapter = moved("grouped-query")
    factors = list(adapter.factors().values())
    value, gradients = norm_and_gradients([(f.A, f.B) for f in factors])
    entries = sum(f.A.shape[1] * f.B.shape[0] for f in factors)
    weight = 0.2 / (entries if unit == "mean" else 1)
    term = penalty(adapter, l1=0.2, l1_unit=unit)(Step(0, 10, {}))
    assert term.value == pytest.approx(weight * value, rel=1e-5)
    for (_, found), expected in zip(term.gradients, gradients, strict=True):
        torch.testing.assert_close(found.double(), weight * expected, rtol=1e-4, atol=1e-6)
    parameters = [p for f in factors for p in (f.A, f.B)]
    assert [id(p) for p, _ in term.gradients] == [id(p) for p in parameters]


def test_the_weight_may_differ_from_stage_to_stage():
    adapter = moved("llama")
    settings = {"l1": [0.2, 0.0, 0.6], "l1_unit": "sum"}
    first = penalty(adapter, index=1, **settings)(Step(0, 10, {})).value
    assert penalty(adapter, index=2, **settings) is None
    third = penalty(adapter, index=3, **settings)(Step(0, 10, {})).value
    assert third == pytest.approx(3 * first)


def test_the_released_penalty_is_its_small_product_and_needs_square_matrices():
    adapter = moved("llama")
    expected = sum(float((f.A @ f.B).abs().sum()) for f in adapter.factors().values())
    term = penalty(adapter, penalty="released", l1=0.4, l1_unit="sum")(Step(0, 10, {}))
    assert term.value == pytest.approx(0.4 * expected, rel=1e-5)
    with pytest.raises(NloraError, match="needs in = out"):
        penalty(moved("grouped-query"), penalty="released", l1=0.4, l1_unit="sum")(Step(0, 1, {}))


def test_a_penalty_without_adapters_is_one_clear_line():
    with pytest.raises(NloraError, match="adapter=lora"):
        penalty(begun("llama"), name="replay", penalty="l1", l1=0.1)


def test_an_adapter_that_does_not_move_is_one_clear_line():
    with pytest.raises(NloraError, match="did not move"):
        train_stage(
            "llama",
            begun("llama"),
            method("n-lora").build({}),
            tiny.task(count=40),
            learning_rate=0.0,
        )


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_ns_equals_inc_lora_bit_for_bit(model, learned):
    settings = {"epochs": 3, "dropout": 0.1, "learning_rate": 1e-2, "count": 16}
    names = ("ns", "inc-lora", "n-lora")
    without, plain, penalised = (learned(model, name, TASKS[:2], **settings) for name in names)
    assert same_bits(without, plain)
    assert not same_bits(penalised, plain)


def test_each_stage_measures_its_weight_and_notes_it(llama, tmp_path):
    learn(llama, tmp_path, "n-lora", count=24, epochs=3, rank=2)
    for number, record in enumerate(stages(tmp_path), start=1):
        notes = record.notes["l1"]
        assert notes["lambda"] > 0
        assert notes["warm_up_steps"] == 4
        found = [step["l1"] for step in losses(tmp_path, number)]
        assert len(found) == 9
        assert found[:4] == [0.0] * 4
        assert min(found[4:]) > 0


def test_a_penalty_that_would_do_nothing_is_refused():
    with pytest.raises(NloraError, match="inc-lora: penalty 'frobenius' needs a weight; set l1"):
        method("inc-lora").build({"penalty": "frobenius"})
    method("inc-lora").build({"penalty": "frobenius", "l1": 0})  # as a stored run has it
    method("n-lora").build({"penalty": "frobenius"})
    with pytest.raises(NloraError, match="inc-lora: l1 weighs a penalty, and there is none"):
        method("inc-lora").build({"l1": [0.1, 0.2]})
    method("inc-lora").build({"l1": 0})
