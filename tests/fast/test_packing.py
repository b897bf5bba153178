import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from nlora.continual.learning import run
from nlora.continual.preview import preview
from nlora.data.batches import IGNORED, Collator
from nlora.data.encode import Encoded
from nlora.errors import NloraError
from nlora.fast import packing
from nlora.fast.attention import use_plain_attention
from nlora.fast.logits import answer_logits
from nlora.fast.packing import arranged, why_not_packed
from nlora.plan.resolve import resolve
from tests import tiny
from tests.methods.helpers import TASKS, first_stages, learn, losses
from tests.runs import FAST, config, write_stream

DECODERS = [shape for shape in tiny.SHAPES if shape not in tiny.ENCODER_DECODER]
HEAD = list(range(30, 42))


def with_lora(shape="llama", attention="plain"):
    """A tiny model whose factors are both random, in double precision where that is all of it."""
    net = tiny.model(shape)
    use_plain_attention(net) if attention == "plain" else net.set_attn_implementation(attention)
    net = net if attention == "eager" else net.double()
    net = get_peft_model(net, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def rows(lengths, head=()):
    """Examples of so many tokens of prompt and of answer; some tokens of answers do not count."""
    torch.manual_seed(len(lengths))
    made = []
    for prompt, answer in lengths:
        said = torch.randint(50, 200, (answer,)).tolist()
        counts = [i % 3 != 1 for i in range(answer)] if answer > 3 else None
        asked = [*head, *torch.randint(50, 200, (prompt,)).tolist()]
        made.append(Encoded(asked, [*said, 1], False, counts=counts and [*counts, True]))
    return made


def measured(net, batch):
    """Logits, targets, and the gradients of the factors by the loss of the answers."""
    net.zero_grad()
    logits, targets = answer_logits(net, batch)
    cross_entropy(logits, targets, reduction="sum").backward()
    found = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    return logits.detach(), targets, found


def assert_same(net, made, share):
    padded, packed = (Collator(0, False, share, p)(made) for p in (False, True))
    logits, targets, gradients = measured(net, packed)
    expected, same, reference = measured(net, padded)
    assert targets.tolist() == same.tolist()
    near = 1e-6 if net.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(logits, expected, rtol=near, atol=near)
    assert gradients.keys() == reference.keys() != set()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, reference[name], rtol=near, atol=10 * near)


LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 7)), min_size=2, max_size=7)


@pytest.fixture(scope="module")
def llama_with_lora():
    return with_lora()


@examples(max_examples=15)
@given(lengths=LENGTHS, room=st.integers(1, 80), head=st.sampled_from([(), HEAD]))
def test_logits_and_gradients_are_those_of_the_padded_batch(llama_with_lora, lengths, room, head):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "NARROWEST", room)
        assert_same(llama_with_lora, rows(lengths, head), share=bool(head))


@pytest.mark.parametrize("attention", ["plain", "sdpa", "eager"])
@pytest.mark.parametrize("shape", DECODERS)
def test_so_they_are_for_every_shape_and_attention(shape, attention, monkeypatch):
    monkeypatch.setattr(packing, "NARROWEST", 24)
    net = with_lora(shape, attention)
    assert why_not_packed(net) is None
    for share in (False, True):
        assert_same(net, rows([(9, 2), (3, 5), (7, 1), (20, 4), (1, 0)], HEAD), share)


def test_so_they_are_under_gradient_checkpointing(monkeypatch):
    monkeypatch.setattr(packing, "NARROWEST", 24)
    net = with_lora().train()
    made = rows([(9, 2), (3, 5), (7, 1), (20, 4)])
    *_, expected = measured(net, Collator(0, False)(made))
    net.enable_input_require_grads()
    net.gradient_checkpointing_enable()
    *_, gradients = measured(net, Collator(0, False, packed=True)(made))
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_no_two_examples_share_a_place_and_no_row_is_longer_than_it_must_be(lengths):
    places, (count, width) = arranged(lengths)
    assert width <= max(packing.NARROWEST, *lengths)
    taken = {(r, c + i) for (r, c), n in zip(places, lengths, strict=True) for i in range(n)}
    assert len(taken) == sum(lengths)
    assert {r for r, _ in taken} == set(range(count))
    assert max(c for _, c in taken) == width - 1


