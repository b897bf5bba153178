"""Which vectors stand where, and which are selected, by numbers worked out here."""

import pytest
import torch
from torch import nn

from nlora.adapters.gated import Gated
from nlora.adapters.layouts import Appended, Concatenated, Selected
from nlora.adapters.prompt import Prompt
from nlora.adapters.settings import AdapterSettings
from nlora.data.batches import Collator
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.adapters.helpers import seen, train

SHAPES = ("llama", "gpt2", "t5")
TEXTS = ([11, 12, 13, 14, 15], [31, 32])
ANSWERS = ([21, 22, 1], [41, 1])
ROWS = [Encoded(text, answer, False) for text, answer in zip(TEXTS, ANSWERS, strict=True)]


def adapter_with(shape, layout, stages=1):
    adapter = Prompt(tiny.model(shape), layout)
    for stage in range(1, stages + 1):
        torch.manual_seed(stage)
        adapter.begin()
        train(adapter, seed=stage)
    adapter.model.eval()
    return adapter


def collate(shape, rows=ROWS):
    return Collator(0, shape in tiny.ENCODER_DECODER)(rows)


def embed(adapter, ids):
    return adapter.model.model.get_input_embeddings()(torch.tensor(ids)).detach()


def read_in_training(adapter, shape):
    """What the model reads of each row, without padding."""
    with seen(adapter) as calls:
        answer_logits(adapter.model, collate(shape))
    return in_one_piece(*calls[0])


def read_in_generation(adapter, shape):
    collator = Collator(0, shape in tiny.ENCODER_DECODER)
    with seen(adapter) as calls:
        adapter.model.generate(**collator.prompts(TEXTS), max_new_tokens=1, pad_token_id=0)
    return in_one_piece(*calls[0])


def in_one_piece(embeds, mask):
    """The rows without padding, which stands at one end alone."""
    for row in mask.tolist():
        assert "0" not in "".join(map(str, row)).strip("0")
    return [row[kept.bool()] for row, kept in zip(embeds, mask, strict=True)]


@pytest.mark.parametrize("shape", SHAPES)
def test_concatenated_prompts_stand_before_the_text_the_newest_first(shape):
    adapter = adapter_with(shape, Concatenated(3), stages=3)
    one, two, three = (update["prompt"].detach() for update in adapter.model.updates)
    answers = ANSWERS if shape != "t5" else ([], [])
    read = read_in_training(adapter, shape)
    for found, text, answer in zip(read, TEXTS, answers, strict=True):
        assert torch.equal(found, torch.cat([three, two, one, embed(adapter, text + answer)]))
    for found, text in zip(read_in_generation(adapter, shape), TEXTS, strict=True):
        assert torch.equal(found, torch.cat([three, two, one, embed(adapter, text)]))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_appended_prompt_stands_between_text_and_answer(shape):
    adapter = adapter_with(shape, Appended(3), stages=2)
    prompt = adapter.model.updates[-1]["prompt"].detach()  # of the newest alone
    read = read_in_training(adapter, shape)
    for found, text, answer in zip(read, TEXTS, ANSWERS, strict=True):
        rest = [embed(adapter, answer)] if shape != "t5" else []
        assert torch.equal(found, torch.cat([embed(adapter, text), prompt, *rest]))
    for found, text in zip(read_in_generation(adapter, shape), TEXTS, strict=True):
        assert torch.equal(found, torch.cat([embed(adapter, text), prompt]))


@pytest.mark.parametrize("layout", [Appended(3), Concatenated(3)], ids=["after", "before"])
def test_logits_are_those_at_the_answers_of_the_whole_sequence(layout):
    adapter = adapter_with("llama", layout)
    prompt = adapter.model.updates[0]["prompt"].detach()
    found = answer_logits(adapter.model, collate("llama")).logits.split([3, 2])
    for logits, text, answer in zip(found, TEXTS, ANSWERS, strict=True):
        before, after = embed(adapter, text), embed(adapter, answer)
        parts = [before, prompt] if isinstance(layout, Appended) else [prompt, before]
        sequence = torch.cat([*parts, after])[None]
        expected = adapter.model.model(inputs_embeds=sequence).logits[0]
        start = len(text) + 3 - 1  # what stands before the answer predicts its first token
        expected = expected[start : start + len(answer)]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


POOL = {
    "pool": 4,
    "length": 2,
    "top_k": 2,
}


def pool_with_keys(shape, query, keys=None):
    layout = Selected(**POOL, query=query)
    adapter = adapter_with(shape, layout)
    if keys is not None:
        with torch.no_grad():
            adapter.model.updates[0]["key"].copy_(keys)
    return adapter, layout


def states_alone(model, text):
    """The last hidden states of a text that nothing stands beside, (S, d)."""
    ids = torch.tensor([text])
    if model.config.is_encoder_decoder:
        return model.encoder(input_ids=ids).last_hidden_state[0]
    return model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]


@torch.no_grad()
def expected_query(adapter, text, query):
    if query == "embedding":
        return embed(adapter, text).mean(0)
    return states_alone(adapter.model.model.eval(), text).mean(0)


