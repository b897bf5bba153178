"""What a context offers a method: each service against a plain reference."""

from contextlib import nullcontext

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.data.batches import IGNORED
from nlora.methods.base import Method
from tests import tiny
from tests.adapters.helpers import train
from tests.loop import context, encoder, stage, train_stage

SHAPES = ["llama", "t5"]
EXAMPLES = tiny.task(count=7).train


def begun(shape: str, dropout: float = 0.5) -> Lora:
    """An adapter that has moved, in training mode, with dropout that services must not use."""
    torch.manual_seed(0)
    adapter = Lora(tiny.model(shape), rank=2, alpha=4.0, dropout=dropout)
    adapter.begin(keep_previous=True)
    train(adapter, seed=1)
    adapter.model.train()
    return adapter


def log_p(model, row, encoder_decoder: bool) -> float:
    """ln p(answer | prompt), of one example alone."""
    prompt, answer = torch.tensor([row.prompt]), torch.tensor([row.answer])
    if encoder_decoder:
        read = torch.cat([torch.zeros(1, 1, dtype=torch.long), answer[:, :-1]], dim=1)
        logits = model(input_ids=prompt, decoder_input_ids=read).logits
    else:
        logits = model(input_ids=torch.cat([prompt, answer], 1)).logits[:, prompt.shape[1] - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, answer[..., None]).sum())


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_scores_are_log_likelihoods_of_whole_answers(shape):
    adapter = begun(shape)
    ctx = context(shape, adapter, stage())
    found = ctx.score(EXAMPLES)
    assert adapter.model.training
    exact = adapter.model.double().eval()
    expected = [log_p(exact, row, shape == "t5") for row in ctx.encoder.all(EXAMPLES)]
    assert found == pytest.approx(expected, rel=1e-5)
    assert ctx.score([]) == []


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_generated_texts_are_those_of_each_prompt_alone_in_their_order(shape):
    adapter = begun(shape)
    ctx = context(shape, adapter, stage())
    prompts = [row.prompt for row in ctx.encoder.all(EXAMPLES)]
    found = ctx.generate(prompts, max_new_tokens=5, do_sample=False)
    assert adapter.model.training
    adapter.model.eval()
    for prompt, text in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        out = adapter.model.generate(
            input_ids=ids, max_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=1
        )[0]
        assert text == ctx.encoder.text(out if shape == "t5" else out[len(prompt) :])


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_states_are_the_bare_models_means_over_each_text_read_once(shape):
    adapter = begun(shape)
    ctx = context(shape, adapter, stage())
    ctx.after = lambda number: adapter.after([]) if number == 0 else None
    texts = ["one", "a longer text", "", "one"]
    found = ctx.states(texts)
    assert found.dtype == torch.float64
    base = tiny.model(shape).eval()
    for text, state in zip(texts, found, strict=True):
        ids = encoder(shape).tokenizer(text).input_ids or [1]
        reader = base.get_encoder() if shape == "t5" else base.model
        states = reader(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(state, states.double().mean(0), rtol=1e-4, atol=1e-5)
    calls = []
    adapter.model.register_forward_pre_hook(lambda *_: calls.append(1))
    assert torch.equal(ctx.states(texts), found)
    assert calls == []
    assert adapter.model.training


def test_of_ever_new_texts_a_bounded_number_of_states_is_kept(monkeypatch):
    monkeypatch.setattr("nlora.methods.context.MOST_STATES", 4)
    ctx = context("t5", begun("t5"), stage())
    ctx.after = lambda number: nullcontext()
    once = ctx.states(["first"])
    for number in range(20):
        ctx.states([f"text {number}", "another"])
    assert len(ctx.known_states[None]) <= 6
    torch.testing.assert_close(ctx.states(["first"]), once)


@pytest.mark.parametrize("shape", SHAPES)
def test_batches_hold_every_row_once_within_their_budget(shape):
    ctx = context(shape, begun(shape), stage())
    rows = ctx.encoder.all(EXAMPLES)
    seen = []
    for chosen, batch in ctx.batches(rows, tokens=120):
        assert len(chosen) == 1 or batch["input_ids"].numel() <= 120
        for i, labels in zip(chosen, batch["labels"], strict=True):
            assert labels[labels != IGNORED].tolist() == rows[i].answer
        seen += chosen
    assert sorted(seen) == list(range(len(rows)))


class Asking(Method):
    """A loss that looks at everything a loss may ask for."""

    name = "asking"
    needs_previous = True

    def __init__(self, settings):
        super().__init__(settings)
        self.seen = []

    def loss(self, ctx, batch):
        training = ctx.model.training
        rows = [ctx.examples[i] for i in batch["index"].tolist()]
        with torch.no_grad(), ctx.previous():
            old = ctx.score(rows)
        new = ctx.score(rows)
        texts = ctx.generate([ctx.encoded[i].prompt for i in batch["index"]], max_new_tokens=2)
        assert (ctx.model.training, len(texts)) == (training, len(rows))
        self.seen.append(
            (batch["index"].tolist(), ctx.stage.name, ctx.step.number, ctx.step.total, old, new)
        )
        return super().loss(ctx, batch)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_loss_may_ask_for_all_of_them_in_the_middle_of_a_step(shape):
    plain, adapter = begun(shape, 0.0), begun(shape, 0.0)
    data, settings = tiny.task(count=12), {"learning_rate": 1e-2, "epochs": 2}
    expected, _ = train_stage(shape, plain, type("Plain", (Method,), {"name": "x"})(None), data)
    built = Asking(None)
    found, _ = train_stage(shape, adapter, built, data, **settings)
    assert found[0]["task"] == expected[0]["task"]  # asking changes nothing
    assert [seen[1:4] for seen in built.seen] == [("colour", step, 4) for step in range(4)]
    base = Lora(tiny.model(shape), 2, 4.0, 0.0)
    base.begin()
    before = context(shape, base, stage()).score(data.train)
    for rows, _, _, _, old, new in built.seen:
        assert old == pytest.approx([before[i] for i in rows], rel=1e-4)
        assert new != pytest.approx(old, rel=1e-4)
