from functools import lru_cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM

from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.data.task import Example, Task
from nlora.evaluation.answers import Prediction, answer, exact_match, off_list
from nlora.evaluation.expected import ANYTHING, Expected
from nlora.evaluation.greedy import decode
from nlora.evaluation.normalise import Options, normalise
from tests.tiny import ENCODER_DECODER, model, task, tokenizer

LABELS = ("Science or Technology", "World", "Worldly", "C-3PO", "ΑΣ")
WORDS = [*LABELS, "Sc", "ience", " or", "  ", ".", "!", "wor", "ld", "ly", "x", "Σ", "Α", "\n", "-"]


@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_a_text_that_becomes_a_label_was_never_called_hopeless(pieces):
    whole = "".join(pieces)
    if normalise(whole) in {normalise(label) for label in LABELS}:
        options = Options(LABELS)
        assert all(options.reachable(whole[:end]) for end in range(len(whole) + 1))


def test_a_text_that_cannot_become_a_label_is_hopeless():
    options = Options(LABELS)
    assert not options.reachable("World War")
    assert not options.reachable("The answer")
    assert not options.reachable("WorldX")
    assert options.reachable("World.")
    assert options.reachable("")


def test_a_character_whose_bytes_are_incomplete_is_not_hopeless():
    assert Options(("caf\u00e9",)).reachable("caf\ufffd")


def test_a_sigma_that_is_final_so_far_is_not_hopeless():
    assert Options(("ΑΣΑ",)).reachable("ΑΣ")
    assert Options(("ΑΣ",)).reachable("ΑΣ")


def test_accuracy_is_exact_match_after_normalisation():
    rows = [Prediction("world ", "World"), Prediction("World War", "World"), Prediction("", "C")]
    assert [p.correct for p in rows] == [True, False, False]
    assert exact_match(rows) == pytest.approx(100 / 3)
    assert exact_match([rows[0], *rows]) == pytest.approx(50)


def sliding_window():
    """A model whose cache forgets, so that it is decoded by its own `generate`."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=259, sliding_window=5, pad_token_id=0, eos_token_id=1, **sizes, **heads
        )
    )


class Strict(LlamaForCausalLM):
    """Has no `logits_to_keep`, as models of others may: it says something at every position."""

    def forward(
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        use_cache=None,
    ):
        return super().forward(
            input_ids, attention_mask, position_ids, past_key_values, use_cache=use_cache
        )


def greedy(net, prompt, count):
    """The ids of the most probable tokens, one by one and without a cache."""
    ids, read = list(prompt), {}
    if net.config.is_encoder_decoder:
        ids, read = [net.config.decoder_start_token_id], {"input_ids": torch.tensor([prompt])}
    begun = len(ids)
    name = "decoder_input_ids" if read else "input_ids"
    for _ in range(count):
        ids.append(int(net(**read, **{name: torch.tensor([ids])}).logits[0, -1].argmax()))
    return ids[begun:]


def loud(shape):
    """A random model whose answers depend on what it reads, unlike most random ones'."""
    net = sliding_window() if shape == "sliding window" else model(shape.removeprefix("strict "))
    if shape == "strict llama":
        net.__class__ = Strict
    if shape in ENCODER_DECODER:  # its own embeddings as the head would repeat what it said
        net.lm_head = torch.nn.Linear(32, 259, bias=False)
    net.get_output_embeddings().weight.data.mul_(30)
    return net.eval()


def test_answers_that_are_none_of_the_labels_are_counted():
    rows = [Prediction("world ", "World"), Prediction("World War", "World"), Prediction("", "C")]
    assert off_list(rows, ("World", "C")) == pytest.approx(200 / 3)


@lru_cache
def overfitted(shape, examples=None):
    """A model that has learned some answers, so that right, wrong and endless answers occur."""
    from nlora.data.batches import Collator
    from nlora.fast.logits import answer_logits

    net = model(shape, layers=1)
    seq2seq = shape in ENCODER_DECODER
    encode = Encoder(tokenizer(seq2seq), Prompter(), seq2seq)
    examples = examples or task(count=9).train
    batch = Collator(0, seq2seq)([encode(e) for e in examples[:6]])
    # a short memory of gradients: these models learn in half as many steps
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, betas=(0.9, 0.95))
    loss = torch.tensor(1.0)
    torch.manual_seed(0)  # dropout must not depend on which tests ran before
    while loss > 0.05:
        logits, targets = answer_logits(net, batch)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return net, encode, examples


def passes(net, monkeypatch):
    """How long the inputs of each forward pass are, from now on."""
    lengths = []
    original = net.forward

    def counting(input_ids=None, **kwargs):
        lengths.append(input_ids.shape[1])
        return original(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(net, "forward", counting)
    return lengths


@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "neox", *ENCODER_DECODER])
def test_early_stop_and_length_sorting_change_no_verdict(shape):
    net, encode, examples = overfitted(shape)
    quick = answer(net, encode, examples, batch_tokens=300)
    plain = [answer(net, encode, [e], early_stop=False)[0] for e in examples]
    assert [p.correct for p in quick] == [p.correct for p in plain]
    assert any(p.correct for p in quick)
    # what was right has the same text, too
    assert [q.text for q, p in zip(quick, plain, strict=True) if p.correct] == [
        p.text for p in plain if p.correct
    ]


