"""The loss of answers: over the vocabulary or among labels, of one answer or of a whole thought."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from nlora.adapters.lora import Lora
from nlora.data.batches import Collator
from nlora.data.task import Example, Task
from nlora.methods.parts.answers import divergence
from nlora.methods.registry import method
from tests import tiny
from tests.loop import context, stage
from tests.methods.helpers import TASKS, learn, losses, stages

SHAPES = ["llama", "t5"]
LABELS = ("no", "no way", "not", "yes")  # one begins others, so that its end is one of two tokens
ASKED = Task("asked", "Is it?", LABELS)


def prepared(shape, examples, kept=None, own=None, **settings):
    """A method, its context and a batch of these examples, of which `own` are the stage's own."""
    built = method("inc-lora").build(settings)
    ctx = context(shape, Lora(tiny.model(shape), 4, 8.0, 0.0), stage())
    ctx.examples, ctx.own = examples, len(examples) if own is None else own
    if kept is not None:
        built.state.rehearsal.texts = list(dict.fromkeys(e.text for e in examples))
        built.state.rehearsal.probabilities = {"asked": kept}
    rows = ctx.encoder.all(examples)
    batch = Collator(0, ctx.encoder.encoder_decoder)(rows)
    batch["index"] = torch.arange(len(rows))
    return built, ctx, batch


def by_hand(ctx, examples):
    """ln p of every token of every label after each example's prompt, and what may stand there."""
    found = []
    ids = {label: list(ctx.encoder.answer_ids(label)) for label in LABELS}
    for example in examples:
        scores = {}
        for label, answer in ids.items():
            [row] = ctx.encoder.all([Example(example.task, example.text, label)])
            batch = Collator(0, ctx.encoder.encoder_decoder)([row])
            with torch.no_grad():
                logits, _ = ctx.logits(batch)
            allowed = [
                sorted({a[end] for a in ids.values() if a[:end] == answer[:end] and len(a) > end})
                for end in range(len(answer))
            ]
            scores[label] = answer, logits.double(), allowed
        found.append(scores)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_the_default_is_the_cross_entropy_of_the_answers_to_the_bit(shape):
    examples = [Example(ASKED, f"text {i}", LABELS[i]) for i in range(4)]
    built, ctx, batch = prepared(shape, examples)
    logits, targets = ctx.logits(batch)
    assert built.loss(ctx, batch)["task"].equal(cross_entropy(logits, targets, reduction="sum"))


@pytest.mark.parametrize("shape", SHAPES)
def test_among_labels_the_softmax_is_over_what_the_labels_allow_next(shape):
    examples = [Example(ASKED, f"text {i}", LABELS[i]) for i in range(4)]
    built, ctx, batch = prepared(shape, examples, loss="among-labels")
    expected = 0.0
    for example, scores in zip(examples, by_hand(ctx, examples), strict=True):
        answer, logits, allowed = scores[example.label]
        for place, token in enumerate(answer):
            sums = sum(math.exp(float(logits[place, t])) for t in allowed[place])
            expected += math.log(sums) - float(logits[place, token])
    assert float(built.loss(ctx, batch)["task"].detach()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["vocabulary", "among-labels"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_soft_answer_is_on_average_the_divergence_to_all_that_was_thought(shape, loss):
    kept = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    examples = [Example(ASKED, "text", label) for label in LABELS]  # each way the draw may go
    built, ctx, batch = prepared(
        shape, examples, kept, 0, loss=loss, replay="self", rehearsal="soft"
    )
    average = 0.0
    for i, probability in enumerate(kept[0].tolist()):
        row = {n: v[i : i + 1] for n, v in batch.items()}
        average += probability * float(built.loss(ctx, row)["task"].detach())
    [scores] = by_hand(ctx, examples[:1])
    exact = 0.0
    for probability, (answer, logits, allowed) in zip(
        kept[0].tolist(), scores.values(), strict=True
    ):
        likely = 0.0
        for place, token in enumerate(answer):
            over = allowed[place] if loss == "among-labels" else list(range(logits.shape[1]))
            likely += float(logits[place, token] - logits[place, over].logsumexp(0))
        exact += probability * (math.log(probability) - likely)
    assert average == pytest.approx(exact, rel=1e-5)


def test_only_answers_of_its_own_are_soft():
    kept = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    asked = {"replay": "self", "rehearsal": "soft"}
    sure = [Example(ASKED, "text", "yes")]
    built, ctx, batch = prepared("llama", sure, kept, 0, **asked)
    logits, targets = ctx.logits(batch)
    plain = cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(built.loss(ctx, batch)["task"], plain)  # one label alone
    ctx.own = 1
    built.state.rehearsal.probabilities["asked"] = torch.full((1, 4), 0.25)
    assert built.loss(ctx, batch)["task"].equal(plain)  # the stage's own example


@pytest.mark.parametrize(
    "example",
    [Example(Task("free", "Write."), "text", "any"), Example(ASKED, "text", "maybe")],
)
def test_free_text_and_answers_off_the_list_have_the_usual_loss(example):
    built, ctx, batch = prepared("llama", [example], loss="among-labels")
    logits, targets = ctx.logits(batch)
    plain = cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(built.loss(ctx, batch)["task"], plain)


@pytest.mark.parametrize("name", ["seq-lora", "lwf", "l2p", "lfpt5", "sparse-masks"])
def test_every_method_that_trains_on_answers_has_it(name, t5, tmp_path):
    small = {
        "l2p": {"pool_size": 4, "prompt_length": 2, "top_n": 2},
        "lfpt5": {"prompt_length": 4, "pseudo_samples": 0},
    }.get(name, {})
    small = {k: v for k, v in small.items() if k in method(name).kind.Settings.model_fields}
    learn(t5, tmp_path / "plain", name, TASKS[:1], **small)
    learn(t5, tmp_path / "among", name, TASKS[:1], loss="among-labels", **small)
    plain, among = (losses(tmp_path / n, 1)[0]["task"] for n in ("plain", "among"))
    assert 0 < among < 0.8 * plain
    assert stages(tmp_path / "among")[0].steps == stages(tmp_path / "plain")[0].steps


def test_a_process_whose_share_of_a_batch_is_empty_takes_part():
    """It has a row of no answer, and all wait for one another's gradients."""
    logits = torch.randn(0, 10, requires_grad=True)
    lost = divergence(logits, [])
    lost.backward()
    assert lost.item() == 0.0
