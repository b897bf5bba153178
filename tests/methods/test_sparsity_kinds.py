import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlora.adapters.lora import Lora
from nlora.errors import NloraError
from nlora.lowrank.factors import Factors
from nlora.lowrank.penalties import column_row_and_grads, column_row_shrink, frobenius_and_grads
from nlora.methods.base import Proximal
from nlora.methods.context import Step
from nlora.methods.registry import method
from nlora.training.rates import step_rates
from tests import tiny
from tests.loop import context, stage, train_stage
from tests.methods.helpers import learn, update

RANK, ALPHA = 4, 8.0
S = ALPHA / RANK

DEFINITIONS = {
    "l1": lambda A, B: (S * (B @ A)).abs().sum(),
    "l1-a": lambda A, B: A.abs().sum(),
    "l1-b": lambda A, B: B.abs().sum(),
    "l1-ab": lambda A, B: A.abs().sum() + B.abs().sum(),
    "released": lambda A, B: (A @ B).abs().sum(),
    "frobenius": lambda A, B: (S * (B @ A)).square().sum(),
    "column-row": lambda A, B: S * sum(B[:, k].norm(1) * A[k].norm(1) for k in range(RANK)),
}
TERMS = {
    "l1": lambda A, B: A.shape[1] * B.shape[0],
    "l1-a": lambda A, B: A.numel(),
    "l1-b": lambda A, B: B.numel(),
    "l1-ab": lambda A, B: A.numel() + B.numel(),
    "released": lambda A, B: RANK * RANK,
    "frobenius": lambda A, B: A.shape[1] * B.shape[0],
    "column-row": lambda A, B: A.shape[1] * B.shape[0],
}


def begun(shape="grouped-query", moved=True) -> Lora:
    torch.manual_seed(0)
    adapter = Lora(tiny.model(shape), RANK, ALPHA, dropout=0.0)
    adapter.begin()
    if moved:
        with torch.no_grad():
            for factors in adapter.factors().values():
                factors.B.normal_(std=0.1)
    return adapter


def penalty(adapter: Lora, name="n-lora", steps=10, **settings):
    ctx = context("llama", adapter, stage(steps=steps))
    found = method(name).build(settings).penalties(ctx)
    return found[0] if found else None


def defined(adapter: Lora, kind: str):
    """The penalty's definition in float64, and its gradients by autograd: A, B, A, B, …"""
    factors = adapter.factors().values()
    leaves = [p.detach().double().requires_grad_() for f in factors for p in (f.A, f.B)]
    pairs = list(zip(leaves[::2], leaves[1::2], strict=True))
    value = sum(DEFINITIONS[kind](A, B) for A, B in pairs)
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    grads = [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, grads, strict=True)]
    return float(value.detach()), grads, sum(TERMS[kind](A, B) for A, B in pairs)


def shape_for(kind: str) -> str:
    return "llama" if kind == "released" else "grouped-query"  # released needs in = out


