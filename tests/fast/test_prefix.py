from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from nlora.data.batches import Collator, common_prefix
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from nlora.fast.prefix import heeds_padding, why_not
from tests.tiny import SHAPES, model

HEAD = list(range(30, 42))
ROWS = [
    Encoded([*HEAD, 13, 14], [21, 22, 1], False),
    Encoded([*HEAD, 13], [31, 1], False),
    Encoded([*HEAD, 15, 16, 17, 18, 19], [41, 42, 43, 1], False),
]
OTHER = [*range(50, 62), *range(40, 48)]
MIXED = [
    replace(ROWS[0], task="a"),
    Encoded([*OTHER, 13, 14, 15], [21, 1], False, "b"),
    replace(ROWS[2], task="a"),
    Encoded([*range(60, 40, -1), 13, 14], [31, 32, 33, 1], False, "c"),
    Encoded([*OTHER, 16], [31, 1], False, "b"),
]
DECODERS = [shape for shape in SHAPES if not shape.startswith("t5")]


def test_the_prefix_stops_short_of_the_token_that_predicts_the_answer():
    assert common_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_prefix([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix([[1, 2], [3, 4]]) == 0
    assert common_prefix([[7]]) == 0


def test_a_batch_says_what_its_prompts_share():
    assert Collator(0, False, share_prefix=True)(ROWS)["shared_prefixes"] == [([0, 1, 2], 12)]
    assert "shared_prefixes" not in Collator(0, False)(ROWS)
    assert "shared_prefixes" not in Collator(0, True, share_prefix=True)(ROWS)
    assert "shared_prefixes" not in Collator(0, False, share_prefix=True)(ROWS[:1])
    short = [Encoded([*HEAD[:7], i], [1], False) for i in (13, 14)]
    assert "shared_prefixes" not in Collator(0, False, share_prefix=True)(short)


def test_a_mixed_batch_says_it_task_by_task_if_fewer_tokens_are_read():
    share = Collator(0, False, share_prefix=True)
    # The row that is alone with its task begins with as much as leaves the others' longest rest.
    assert share(MIXED)["shared_prefixes"] == [([0, 2], 12), ([1, 4], 20), ([3], 17)]
    free = [Encoded([i, *range(70, 78)], [9] * 5, False, "free text") for i in (3, 4)]
    assert share([*ROWS, *free])["shared_prefixes"] == [([0, 1, 2], 12), ([3], 5), ([4], 5)]
    alone = [replace(row, task=str(i)) for i, row in enumerate(MIXED)]
    assert "shared_prefixes" not in share(alone)
    long = [Encoded([*range(60), i], [1], False, "long prefix") for i in (7, 8)]
    other = [Encoded([*HEAD, *range(i, i + 50)], [1], False, "long rest") for i in (7, 8)]
    assert "shared_prefixes" not in share([*long, *other])  # padding eats what is saved
    one = Encoded([7], [9] * 20, False, "c")
    assert "shared_prefixes" not in share([*ROWS, one])  # its only token says what follows


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", DECODERS)
@pytest.mark.parametrize(
    ("rows", "read"),
    [
        pytest.param("ROWS", [(1, 12), (3, 9)], id="one task"),
        pytest.param("MIXED", [(3, 20), (5, 9)], id="several"),
    ],
)
def test_loss_and_gradients_are_those_of_whole_rows(shape, rows, read, packed):
    rows = {"ROWS": ROWS, "MIXED": MIXED}[rows]

    def measure(share):
        net = model(shape).double().train()
        assert why_not(net) is None
        batch = Collator(0, False, share_prefix=share, packed=share and packed)(rows)
        calls = []
        net.register_forward_pre_hook(
            lambda _, args, kwargs: calls.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
        )
        logits, targets = answer_logits(net, batch)
        loss = cross_entropy(logits, targets, reduction="sum")
        loss.backward()
        return loss.detach(), [p.grad for p in net.parameters()], targets, calls

    loss, grads, targets, calls = measure(True)
    whole, expected, same, _ = measure(False)
    assert len(calls) == 2
    assert calls[0] == read[0]
    assert calls[1] == read[1] or packed
    assert targets.tolist() == same.tolist()
    torch.testing.assert_close(loss, whole, rtol=1e-7, atol=1e-7)
    for grad, reference in zip(grads, expected, strict=True):
        if reference is not None:
            torch.testing.assert_close(grad, reference, rtol=1e-6, atol=2e-7)


def test_models_that_cannot_say_why():
    assert "encoder-decoder" in why_not(model("t5"))
    net = model("llama").train()
    net.gradient_checkpointing_enable()
    assert "checkpointing" in why_not(net)
    net.eval()
    assert why_not(net) is None


def test_sliding_windows_and_states_fall_back_to_whole_rows():
    from transformers import MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
    sliding = MistralForCausalLM(
        MistralConfig(
            **sizes,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=8,
        )
    )
    assert "sliding window" in why_not(sliding)
    mamba = MambaForCausalLM(MambaConfig(**sizes, state_size=4))
    assert "state" in why_not(mamba)
    for net in (sliding, mamba):
        logits, _ = answer_logits(net, Collator(0, False, share_prefix=True)(ROWS))
        assert logits.shape[0] == sum(len(row.answer) for row in ROWS)


def small(kind, **shape):
    torch.manual_seed(0)
    net = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, vocab_size=64, **shape)
    ).eval()
    for parameter in net.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def test_a_model_that_counts_columns_shares_no_prefix_with_a_gap_behind_it():
    mpt = small("mpt", d_model=32, n_layers=2, n_heads=4, max_seq_len=64)
    assert "does not go on from a cache" in why_not(mpt)
    assert heeds_padding(mpt)


def test_a_window_over_columns_that_no_cache_tells_of_is_known():
    layers = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 4}
    neo = small("gpt_neo", hidden_size=32, max_position_embeddings=64, window_size=8, **layers)
    assert "sliding window" in why_not(neo)
    layers["attention_types"] = [[["global"], 2]]
    assert why_not(small("gpt_neo", hidden_size=32, max_position_embeddings=64, **layers)) is None


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32}),
        ("bart", {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4}),
    ],
)
def test_a_row_that_is_padded_is_told_from_one_alone(kind, shape):
    assert not heeds_padding(small(kind, **shape))
    assert heeds_padding(model("llama"))
