import pytest
import torch
from torch.nn.functional import cross_entropy

from nlora.data.batches import Collator, common_prefix
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from nlora.fast.prefix import why_not
from tests.tiny import SHAPES, model

HEAD = list(range(30, 42))
ROWS = [
    Encoded([*HEAD, 13, 14], [21, 22, 1], False),
    Encoded([*HEAD, 13], [31, 1], False),
    Encoded([*HEAD, 15, 16, 17, 18, 19], [41, 42, 43, 1], False),
]
DECODERS = [shape for shape in SHAPES if not shape.startswith("t5")]


def test_the_prefix_stops_short_of_the_token_that_predicts_the_answer():
    assert common_prefix([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_prefix([[1, 2, 3, 4], [1, 2, 5]]) == 2
    assert common_prefix([[1, 2], [3, 4]]) == 0
    assert common_prefix([[7]]) == 0


def test_a_batch_says_what_its_prompts_share():
    assert Collator(0, False, share_prefix=True)(ROWS)["shared_prefix"] == len(HEAD)
    assert "shared_prefix" not in Collator(0, False)(ROWS)
    assert "shared_prefix" not in Collator(0, True, share_prefix=True)(ROWS)
    assert "shared_prefix" not in Collator(0, False, share_prefix=True)(ROWS[:1])


@pytest.mark.parametrize("shape", DECODERS)
def test_loss_and_gradients_are_those_of_whole_rows(shape):
    def measure(share):
        net = model(shape).double().train()
        assert why_not(net) is None
        batch = Collator(0, False, share_prefix=share)(ROWS)
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
    assert calls == [(1, len(HEAD)), (3, 9)]
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