@pytest.mark.parametrize("unit", ["sum", "mean"])
@pytest.mark.parametrize("kind", DEFINITIONS)
def test_each_penalty_is_its_definition_with_its_gradient(kind, unit):
    adapter = begun(shape_for(kind))
    value, gradients, count = defined(adapter, kind)
    weight = 0.3 / (count if unit == "mean" else 1)
    term = penalty(adapter, penalty=kind, l1=0.3, l1_unit=unit)(Step(0, 10, {}))
    assert term.value == pytest.approx(weight * value, rel=1e-5)
    if kind == "column-row":
        assert term.gradients == []  # it acts after the step
        return
    for (_, found), expected in zip(term.gradients, gradients, strict=True):
        torch.testing.assert_close(found.double(), weight * expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_a_relative_weight_makes_the_gradient_of_any_penalty_a_share_of_the_tasks(kind):
    adapter = begun(shape_for(kind))
    _, gradients, _ = defined(adapter, kind)
    parameters = [p for f in adapter.factors().values() for p in (f.A, f.B)]
    made = penalty(adapter, penalty=kind, l1=0.2)
    task = {p: torch.full_like(p, 0.5) for p in parameters}
    assert [made(Step(k, 10, task)) for k in range(4)] == [None] * 4  # the warm-up
    made(Step(4, 10, task))
    g = 0.5 * sum(p.numel() for p in parameters) ** 0.5
    h = sum(float(x.square().sum()) for x in gradients) ** 0.5
    assert made.notes()["lambda"] == pytest.approx(0.2 * g / h, rel=1e-4)


NAMES = {
    "ns": ("none", 0.0, "relative"),
    "sa": ("l1-a", None, "relative"),
    "sb": ("l1-b", None, "relative"),
    "sab": ("l1-ab", None, "relative"),
    "released": ("released", 0.4, "sum"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_ablations_of_the_paper_have_names(name):
    kind, weight, unit = NAMES[name]
    settings = method(name).build({}).settings
    default = method("n-lora").build({}).settings.l1
    assert (settings.penalty, settings.l1_unit) == (kind, unit)
    assert settings.l1 == (default if weight is None else weight)
    assert method(name).build({"l1": 0.7}).settings.l1 == 0.7
    assert (penalty(begun("llama"), name) is None) == (name == "ns")


@pytest.mark.parametrize("weight", [-0.1, float("nan"), [0.1, -1.0]])
def test_a_negative_weight_is_one_clear_line(weight):
    with pytest.raises(NloraError, match=r"setting 'l1': .* (number of at least 0|finite number)"):
        method("sa").build({"l1": weight})
    [pair] = random_factors(1)
    with pytest.raises(NloraError, match="the weight must be a number of at least 0"):
        column_row_shrink([pair], min(weight) if isinstance(weight, list) else weight, [(1, 1)])


def random_factors(seed, out=5, size=7, rank=3, scaling=-2.0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(rank, size, generator=generator, dtype=torch.float64)
    B = torch.randn(out, rank, generator=generator, dtype=torch.float64)
    return [Factors(A, B, scaling)]


@given(st.integers(0, 1000), st.integers(1, 4), st.sampled_from([-2.0, 0.5]))
def test_column_row_bounds_the_l1_norm_and_equals_it_at_rank_1(seed, rank, scaling):
    factors = random_factors(seed, rank=rank, scaling=scaling)
    bound, norm = column_row_and_grads(factors)[0], factors[0].delta().abs().sum()
    assert bound >= norm * (1 - 1e-12)
    assert rank > 1 or bound == pytest.approx(float(norm))


def test_bad_factors_of_a_cheap_penalty_are_one_clear_line():
    [pair] = random_factors(0)
    with pytest.raises(NloraError, match="ranks differ"):
        column_row_shrink([pair._replace(B=torch.ones(5, 2).double())], 1.0, [(1, 1)])
    pair.A[0, 0] = float("nan")
    with pytest.raises(NloraError, match="matrix 1: A has entries that are NaN"):
        frobenius_and_grads([pair])


def proximal(old, new, threshold):
    """Whether `new` minimises ½(new − old)² + threshold·|new|: 0 is a subgradient, per entry."""
    slope = old - new
    return torch.where(
        new == 0,
        slope.abs() <= threshold + 1e-12,
        (slope - threshold * new.sign()).abs() < 1e-12,
    ).all()


@given(st.integers(0, 1000), st.floats(0.0, 0.5), st.booleans())
def test_the_step_is_the_proximal_one_of_b_and_then_of_a(seed, weight, per_entry):
    [(A, B, scaling)] = random_factors(seed)
    old_a, old_b = A.clone(), B.clone()
    rate_a, rate_b = (A.abs(), B.square()) if per_entry else (0.3, 0.2)
    column_row_shrink([Factors(A, B, scaling)], weight, [(rate_a, rate_b)])
    size = weight * abs(scaling)
    assert proximal(old_b, B, size * rate_b * old_a.abs().sum(1))
    assert proximal(old_a, A, size * rate_a * B.abs().sum(0)[:, None])


def test_a_rate_is_what_the_optimiser_made_of_a_unit_of_gradient():
    moved, still = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(2))
    gradient = torch.tensor([[0.5, -2.0, 1e-3], [4.0, 0.0, 1.0]])
    adam = torch.optim.AdamW([moved, still], lr=0.1, weight_decay=0.0)
    before = moved.detach().clone()
    for _ in range(3):
        moved.grad, still.grad = gradient.clone(), torch.zeros(2)
        last = moved.detach().clone()
        adam.step()
    assert not moved.equal(before)
    rates = step_rates(adam, 0.25)
    torch.testing.assert_close(rates(moved) * gradient, 0.25 * (last - moved.detach()))
    assert rates(still).tolist() == [0.0, 0.0]  # no gradient, no step
    assert step_rates(torch.optim.SGD([moved], lr=0.1), 0.5)(moved) == pytest.approx(0.05)


def test_the_proximal_step_follows_the_optimisers_at_the_clipped_rate():
    class Recorder:
        """Sees the factors and the task's gradient at each step."""

        name = "recorder"

        def __init__(self, adapter):
            self.factors, self.seen = list(adapter.factors().values()), []

        def __call__(self, step):
            self.seen.append(
                [
                    (f.detach().clone(), step.gradients[f].clone())
                    for p in self.factors
                    for f in p[:2]
                ]
            )

        def notes(self):
            return {}

    adapter, clip, rate, weight = begun(), 0.05, 0.3, 0.02
    recorder = Recorder(adapter)
    built = method("n-lora").build({"penalty": "column-row", "l1": weight, "l1_unit": "sum"})
    settings = {"optimizer": "sgd", "learning_rate": rate, "max_grad_norm": clip}
    train_stage("grouped-query", adapter, built, tiny.task(count=16), [recorder], **settings)
    first, second = recorder.seen
    norm = sum(float(g.square().sum()) for _, g in first) ** 0.5
    clipped = rate * clip / norm
    assert norm > clip
    for j in range(0, len(first), 2):
        (A, dA), (B, dB) = first[j : j + 2]
        factors = Factors(A - clipped * dA, B - clipped * dB, S)
        column_row_shrink([factors], weight, [(clipped, clipped)])
        torch.testing.assert_close(second[j][0], factors.A)
        torch.testing.assert_close(second[j + 1][0], factors.B)


def test_only_column_row_acts_after_the_step():
    adapter = begun("llama")
    acting = [k for k in DEFINITIONS if isinstance(penalty(adapter, penalty=k, l1=1.0), Proximal)]
    assert acting == ["column-row"]


def test_exact_zeros_reach_the_saved_adapter_and_its_update(llama, tmp_path):
    settings = {"epochs": 4, "learning_rate": 1e-2, "penalty": "column-row"}
    learn(llama, tmp_path / "sparse", "n-lora", tasks=("colour",), count=24, l1=0.5, **settings)
    learn(llama, tmp_path / "dense", "n-lora", tasks=("colour",), count=24, l1=0.0, **settings)
    sparse, dense = update(tmp_path / "sparse", 1), update(tmp_path / "dense", 1)
    zeros = {name: float((tensor == 0).float().mean()) for name, tensor in sparse.items()}
    assert min(share for name, share in zeros.items() if "lora_B" in name) > 0.1
    assert not any((tensor == 0).any() for tensor in dense.values())
    for name, A in sparse.items():
        if "lora_A" in name:
            B = sparse[name.replace("lora_A", "lora_B")]
            empty = ((B != 0).float() @ (A != 0).float()) == 0  # b_ik·a_kj = 0 for every k
            assert empty.any()
            assert not (B @ A)[empty].any()
