"""Which of a task's labels is the answer, against the plain sum of log-likelihoods."""

import inspect
import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nlora.adapters.gated import Gated
from nlora.adapters.settings import AdapterSettings
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task
from nlora.evaluation.among import (
    _whole,
    answers_and_log_likelihoods,
    log_likelihoods,
    reads_once,
)
from nlora.evaluation.answers import Prediction, among_labels, answer
from tests.tiny import ENCODER_DECODER, SHAPES, model, tokenizer

LABELS = ("world", "worldly", "a", "science or technology", "wo")
TEXTS = ("a text", "", "a longer text, of several words", "x")


def asked(shape):
    seq2seq = shape in ENCODER_DECODER
    encoder = Encoder(tokenizer(seq2seq), Prompter(), seq2seq)
    task = Task("news", "What is the topic of the following paragraph?", LABELS)
    other = Task("short", "Is it so?", ("yes", "no"))
    examples = [Example(task, text, "a") for text in TEXTS] + [Example(other, "b", "no")]
    return model(shape), encoder, examples


def plainly(net, encoder, example, label):
    """Σ ln p in fp64 of the label's tokens and its end, from one whole forward pass."""
    [(prompt, _)] = encoder.prompts([example])
    ids = list(encoder.answer_ids(label))
    if encoder.encoder_decoder:
        out = net(
            input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[0, *ids[:-1]]])
        )
        logits = out.logits[0]
    else:
        logits = net(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    each = logits.double().log_softmax(-1)
    return sum(float(each[i, token]) for i, token in enumerate(ids))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_label_has_the_likelihood_of_its_tokens_and_end(shape):
    net, encoder, examples = asked(shape)
    found = log_likelihoods(net, encoder, examples, batch_tokens=400)
    net = net.double().requires_grad_(False)
    for example, scores in zip(examples, found, strict=True):
        plain = [plainly(net, encoder, example, label) for label in example.task.labels]
        assert scores == pytest.approx(plain, abs=2e-4)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_every_end_token_of_the_model_ends_an_answer_without_spaces_around_it(shape):
    net, encoder, examples = asked(shape)
    free = [Example(Task("free"), e.text, "") for e in examples]
    [(prompt, _)] = encoder.prompts(free[:1])
    told = net.generate(torch.tensor([prompt]), max_new_tokens=1, do_sample=False)
    first = int(told[0, -1])
    for ends in (first, [1, first]):
        net.generation_config.eos_token_id = ends
        assert answer(net, encoder, free[:1])[0].text == ""
    texts = [p.text for p in answer(net, encoder, free)]
    assert texts == [text.strip() for text in texts]
    assert math.isfinite(log_likelihoods(net, encoder, examples)[0][0])


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_and_likelihoods_of_one_pass_are_those_of_two(shape):
    net, encoder, examples = asked(shape)
    examples = examples[:-1]
    together = answers_and_log_likelihoods(net, encoder, examples, 400, max_new_tokens=8)
    assert [said for said, _ in together] == answer(net, encoder, examples, 8, 400)
    assert [scores for _, scores in together] == log_likelihoods(net, encoder, examples, 400)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_labels_are_read_in_batches_of_bounded_size(shape, monkeypatch):
    net, encoder, examples = asked(shape)
    examples = examples[:-1]
    whole = log_likelihoods(net, encoder, examples, 10_000)
    sizes, forward = [], type(net).forward

    def counted(self, input_ids=None, decoder_input_ids=None, **more):
        ids = input_ids if decoder_input_ids is None else decoder_input_ids
        width = ids.shape[1]
        if "encoder_outputs" in more:  # what each row attends to is held for it
            width = max(width, more["encoder_outputs"][0].shape[1])
        sizes.append(ids.shape[0] * width if ids.shape[0] > 1 else 0)
        own = {"input_ids": input_ids, "decoder_input_ids": decoder_input_ids}
        return forward(self, **{k: v for k, v in own.items() if v is not None}, **more)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(type(net), "forward", counted)
    longest = max(len(ids) for ids, _ in encoder.prompts(examples))
    parts = log_likelihoods(net, encoder, examples, 2 * longest)
    assert len(sizes) > 2
    assert max(sizes) <= 2 * longest
    for a, b in zip(parts, whole, strict=True):
        assert a == pytest.approx(b, abs=2e-4)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_a_model_that_cannot_be_asked_after_its_prompt_reads_prompt_and_label_together(
    shape, monkeypatch
):
    net, encoder, examples = asked(shape)
    assert reads_once(net)
    net.prompted = True  # as a wrapper that puts soft prompts before its inputs
    assert not reads_once(net)
    sizes, done, forward = [], [], type(net).forward

    def counted(self, input_ids=None, **more):
        sizes.append(input_ids.numel())
        return forward(self, input_ids, **more)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(type(net), "forward", counted)
    net.train()  # dropout would make the likelihoods others
    found = log_likelihoods(net, encoder, examples, 2000, done.append)
    monkeypatch.setattr(type(net), "forward", forward)
    assert len(sizes) > 1
    assert max(sizes) <= 2000
    assert sum(done) == len(examples)
    [*given, _] = examples
    together = answers_and_log_likelihoods(net, encoder, given, 2000, max_new_tokens=8)
    assert [said for said, _ in together] == answer(net, encoder, given, 8, 2000)
    assert [scores for _, scores in together] == found[:-1]
    net = net.double().requires_grad_(False)
    for example, scores in zip(examples, found, strict=True):
        plain = [plainly(net, encoder, example, label) for label in example.task.labels]
        assert scores == pytest.approx(plain, abs=2e-4)


def test_a_model_that_takes_no_mask_by_token_reads_prompt_and_label_together():
    _, encoder, examples = asked("llama")
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}
    torch.manual_seed(0)
    net = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("falcon", **sizes, num_attention_heads=4, alibi=True)
    )
    assert not reads_once(net)
    found = log_likelihoods(net, encoder, examples[:2])
    net = net.double().requires_grad_(False)
    for example, scores in zip(examples[:2], found, strict=True):
        plain = [plainly(net, encoder, example, label) for label in LABELS]
        assert scores == pytest.approx(plain, abs=2e-3)