@pytest.mark.parametrize("shape", ["llama", "sliding window"])
def test_rows_stop_as_soon_as_they_are_hopeless(shape, monkeypatch):
    net = loud(shape)
    encode = Encoder(tokenizer(False), Prompter(), False)
    lengths = passes(net, monkeypatch)
    answer(net, encode, task().test)
    stopped = len(lengths)
    lengths.clear()
    free = Task("free", "Say.", None)
    answer(net, encode, [Example(free, e.text, e.label) for e in task().test])
    assert stopped < 10
    assert len(lengths) in (50, 51)  # free text is decoded to the end, after the shared prefix


def test_answers_come_back_in_the_order_of_the_examples():
    encode = Encoder(tokenizer(False), Prompter(), False)
    examples = task().test
    found = answer(model("llama"), encode, examples, max_new_tokens=2, batch_tokens=256)
    assert [p.label for p in found] == [e.label for e in examples]


def test_the_examples_that_are_done_are_told_batch_by_batch():
    encode, done = Encoder(tokenizer(False), Prompter(), False), []
    settings = {"max_new_tokens": 1, "batch_tokens": 256, "advance": done.append}
    answer(model("llama"), encode, task().test, **settings)
    assert sum(done) == len(task().test)
    assert len([count for count in done if count]) > 1


PROMPTS = ("xy", "a longer one", "zyx", "a")


def texts_of(net, encode, expected, count):
    """What is decoded after each of PROMPTS."""
    prompts = [encode.answer_ids(text)[:-1] for text in PROMPTS]
    found = {}
    for rows, texts in decode(net, encode, prompts, expected, count, 2048):
        found |= dict(zip(rows, texts, strict=True))
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("shape", ["llama", "gpt2", "strict llama", "sliding window", "t5"])
@torch.inference_mode()
def test_prompts_that_begin_differently_share_batches_and_not_answers(shape):
    """Each ends where the end token stands, or is cut off, whatever the model is set to do."""
    net, encode = loud(shape), Encoder(tokenizer(False), Prompter(), shape == "t5")
    said = [greedy(net, encode.answer_ids(text)[:-1], 6) for text in PROMPTS]
    end = said[0][3]
    token = encode.tokenizer.convert_ids_to_tokens(end)
    encode.tokenizer.add_special_tokens({"eos_token": token})
    settings = net.generation_config
    settings.do_sample, settings.num_beams, settings.max_new_tokens = True, 3, 9
    settings.eos_token_id, settings.pad_token_id = None, said[1][0]
    texts = texts_of(net, encode, [ANYTHING] * 4, 6)
    assert texts == [encode.text(ids[: [*ids, end].index(end)]).strip() for ids in said]
    assert len(set(texts)) > 2


@pytest.mark.parametrize("shape", ["llama", "gpt2", *ENCODER_DECODER])
@torch.inference_mode()
def test_drafts_that_do_not_stand_change_no_answer(shape):
    net, encode = loud(shape), Encoder(tokenizer(False), Prompter(), shape in ENCODER_DECODER)
    said = [greedy(net, encode.answer_ids(text)[:-1], 8) for text in PROMPTS]
    wrong = encode.answer_ids("???")[:-1]
    # Rows whose drafts are wrong after 1, 2, 3, … tokens, each again and again.
    drafts = [
        Expected(labels=[[*ids[:k], *wrong] for k in range(1 + i, 8, 1 + i)])
        for i, ids in enumerate(said)
    ]
    assert texts_of(net, encode, drafts, 8) == [encode.text(ids) for ids in said]


@torch.inference_mode()
def test_a_batch_has_the_rows_that_its_budget_allows_beside_the_shared_prefix():
    net = loud("llama")
    encode = Encoder(tokenizer(False), Prompter(), False)
    start = encode.answer_ids("a shared beginning ")[:-1]
    prompts = [[*start, *encode.answer_ids(text)[:-1]] for text in ("one", "two", "three", "four")]
    found = list(decode(net, encode, prompts, [ANYTHING] * 4, 2, batch_tokens=10))
    assert [rows for rows, _ in found] == [[2, 3], [0, 1]]


def test_an_encoder_reads_each_prompt_once_and_the_decoder_whole_drafts(monkeypatch):
    net, encode, examples = overfitted("t5")
    read, original = [], net.decoder.forward

    def counting(input_ids=None, **kwargs):
        read.append(input_ids.shape[1])
        return original(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(net.decoder, "forward", counting)
    assert all(p.correct for p in answer(net, encode, examples[:6]))
    # The start token; the label that the first letter tells.
    assert read == [1, len("blue or grey")]


@pytest.mark.parametrize("shape", ["llama", "neox"])
def test_a_label_that_was_learned_takes_few_passes_however_long_it_is(shape, monkeypatch):
    net, encode, examples = overfitted(shape)
    answer(net, encode, examples[:1])  # the first time it is tried what the model can do
    lengths = passes(net, monkeypatch)
    found = answer(net, encode, examples[:6])
    assert all(p.correct for p in found)
    # The shared prefix; the rest of the prompts, which says " ", with which every label begins
    # where tokens are bytes; the first label as a draft; the label that the next letter tells.
    assert lengths[2:] == [len(" red"), len("blue or grey")]


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_labels_that_begin_alike_are_told_apart(shape):
    described = Task("mood", "How?", ("very good", "very bad", "so-so", "very"))
    labels = ("very good", "very bad", "very", "so-so", "very bad", "very good")
    examples = tuple(Example(described, f"{i} says it {i}", x) for i, x in enumerate(labels))
    net, encode, examples = overfitted(shape, examples)
    assert [p.text.strip() for p in answer(net, encode, examples)] == list(labels)