@pytest.mark.parametrize("query", ["hidden", "embedding"])
@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_selects_the_prompts_whose_keys_are_nearest_to_its_own_text(shape, query):
    adapter, layout = pool_with_keys(shape, query)
    one, two = (expected_query(adapter, text, query) for text in TEXTS)
    away = torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    # keys of any length: nearest to the first text are 2 and then 0, to the second 1 and then 2
    keys = torch.stack([3 * (one + 0.3 * away), 0.1 * two, 5 * one, -one - two])
    adapter, layout = pool_with_keys(shape, query, keys)
    cosine = torch.nn.functional.cosine_similarity
    expected = torch.stack([cosine(q[None], keys) for q in (one, two)])
    wanted = expected.argsort(dim=1, descending=True)[:, :2]
    assert wanted[0].tolist() != wanted[1].tolist()

    read = read_in_training(adapter, shape)
    assert layout.chosen.tolist() == wanted.tolist()
    torch.testing.assert_close(
        layout.cosines, expected.gather(1, wanted), rtol=0, atol=1e-5, check_dtype=False
    )
    prompts = adapter.model.updates[0]["prompt"].detach()
    for found, text, answer, chosen in zip(read, TEXTS, ANSWERS, wanted, strict=True):
        ids = text + (answer if shape != "t5" else [])
        assert torch.equal(found, torch.cat([*prompts[chosen], embed(adapter, ids)]))
    with torch.no_grad():  # and the same while it generates
        read = read_in_generation(adapter, shape)
    assert layout.chosen.tolist() == wanted.tolist()
    for found, text, chosen in zip(read, TEXTS, wanted, strict=True):
        assert torch.equal(found, torch.cat([*prompts[chosen], embed(adapter, text)]))


@pytest.mark.parametrize("query", ["hidden", "embedding"])
def test_the_answer_has_no_say_in_what_is_selected(query):
    adapter, layout = pool_with_keys("llama", query)
    answer_logits(adapter.model, collate("llama"))
    before = layout.cosines
    other = [Encoded(text, [99, 98, 97, 96, 1], False) for text in TEXTS]
    answer_logits(adapter.model, collate("llama", other))
    torch.testing.assert_close(layout.cosines, before, rtol=0, atol=1e-6)


def test_a_query_is_the_same_with_dropout_on():
    adapter, layout = pool_with_keys("t5", "hidden")
    answer_logits(adapter.model.eval(), collate("t5"))
    quiet = layout.cosines
    for module in adapter.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    adapter.model.train()
    answer_logits(adapter.model, collate("t5"))
    assert torch.equal(layout.cosines, quiet)
    assert adapter.model.model.training  # the model goes on as it was


def test_an_answer_moves_the_selected_prompts_and_a_cosine_moves_the_selected_keys():
    keys = torch.eye(32)[:4]
    adapter, layout = pool_with_keys("llama", "embedding", keys)
    prompts, pool_keys = adapter.model.updates[0]["prompt"], adapter.model.updates[0]["key"]
    loss = answer_logits(adapter.model, collate("llama", ROWS[:1])).logits.square().sum()
    cosine = layout.cosines.sum()
    [row] = layout.chosen.tolist()
    loss.backward()
    assert pool_keys.grad is None
    moved = prompts.grad.flatten(1).abs().amax(1) > 0
    assert moved.tolist() == [i in row for i in range(4)]
    prompts.grad = None
    cosine.backward()
    assert prompts.grad is None
    # d cos(q, k)/dk = (q/|q| − cos·k/|k|)/|k|
    query = embed(adapter, TEXTS[0]).mean(0)
    query = query / query.norm()
    for i in range(4):
        expected = query - query[i] * keys[i] if i in row else torch.zeros(32)
        torch.testing.assert_close(pool_keys.grad[i], expected, rtol=0, atol=1e-6)


# A chat of several turns

CHAT = Encoded(
    [11, 12, 13, 14],
    [21, 22, 31, 32, 33, 41, 42, 1],
    False,
    counts=[True, True, False, False, False, True, True, True],
)
LAST_TURN = Encoded([11, 12, 13, 14, 21, 22, 31, 32, 33], [41, 42, 1], False)


@pytest.mark.parametrize(
    "make",
    [
        lambda net: Prompt(net, Concatenated(3)),
        lambda net: Prompt(net, Appended(3)),
        lambda net: Prompt(net, Selected(6, 2, 2, "embedding")),
        lambda net: Gated(net, AdapterSettings(rank=2, alpha=4.0, dropout=0.0), hidden=4),
    ],
    ids=["concatenated", "appended", "selected", "gated"],
)
@pytest.mark.parametrize("padded", [False, True])
def test_the_text_of_a_chat_is_all_before_its_last_answer(make, padded):
    adapter = make(tiny.model("llama"))
    for stage in (1, 2):
        torch.manual_seed(stage)
        adapter.begin()
        train(adapter, seed=stage, size=0.5)
    longer = [Encoded([50] * 20, [41, 42, 1], False)] * padded
    with torch.no_grad():
        found, expected = (
            answer_logits(adapter.model.eval(), collate("llama", [*longer, row])).logits[-3:]
            for row in (CHAT, LAST_TURN)
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    if isinstance(adapter, Prompt) and isinstance(adapter.model.layout, Selected):
        keys = adapter.model.layout.cosines
        answer_logits(adapter.model, collate("llama", [*longer, CHAT]))
        torch.testing.assert_close(adapter.model.layout.cosines, keys)
