from dataclasses import replace

import pytest
import torch

from nlora import processes
from nlora.adapters.lora import Lora
from nlora.continual.building import load_base
from nlora.data.batches import Collator
from nlora.errors import NloraError
from nlora.methods.context import Step
from nlora.methods.registry import method
from nlora.methods.sdft import SHOWN
from nlora.plan.resolve import resolve
from nlora.store.directory import ModelDirectory
from tests import tiny
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, same_bits, stages
from tests.runs import FAST, config

SAID = ("red", "blue or grey", "gre")


def logits_after(ctx, example, answer: str) -> torch.Tensor:
    """Of each token of an answer and its end, in float64, one example by itself."""
    [row] = ctx.encoder.all([type(example)(example.task, example.text, answer)])
    [(_, batch)] = list(ctx.batches([row]))
    with torch.no_grad():
        return ctx.logits(batch).logits.double()


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_loss_is_the_divergence_from_the_model_that_is_shown_the_answer(
    shape, divergence, monkeypatch
):
    adapter = Lora(tiny.model(shape), 2, 4.0, 0.0)
    ctx = context(shape, adapter, stage())
    data = tiny.task()
    ctx.examples, ctx.tokens = data.train[:3], 20
    ctx.encoded = ctx.encoder.all(ctx.examples)
    ids = [
        row.answer[:-1]
        for row in ctx.encoder.all([replace(ctx.examples[0], label=s) for s in SAID])
    ]
    monkeypatch.setattr(ctx, "generated", lambda prompts, **sampling: ids)
    sdft = method("sdft").build({"adapter": "lora", "teacher_rate": 0.25, "divergence": divergence})
    sdft.begin(ctx)
    before = {name: p.detach().clone() for name, p in adapter.trained().items()}
    shown = [
        type(e)(e.task, SHOWN.format(answer=e.label, text=e.text), e.label) for e in ctx.examples
    ]
    taught = [logits_after(ctx, e, said) for e, said in zip(shown, SAID, strict=True)]
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.trainable():
            parameter.add_(0.3 * torch.randn_like(parameter))
    own = [logits_after(ctx, e, said) for e, said in zip(ctx.examples, SAID, strict=True)]
    means = []
    for mine, theirs in zip(own, taught, strict=True):
        pairs = [*zip(mine.softmax(-1), theirs.softmax(-1), strict=True)]
        if divergence == "forward":
            pairs = [(q, p) for p, q in pairs]
        means.append(sum(float((p * (p / q).log()).sum()) for p, q in pairs) / len(pairs))
    [(_, batch)] = list(ctx.batches(ctx.encoded))
    batch["index"] = torch.arange(3)
    tokens = sum(len(row.answer) for row in ctx.encoded)
    found = sdft.loss(ctx, batch)["task"]
    assert found.item() == pytest.approx(sum(means) / 3 * tokens / 20, rel=1e-4)
    found.backward()
    assert any(p.grad is not None and p.grad.any() for p in adapter.trainable())
    ctx.step = Step(0, 10)
    sdft.after_step(ctx)
    for name, parameter in adapter.trained().items():
        expected = 0.25 * parameter + 0.75 * before[name]
        torch.testing.assert_close(sdft.state.teacher[name], expected)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_an_answer_is_learned_token_by_token_as_it_was_written(shape, monkeypatch):
    """A text may be other tokens than those it was made of: a space at its beginning is one."""
    ctx = context(shape, Lora(tiny.model(shape), 2, 4.0, 0.0), stage())
    ctx.adapter.begin()
    ctx.examples = tiny.task().train[:3]
    ctx.encoded = ctx.encoder.all(ctx.examples)
    sdft = method("sdft").build({"adapter": "lora", "answer_tokens": 7, "temperature": 1e-4})
    said = sdft._answers(ctx, ctx.examples)
    model, prompts = ctx.model.eval(), [ids for ids, _ in ctx.encoder.prompts(ctx.examples)]
    collated = Collator(0, shape == "t5").prompts(prompts)
    ends = {"eos_token_id": ctx.encoder.end(), "pad_token_id": 0}
    out = model.generate(**collated, do_sample=False, max_new_tokens=7, **ends)
    begun = 1 if shape == "t5" else collated["input_ids"].shape[1]
    for row, prompt, ids in zip(said, prompts, out[:, begun:].tolist(), strict=True):
        assert row.prompt == prompt
        assert row.answer[-1] == ctx.encoder.end()
        assert row.answer[:-1] == ids[: len(row.answer) - 1]
        assert len(row.answer) == 8 or ids[len(row.answer) - 1] == ctx.encoder.end()


@pytest.mark.parametrize(
    "more", [{"loss": "among-labels"}, {"replay": "self", "rehearsal": "soft"}]
)
def test_what_would_do_nothing_is_refused(more):
    with pytest.raises(NloraError, match="learns its own answers"):
        method("sdft").build(more).check()


def test_a_run_is_the_same_twice_and_keeps_no_teacher(llama, tmp_path):
    settings = {"adapter": "lora", "learning_rate": 1e-2, "tasks": TASKS[:2], "count": 6}
    for out in ("one", "two"):
        learn(llama, tmp_path / out, "sdft", **settings)
    assert same_bits(tmp_path / "one", tmp_path / "two")
    assert not list(tmp_path.glob("one/stages/*/state/*.safetensors"))
    assert [record.steps for record in stages(tmp_path / "one")] == [1, 1]


def test_sharded_weights_are_refused_since_processes_write_different_answers(
    llama, tmp_path, monkeypatch
):
    settings = {**FAST, "adapter": "lora", "sharding": "fsdp"}
    plan = resolve(config(llama, None, settings, method="sdft"), [tiny.task("colour", 12)])
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(NloraError, match="sharding=fsdp: sdft writes texts in its steps"):
        load_base(plan, ModelDirectory(tmp_path), fp32=False)
