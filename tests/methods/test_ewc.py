from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from nlora.carriers.full import Full
from nlora.carriers.lora import Lora
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.errors import NloraError
from nlora.methods.base import Stage, Step
from nlora.methods.registry import method
from nlora.training.learner import Learner
from nlora.training.progress import Silent
from tests import tiny
from tests.methods.helpers import TASKS, learn, losses, same_bits, update

LAMBDA = 30.0


def learner(kind: str, shape: str = "llama"):
    torch.manual_seed(0)
    net, encoder_decoder = tiny.model(shape), shape in tiny.ENCODER_DECODER
    carrier = Full(net) if kind == "full" else Lora(net, rank=2, alpha=4.0, dropout=0.0)
    encoder = Encoder(tiny.tokenizer(encoder_decoder), Prompter(), encoder_decoder)
    return SimpleNamespace(carrier=carrier, encoder=encoder, watcher=Silent())


def stage(index: int, count: int = 12) -> Stage:
    return Stage(index, TASKS[index - 1], (tiny.task(TASKS[index - 1], count),), seed=index)


def values(carrier):
    return [p.detach().double() for p in carrier.trainable()]


def move(carrier):
    with torch.no_grad():
        for parameter in carrier.trainable():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


class Given:
    """Fisher information that is made up, with zeros, and remembered with the parameters."""

    def __init__(self, monkeypatch, carrier) -> None:
        self.carrier, self.fisher, self.anchors, self.examples = carrier, [], [], []
        monkeypatch.setattr("nlora.methods.ewc.diagonal_fisher", self)

    def __call__(self, model, parameters, examples, collator, advance):
        made = [torch.rand_like(p) * (torch.rand_like(p) > 0.3) for p in parameters]
        self.fisher.append([f.double() for f in made])
        self.anchors.append(values(self.carrier))
        self.examples.append(examples)
        return [f.detach() for f in made]


def after_three(monkeypatch, kind: str, **settings):
    """EWC that has seen three tasks, at parameters that have moved on since."""
    made = learner(kind)
    given = Given(monkeypatch, made.carrier)
    ewc = method("ewc").build({"carrier": kind, "ewc_lambda": LAMBDA, **settings})
    for index in (1, 2, 3):
        ewc.begin(made, stage(index))
        move(made.carrier)
        ewc.end(made, stage(index))
    ewc.begin(made, stage(1))
    return made, given, ewc


