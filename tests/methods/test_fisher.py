"""The Fisher information against one plain backward pass per example, alone and in float64."""

from copy import deepcopy

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from nlora.adapters.full import Full
from nlora.adapters.lora import Lora
from nlora.methods.parts.fisher import diagonal_fisher
from tests import tiny
from tests.loop import context, encode, stage
from tests.runs import Listener


def begun(kind: str, net, **lora):
    """An adapter that has moved; LoRA with dropout, which must not be active."""
    torch.manual_seed(0)
    if kind == "full":
        return Full(net)
    adapter = Lora(net, rank=3, alpha=6.0, dropout=0.5, **lora)
    adapter.begin()
    with torch.no_grad():
        for factors in adapter.factors().values():
            factors.B.normal_(std=0.3)
    return adapter


def log_likelihood(net, example, encoder_decoder: bool):
    """Σ_t log p(y_t | x, y_<t), from the logits of the whole sequence."""
    prompt, answer = torch.tensor([example.prompt]), torch.tensor([example.answer])
    if encoder_decoder:
        start = torch.cat([torch.zeros(1, 1, dtype=torch.long), answer[:, :-1]], dim=1)
        logits = net(input_ids=prompt, decoder_input_ids=start).logits
    else:
        ids = torch.cat([prompt, answer], dim=1)
        logits = net(input_ids=ids).logits[:, prompt.shape[1] - 1 : -1]
    return logits.log_softmax(-1).gather(-1, answer[..., None]).sum()


def plainly(adapter, examples, encoder_decoder: bool):
    net = deepcopy(adapter.model).double().eval()
    parameters = [p for p in net.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in parameters]
    for example in examples:
        value = log_likelihood(net, example, encoder_decoder)
        for square, gradient in zip(
            total, torch.autograd.grad(value, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                square += gradient**2
    return [square / len(examples) for square in total]


def fisher(shape, adapter, examples, **more):
    ctx = context(shape, adapter, stage(), **more)
    return diagonal_fisher(ctx, adapter.trainable(), examples)


def compare(found, expected):
    assert all(square.dtype == torch.float32 for square in found)
    for square, exact in zip(found, expected, strict=True):
        scale = float(exact.max())
        torch.testing.assert_close(square.double(), exact, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])
def test_it_is_the_mean_square_of_each_examples_own_gradient(shape, kind):
    encoder_decoder = shape in tiny.ENCODER_DECODER
    adapter = begun(kind, tiny.model(shape))
    examples = encode(shape, tiny.task(count=9))
    found = fisher(shape, adapter, examples)
    compare(found, plainly(adapter, examples, encoder_decoder))
    assert all(p.grad is None for p in adapter.trainable())


class Counted(Listener):
    count = 0

    def advance(self, count: int = 1, **values: float) -> None:
        self.count += count


def test_a_batch_of_rows_takes_one_pass_where_the_parameters_allow_it():
    for kind, passes in (("lora", 1), ("full", 4)):
        adapter, calls, done = begun(kind, tiny.model("llama")), [], Counted()
        adapter.model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        examples = encode("llama", tiny.task(count=4))
        fisher("llama", adapter, examples, progress=done)
        assert (len(calls), done.count) == (passes, 4)


def test_layers_that_see_all_rows_as_one_list_are_taken_one_by_one():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 2}
    config = OPTConfig(vocab_size=259, num_attention_heads=4, pad_token_id=0, dropout=0.0, **sizes)
    net = OPTForCausalLM(config)
    seen = []
    net.model.decoder.layers[0].fc1.register_forward_hook(lambda m, x, y: seen.append(x[0].ndim))
    adapter = begun("lora", net, target_modules=["fc1", "q_proj"])
    examples = encode("llama", tiny.task(count=4))
    found = fisher("llama", adapter, examples)
    assert set(seen) == {2}  # or this model shows nothing
    compare(found, plainly(adapter, examples, encoder_decoder=False))