def test_examples_share_rows(llama_with_lora, monkeypatch):
    seen = []
    hook = llama_with_lora.get_base_model().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    batch = Collator(0, False, share_prefix=True, packed=True)(rows([(30, 2)] * 8, HEAD))
    answer_logits(llama_with_lora, batch)
    hook.remove()
    assert seen == [(1, len(HEAD)), (3, 3 * 33)]


class Deaf(type(tiny.model("llama"))):
    """It makes masks and positions of its own."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, cache=None, **kwargs):
        return super().forward(input_ids=input_ids)


SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: tiny.model("t5"), "an encoder-decoder model"),
        (lambda: MambaForCausalLM(MambaConfig(**SIZES, state_size=4)), "takes no positions"),
        (
            lambda: MistralForCausalLM(MistralConfig(**SIZES, **HEADS, sliding_window=8)),
            "layers with a sliding window",
        ),
        (
            lambda: BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2)),
            "takes no positions",
        ),
        (lambda: Deaf(tiny.model("llama").config), "reads more than the mask lets it see"),
    ],
    ids=["t5", "mamba", "sliding", "bloom", "deaf"],
)
def test_models_that_cannot_say_why(made, why):
    assert why in why_not_packed(made())


def test_a_kernel_without_masks_is_refused(llama_with_lora, monkeypatch):
    config = llama_with_lora.get_base_model().config
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    assert "takes no mask by examples" in why_not_packed(llama_with_lora)


def test_a_run_with_packing_learns_what_one_without_learns(llama_of_two, tmp_path):
    settings = {"dropout": 0, "optimizer": "sgd", "learning_rate": 0.1, "l1": 1e-4}
    for packed in (False, True):
        learn(llama_of_two, tmp_path / str(packed), "n-lora", TASKS[:2], packing=packed, **settings)
    for stage in (1, 2):
        found, expected = (losses(tmp_path / str(packed), stage) for packed in (True, False))
        for step, other in zip(found, expected, strict=True):
            assert step == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_a_directory_goes_on_with_packing(llama_of_two, tmp_path):
    settings = {"dropout": 0, "optimizer": "sgd", "learning_rate": 0.1}
    learn(llama_of_two, tmp_path / "whole", "inc-lora", TASKS[:2], **settings)
    half = first_stages(tmp_path / "whole", 1, tmp_path / "half")
    learn(llama_of_two, half, "inc-lora", TASKS[:2], packing=True, **settings)
    for step, other in zip(losses(half, 2), losses(tmp_path / "whole", 2), strict=True):
        assert step == pytest.approx(other, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "model", "why"),
    [
        ("inc-lora", "t5", "packing: an encoder-decoder model"),
        ("migu", "llama", "packing: migu measures"),
        ("gain-lora", "llama", "packing: soft prompts and gates"),
    ],
)
def test_what_cannot_be_packed_is_refused_before_training(method, model, why, request, tmp_path):
    asked = config(
        request.getfixturevalue(model),
        write_stream(tmp_path, "colour"),
        {**FAST, "packing": True},
        method=method,
    )
    with pytest.raises(NloraError, match=why):
        preview(resolve(asked))
    with pytest.raises(NloraError, match=why):
        run(asked, tmp_path / "out")
    assert not (tmp_path / "out" / "model.json").exists()


def test_what_is_not_counted_stays_uncounted():
    batch = Collator(0, False, packed=True)(rows([(3, 5), (4, 2)]))
    targets = answer_logits(with_lora(), batch).targets
    assert len(targets) == int((batch["labels"] != IGNORED).sum()) < 9
