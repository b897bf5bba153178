from copy import deepcopy

import pytest
import torch

from nlora.adapters.full import Full
from nlora.adapters.lora import Lora
from nlora.data.batches import Collator
from nlora.fast.logits import answer_logits
from nlora.methods.registry import method
from tests import tiny
from tests.loop import context, encode, stage
from tests.methods.helpers import TASKS, learn, losses, same_bits

ADAPTERS = ["full", "lora"]
TOKENS = 29  # of an optimiser step that this batch is a part of


def second_stage(kind: str, shape: str, dropout: float = 0.0, **settings):
    """LwF in its second stage: the model as it was at the beginning, and as it is now."""
    torch.manual_seed(0)
    net = tiny.model(shape)
    adapter = Full(net) if kind == "full" else Lora(net, rank=4, alpha=8.0, dropout=dropout)
    lwf = method("lwf").build({"adapter": kind, **settings})
    lwf.begin(context(shape, adapter, stage(1)))
    move(adapter)
    before = deepcopy(adapter.model).eval()
    ctx = context(shape, adapter, stage(2, tiny.task("size")), tokens=TOKENS)
    lwf.begin(ctx)
    move(adapter)
    adapter.model.train()
    encoder_decoder = shape in tiny.ENCODER_DECODER
    batch = Collator(0, encoder_decoder)(encode(shape, tiny.task("size", 4)))
    return lwf, ctx, before, batch


def move(adapter):
    with torch.no_grad():
        for parameter in adapter.trainable():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)


def divergence(old, new, temperature: float):
    """Σ p_old·(ln p_old − ln p_new) over tokens and words, with p = e^(z/T) / Σ e^(z/T)."""
    p_old, p_new = (
        torch.exp(z / temperature) / torch.exp(z / temperature).sum(-1, keepdim=True)
        for z in (old, new)
    )
    return (p_old * (p_old / p_new).log()).sum()


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("shape", ["grouped-query", "t5-v1.1"])
def test_the_answers_are_held_to_those_of_the_model_before_the_stage(shape, kind):
    lwf, ctx, before, batch = second_stage(kind, shape, distillation_weight=0.7)
    adapter = ctx.adapter
    now = deepcopy(adapter.model).double()
    with torch.no_grad():
        old, _ = answer_logits(before.double(), batch)
    new, targets = answer_logits(now, batch)
    expected = 0.7 * divergence(old, new, temperature=2.0) / TOKENS
    task = torch.nn.functional.cross_entropy(new, targets, reduction="sum") / TOKENS
    (task + expected).backward()

    terms = lwf.loss(ctx, batch)
    assert terms.keys() == {"task", "distillation"}
    assert float(terms["distillation"].detach()) == pytest.approx(
        float(expected.detach()), rel=1e-4
    )
    assert float(terms["task"].detach()) == pytest.approx(float(task.detach()), rel=1e-5)
    sum(terms.values()).backward()
    leaves = [p for p in now.parameters() if p.requires_grad]
    for parameter, leaf in zip(adapter.trainable(), leaves, strict=True):
        assert torch.equal(parameter.double(), leaf)  # the model is itself again
        scale = float(leaf.grad.abs().max())
        torch.testing.assert_close(parameter.grad.double(), leaf.grad, rtol=1e-3, atol=1e-3 * scale)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_teacher_stays_what_it_was_and_learns_nothing(kind):
    lwf, ctx, before, batch = second_stage(kind, "llama")
    adapter = ctx.adapter
    terms = lwf.loss(ctx, batch)
    terms["distillation"].backward()
    torch.optim.SGD(adapter.trainable(), lr=0.1).step()
    move(adapter)
    with torch.no_grad():
        old, _ = answer_logits(before, batch)
        with adapter.previous():
            found, _ = answer_logits(adapter.model.eval(), batch)
    torch.testing.assert_close(found, old)


def test_the_teacher_has_no_dropout_and_the_student_has():
    lwf, ctx, before, batch = second_stage("lora", "llama", dropout=0.5, temperature=1.5)
    adapter = ctx.adapter
    torch.manual_seed(3)
    with torch.no_grad():
        new, _ = answer_logits(adapter.model, batch)
        old, _ = answer_logits(before, batch)
    expected = float(divergence(old.double(), new.double(), 1.5)) / TOKENS
    torch.manual_seed(3)
    found = lwf.loss(ctx, batch)["distillation"]
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    assert adapter.model.training


@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_first_task_has_no_teacher_and_costs_no_copy(kind):
    torch.manual_seed(0)
    net = tiny.model("llama")
    adapter = Full(net) if kind == "full" else Lora(net, rank=4, alpha=8.0, dropout=0.0)
    lwf = method("lwf").build({"adapter": kind})
    ctx = context("llama", adapter, stage(1), tokens=TOKENS)
    lwf.begin(ctx)
    batch = Collator(0, False)(encode("llama", tiny.task(count=4)))
    assert lwf.loss(ctx, batch).keys() == {"task"}
    assert adapter._start == []


@pytest.mark.parametrize(("model", "kind"), [("llama", "lora"), ("t5", "full")])
def test_a_run_stays_nearer_to_its_earlier_answers_the_more_they_weigh(
    model, kind, request, tmp_path
):
    far = []
    for weight in (1e-3, 30.0):
        out = tmp_path / str(weight)
        learn(
            request.getfixturevalue(model),
            out,
            "lwf",
            TASKS[:2],
            adapter=kind,
            distillation_weight=weight,
            dropout=0.0,
            learning_rate=1e-3,
            epochs=3,
            shared_prefix="off",
        )
        assert "distillation" not in losses(out, 1)[0]
        terms = [step["distillation"] / weight for step in losses(out, 2)]
        assert terms[0] == pytest.approx(0, abs=1e-6)  # nothing has moved yet
        assert min(terms[1:]) > 0
        far.append(terms[-1])
    assert far[1] < 0.7 * far[0]


def test_in_mixed_precision_the_teacher_is_the_model_before_the_stage_too(llama, tmp_path):
    settings = {"precision": "bf16", "adapter": "full", "learning_rate": 1e-3, "epochs": 2}
    learn(llama, tmp_path, "lwf", TASKS[:2], shared_prefix="off", **settings)
    first, *later = [step["distillation"] for step in losses(tmp_path, 2)]
    assert first == 0
    assert min(later) > 1e-5


@pytest.mark.parametrize(("kind", "plain"), [("full", "seq-ft"), ("lora", "seq-lora")])
def test_with_weight_zero_it_is_its_base_bit_for_bit(kind, plain, llama, learned, tmp_path):
    learn(llama, tmp_path / "lwf", "lwf", TASKS[:2], adapter=kind, distillation_weight=[1.0, 0.0])
    assert same_bits(learned("llama", plain, TASKS[:2]), tmp_path / "lwf")


@pytest.mark.parametrize(("kind", "plain"), [("full", "seq-ft"), ("lora", "seq-lora")])
def test_what_a_grid_need_not_train_twice_is_the_first_stage(kind, plain):
    mine = method("lwf").build({"adapter": kind})
    base = method(plain).build({})
    assert (mine.adapter, mine.first_stage()) == (base.adapter, base.first_stage())