def check(penalty, carrier, pairs):
    """Value and gradient of ½λ Σ F(θ − θ*)² over the pairs (F, θ*), by autograd in float64."""
    move(carrier)
    leaves = [v.requires_grad_() for v in values(carrier)]
    total = sum(
        (f * (leaf - anchor) ** 2).sum()
        for fisher, anchors in pairs
        for leaf, f, anchor in zip(leaves, fisher, anchors, strict=True)
    )
    (0.5 * LAMBDA * total).backward()
    term = penalty(Step(0, 10, {}))
    assert term.value == pytest.approx(0.5 * LAMBDA * float(total.detach()), rel=1e-4)
    assert [id(p) for p, _ in term.gradients] == [id(p) for p in carrier.trainable()]
    for (_, found), leaf in zip(term.gradients, leaves, strict=True):
        torch.testing.assert_close(found.double(), leaf.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_every_earlier_task_pulls_towards_where_it_ended(kind, monkeypatch):
    made, given, ewc = after_three(monkeypatch, kind)
    [penalty] = ewc.penalties(made, stage(1))
    check(penalty, made.carrier, list(zip(given.fisher, given.anchors, strict=True)))


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_online_the_fisher_information_decays_and_the_newest_parameters_pull(kind, monkeypatch):
    made, given, ewc = after_three(monkeypatch, kind, mode="online", decay=0.7)
    [penalty] = ewc.penalties(made, stage(1))
    fisher = [0.49 * a + 0.7 * b + c for a, b, c in zip(*given.fisher, strict=True)]
    check(penalty, made.carrier, [(fisher, given.anchors[-1])])


@pytest.mark.parametrize("settings", [{}, {"mode": "online", "decay": 0.5}])
def test_the_state_costs_the_same_after_any_task_and_survives_files(
    settings, monkeypatch, tmp_path
):
    made, _, ewc = after_three(monkeypatch, "lora", **settings)
    ewc.save(tmp_path)
    [file] = tmp_path.iterdir()
    tensors = load_file(file)
    size = sum(p.numel() for p in made.carrier.trainable())
    copies = 1 if settings else 2  # online the anchor is the model itself
    assert sum(t.numel() for t in tensors.values()) == copies * size + 1
    again = method("ewc").build(ewc.settings.model_dump())
    again.load(tmp_path)
    [whole], [resumed] = (e.penalties(made, stage(2)) for e in (ewc, again))
    move(made.carrier)
    one, other = (p(Step(0, 10, {})) for p in (whole, resumed))
    assert one.value == other.value
    assert all(
        torch.equal(a, b) for (_, a), (_, b) in zip(one.gradients, other.gradients, strict=True)
    )


def test_the_fisher_information_is_taken_of_a_seeded_sample_of_the_task(monkeypatch):
    def drawn(count, seed=1):
        made = learner("lora")
        given = Given(monkeypatch, made.carrier)
        data = tiny.task("colour", 30)
        ewc = method("ewc").build({"carrier": "lora", "fisher_examples": count})
        made.carrier.begin()
        ewc.end(made, Stage(1, "colour", (data,), seed=seed))
        every = [made.encoder(e) for e in data.train]
        return [every.index(e) for e in given.examples[0]]

    assert drawn(None) == list(range(30))
    assert len(drawn(6)) == 6
    assert [sorted(i % 3 for i in drawn(6))] == [[0, 0, 1, 1, 2, 2]]  # two of each label
    assert drawn(6) == drawn(6)
    assert drawn(6) != drawn(6, seed=2)


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("model", ["llama", "t5"])
def test_a_firmer_hold_leaves_the_model_nearer_to_where_it_was(model, kind, request, tmp_path):
    moved = []
    for weight in (0.1, 1e5):
        out = tmp_path / str(weight)
        learn(
            request.getfixturevalue(model),
            out,
            "ewc",
            TASKS[:2],
            carrier=kind,
            ewc_lambda=weight,
            learning_rate=1e-3,
            epochs=2,
        )
        assert "ewc" not in losses(out, 1)[0]
        terms = [step["ewc"] for step in losses(out, 2)]
        assert terms[0] == pytest.approx(0, abs=1e-9)  # nothing has moved yet
        assert terms[1] > 0
        fisher = load_file(out / "stages" / "001-colour" / "state" / "ewc.safetensors")
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
def test_with_weight_zero_it_is_its_base_bit_for_bit(kind, plain, llama, tmp_path):
    learn(llama, tmp_path / "plain", plain, TASKS[:2])
    learn(llama, tmp_path / "ewc", "ewc", TASKS[:2], carrier=kind, ewc_lambda=0.0)
    assert same_bits(tmp_path / "plain", tmp_path / "ewc")
    assert not (tmp_path / "ewc" / "stages" / "001-colour" / "state").exists()


def test_the_penalty_on_the_updates_entries_combines_with_it_over_lora(llama, tmp_path):
    settings = {"penalty": "l1", "l1": 1e-3, "l1_unit": "sum"}
    learn(llama, tmp_path, "ewc", TASKS[:2], carrier="lora", **settings)
    assert min(step["l1"] for step in losses(tmp_path, 2)) > 0
    assert losses(tmp_path, 2)[-1]["ewc"] > 0
    with pytest.raises(NloraError, match="carrier=lora"):
        method("ewc").build(settings)


@pytest.mark.parametrize(
    ("kind", "settings"), [("full", {}), ("lora", {"mode": "online", "decay": 0.9})]
)
def test_a_run_that_is_killed_ends_as_an_unbroken_one(kind, settings, llama, tmp_path, monkeypatch):
    settings = {**settings, "carrier": kind, "learning_rate": 1e-3}
    learn(llama, tmp_path / "whole", "ewc", **settings)
    original = Learner.learn

    def stop_in_the_third(self, stage, tested):
        if stage.index == 3:
            raise KeyboardInterrupt
        return original(self, stage, tested)

    monkeypatch.setattr(Learner, "learn", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        learn(llama, tmp_path / "broken", "ewc", **settings)
    monkeypatch.undo()
    learn(llama, tmp_path / "broken", "ewc", **settings)
    assert same_bits(tmp_path / "broken", tmp_path / "whole")