def test_gates_of_the_prompt_weigh_what_follows_it_too(monkeypatch):
    net, encoder, examples = asked("llama")
    adapter = Gated(net, AdapterSettings(rank=2, alpha=4.0, dropout=0.0), hidden=4)
    for stage in (1, 2):
        torch.manual_seed(stage)
        adapter.begin()
        for parameter in adapter.trainable():
            torch.nn.init.normal_(parameter, std=0.5)
    gated = adapter.model
    assert not reads_once(gated)  # a greedy answer goes on with fewer rows
    answers = [list(encoder.answer_ids(label)) for label in LABELS]
    prompts = [ids for ids, _ in encoder.prompts(examples[:4])]
    gated.eval()
    with torch.inference_mode():
        plain = {
            row: scores.tolist()
            for rows, found in _whole(gated, encoder, prompts, answers, 2000)
            for row, scores in zip(rows, found, strict=True)
        }

    def together(*asked):
        raise AssertionError("prompt and label were read together")

    monkeypatch.setattr("nlora.evaluation.among._whole", together)
    for tokens in (60, 2000):  # parts of a batch, and all of it
        found = log_likelihoods(gated, encoder, examples[:4], tokens)
        for i, scores in enumerate(found):
            assert scores == pytest.approx(plain[i], abs=2e-4)


def test_an_answer_is_measured_among_labels_where_all_were_asked_for():
    rows = [Prediction("a frog", "world", likely="world"), Prediction("world", "a", likely="wo")]
    assert [p.text for p in among_labels(rows)] == ["world", "wo"]
    assert [p.correct for p in among_labels(rows)] == [True, False]
    assert among_labels([*rows, Prediction("a", "a")]) is None


def test_which_models_can_be_asked_after_their_prompt(monkeypatch):
    net = model("t5")
    for family, known in {"t5": True, "mt5": True, "umt5": True, "bart": False}.items():
        monkeypatch.setattr(net.config, "model_type", family)
        assert reads_once(net) is known
    net = model("llama")
    for attention, known in {"eager": True, "sdpa": True, "flash_attention_2": False}.items():
        monkeypatch.setattr(net.config, "_attn_implementation_internal", attention)
        assert reads_once(net) is known
