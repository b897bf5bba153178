import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.methods.context import Step
from nlora.methods.registry import method
from nlora.methods.sdft import SHOWN
from tests import tiny
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, same_bits, stages

SAID = ("red", "blue or grey", "gre")


def logits_after(ctx, example, answer: str) -> torch.Tensor:
    """Of each token of an answer and its end, in float64, one example by itself."""
    [row] = ctx.encoder.all([type(example)(example.task, example.text, answer)])
    [(_, batch)] = list(ctx.batches([row]))
    with torch.no_grad():
        return ctx.logits(batch).logits.double()


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_loss_is_the_divergence_from_the_model_that_is_shown_the_answer(shape, monkeypatch):
    adapter = Lora(tiny.model(shape), 2, 4.0, 0.0)
    ctx = context(shape, adapter, stage())
    data = tiny.task()
    ctx.examples, ctx.tokens = data.train[:3], 20
    ctx.encoded = ctx.encoder.all(ctx.examples)
    monkeypatch.setattr(ctx, "generate", lambda prompts, **sampling: list(SAID))
    sdft = method("sdft").build({"adapter": "lora", "teacher_rate": 0.25})
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
    total, count = 0.0, 0
    for mine, theirs in zip(own, taught, strict=True):
        for p, q in zip(mine.softmax(-1), theirs.softmax(-1), strict=True):
            total, count = total + float((p * (p / q).log()).sum()), count + 1
    [(_, batch)] = list(ctx.batches(ctx.encoded))
    batch["index"] = torch.arange(3)
    tokens = sum(len(row.answer) for row in ctx.encoded)
    found = sdft.loss(ctx, batch)["task"]
    assert found.item() == pytest.approx(total / count * tokens / 20, rel=1e-4)
    found.backward()
    assert any(p.grad is not None and p.grad.any() for p in adapter.trainable())
    ctx.step = Step(0, 10)
    sdft.after_step(ctx)
    for name, parameter in adapter.trained().items():
        expected = 0.25 * parameter + 0.75 * before[name]
        torch.testing.assert_close(sdft.state.teacher[name], expected)


def test_a_run_is_the_same_twice_and_keeps_no_teacher(llama, tmp_path):
    settings = {"adapter": "lora", "learning_rate": 1e-2, "tasks": TASKS[:2], "count": 6}
    for out in ("one", "two"):
        learn(llama, tmp_path / out, "sdft", **settings)
    assert same_bits(tmp_path / "one", tmp_path / "two")
    assert not list(tmp_path.glob("one/stages/*/state/*.safetensors"))
    assert [record.steps for record in stages(tmp_path / "one")] == [1, 1]
