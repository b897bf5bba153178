import pytest
import torch
from safetensors.torch import load_file

from nlora.adapters.full import Full
from nlora.adapters.lora import Lora
from nlora.errors import NloraError
from nlora.methods.context import Stage, Step
from nlora.methods.registry import method
from nlora.store.state import read_state, write_state
from tests import tiny
from tests.loop import context
from tests.methods.helpers import TASKS, first_stages, learn, losses, same_bits, update

LAMBDA = 30.0


def adapter_of(kind: str):
    torch.manual_seed(0)
    net = tiny.model("llama")
    return Full(net) if kind == "full" else Lora(net, rank=2, alpha=4.0, dropout=0.0)


def at(adapter, index: int):
    """The context of a stage."""
    data = tiny.task(TASKS[index - 1])
    return context("llama", adapter, Stage(index, data.name, (data,), seed=index))


def values(adapter):
    return [p.detach().double() for p in adapter.trainable()]


def move(adapter):
    with torch.no_grad():
        for parameter in adapter.trainable():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


class Given:
    """Fisher information that is made up, with zeros, and remembered with the parameters."""

    def __init__(self, monkeypatch, adapter) -> None:
        self.adapter, self.fisher, self.anchors, self.examples = adapter, [], [], []
        monkeypatch.setattr("nlora.methods.parts.fisher.diagonal_fisher", self)

    def __call__(self, ctx, parameters, examples):
        made = [torch.rand_like(p) * (torch.rand_like(p) > 0.3) for p in parameters]
        self.fisher.append([f.double() for f in made])
        self.anchors.append(values(self.adapter))
        self.examples.append(examples)
        return [f.detach() for f in made]


def after_three(monkeypatch, kind: str, **settings):
    """EWC that has seen three tasks, at parameters that have moved on since."""
    adapter = adapter_of(kind)
    given = Given(monkeypatch, adapter)
    ewc = method("ewc").build({"adapter": kind, "ewc_lambda": LAMBDA, **settings})
    for index in (1, 2, 3):
        ewc.begin(at(adapter, index))
        move(adapter)
        ewc.end(at(adapter, index))
    ewc.begin(at(adapter, 1))
    return adapter, given, ewc


def check(penalty, adapter, pairs):
    """Value and gradient of ½λ Σ F(θ − θ*)² over the pairs (F, θ*), by autograd in float64."""
    move(adapter)
    leaves = [v.requires_grad_() for v in values(adapter)]
    total = sum(
        (f * (leaf - anchor) ** 2).sum()
        for fisher, anchors in pairs
        for leaf, f, anchor in zip(leaves, fisher, anchors, strict=True)
    )
    (0.5 * LAMBDA * total).backward()
    term = penalty(Step(0, 10, {}))
    assert term.value == pytest.approx(0.5 * LAMBDA * float(total.detach()), rel=1e-4)
    assert [id(p) for p, _ in term.gradients] == [id(p) for p in adapter.trainable()]
    for (_, found), leaf in zip(term.gradients, leaves, strict=True):
        torch.testing.assert_close(found.double(), leaf.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_every_earlier_task_pulls_towards_where_it_ended(kind, monkeypatch):
    adapter, given, ewc = after_three(monkeypatch, kind)
    [penalty] = ewc.penalties(at(adapter, 1))
    check(penalty, adapter, list(zip(given.fisher, given.anchors, strict=True)))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_online_the_fisher_information_decays_and_the_newest_parameters_pull(kind, monkeypatch):
    adapter, given, ewc = after_three(monkeypatch, kind, mode="online", decay=0.7)
    [penalty] = ewc.penalties(at(adapter, 1))
    fisher = [0.49 * a + 0.7 * b + c for a, b, c in zip(*given.fisher, strict=True)]
    check(penalty, adapter, [(fisher, given.anchors[-1])])


@pytest.mark.parametrize("settings", [{}, {"mode": "online", "decay": 0.5}])
def test_the_state_costs_the_same_after_any_task_and_survives_files(
    settings, monkeypatch, tmp_path
):
    adapter, _, ewc = after_three(monkeypatch, "lora", **settings)
    write_state(tmp_path, ewc.state)
    tensors = load_file(tmp_path / "state.safetensors")
    size = sum(p.numel() for p in adapter.trainable())
    copies = 1 if settings else 2  # online the anchor is the model itself
    assert sum(t.numel() for t in tensors.values()) == copies * size
    again = method("ewc").build(ewc.settings.model_dump())
    again.state = read_state(tmp_path, again.State)
    [whole], [resumed] = (e.penalties(at(adapter, 2)) for e in (ewc, again))
    move(adapter)
    one, other = (p(Step(0, 10, {})) for p in (whole, resumed))
    assert one.value == other.value
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(one.gradients, other.gradients, strict=True)
    )


def test_the_fisher_information_is_taken_of_a_seeded_sample_of_the_task(monkeypatch):
    def drawn(count, seed=1):
        adapter = adapter_of("lora")
        given = Given(monkeypatch, adapter)
        data = tiny.task("colour", 30)
        ewc = method("ewc").build({"adapter": "lora", "fisher_examples": count})
        adapter.begin()
        ctx = context("llama", adapter, Stage(1, "colour", (data,), seed=seed))
        ewc.end(ctx)
        every = [ctx.encoder(e) for e in data.train]
        return [every.index(e) for e in given.examples[0]]

    assert drawn(None) == list(range(30))
    assert len(drawn(6)) == 6
    assert [sorted(i % 3 for i in drawn(6))] == [[0, 0, 1, 1, 2, 2]]  # two of each label
    assert drawn(6) == drawn(6)
    assert drawn(6) != drawn(6, seed=2)


@pytest.mark.parametrize(("model", "kind"), [("llama", "full"), ("t5", "lora")])
def test_a_firmer_hold_leaves_the_model_nearer_to_where_it_was(model, kind, request, tmp_path):
    moved = []
    for weight in (0.1, 1e5):
        out = tmp_path / str(weight)
        learn(
            request.getfixturevalue(model),
            out,
            "ewc",
            TASKS[:2],
            adapter=kind,
            ewc_lambda=weight,
            learning_rate=1e-3,
            epochs=2,
        )
        assert "ewc" not in losses(out, 1)[0]
        terms = [step["ewc"] for step in losses(out, 2)]
        assert terms[0] == pytest.approx(0, abs=1e-9)  # nothing has moved yet
        assert terms[1] > 0
        fisher = load_file(out / "stages" / "001-colour" / "state" / "state.safetensors")
        first, second = update(out, 1), update(out, 2)
        names = {name.replace(".default", ""): name for name in fisher if name.startswith("fisher")}
        moved.append(
            sum(
                float((fisher[names[f"fisher.{n}"]] * (second[n] - first[n]) ** 2).sum())
                for n in first
            )
        )
    assert moved[1] < 0.8 * moved[0]


@pytest.mark.parametrize(("kind", "plain"), [("full", "seq-ft"), ("lora", "seq-lora")])
def test_with_weight_zero_it_is_its_base_bit_for_bit(kind, plain, llama, learned, tmp_path):
    learn(llama, tmp_path / "ewc", "ewc", TASKS[:2], adapter=kind, ewc_lambda=0.0)
    assert same_bits(learned("llama", plain, TASKS[:2]), tmp_path / "ewc")
    assert not (tmp_path / "ewc" / "stages" / "001-colour" / "state").exists()


def test_the_penalty_on_the_updates_entries_combines_with_it_over_lora(llama, tmp_path):
    settings = {"penalty": "l1", "l1": 1e-3, "l1_unit": "sum"}
    learn(llama, tmp_path, "ewc", TASKS[:2], adapter="lora", **settings)
    assert min(step["l1"] for step in losses(tmp_path, 2)) > 0
    assert losses(tmp_path, 2)[-1]["ewc"] > 0
    with pytest.raises(NloraError, match="adapter=lora"):
        method("ewc").build(settings)


@pytest.mark.parametrize(
    ("kind", "settings"), [("full", {}), ("lora", {"mode": "online", "decay": 0.9})]
)
def test_a_run_that_is_stopped_ends_as_an_unbroken_one(kind, settings, llama, learned, tmp_path):
    settings = {**settings, "adapter": kind, "learning_rate": 1e-3}
    whole = learned("llama", "ewc", **settings)
    learn(llama, first_stages(whole, 2, tmp_path / "out"), "ewc", **settings)
    assert same_bits(tmp_path / "out", whole)
