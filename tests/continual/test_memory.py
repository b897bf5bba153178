"""What training will take, against what a step of a real model allocates."""

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.continual.memory import GAPS, Counting, Memory, estimate, what_fits
from nlora.data.batches import Collator
from nlora.data.encode import Encoder
from nlora.data.prompts import Prompter
from nlora.fast.attention import use_plain_attention
from nlora.fast.dropout import use_quick_dropout
from nlora.fast.logits import answer_logits
from nlora.plan.settings import RunSettings
from tests import tiny


def made(shape):
    net = tiny.model(shape)
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    use_plain_attention(net)
    use_quick_dropout(net)
    return net


def measured(net, examples, encoder_decoder, checkpointing):
    """Bytes that a step with real numbers allocates at the most, beside the parameters."""
    model = Lora(net, 8, 32.0, 0.1).model.train()
    if checkpointing:
        net.gradient_checkpointing_enable()
    batch = Collator(0, encoder_decoder, share_prefix=True)(examples)
    counting = Counting()
    counting.ignore(model.parameters())
    with counting:
        logits, targets = answer_logits(model, batch)
        torch.nn.functional.cross_entropy(logits, targets).backward()
    return counting.most


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shape", ["llama", "grouped-query", "t5", "t5-v1.1"])
def test_a_step_takes_what_was_estimated(shape, checkpointing):
    encoder_decoder = shape in tiny.ENCODER_DECODER
    encode = Encoder(tiny.tokenizer(encoder_decoder), Prompter(), encoder_decoder)
    examples = [encode(e) for e in tiny.task(count=8).train[:8]]
    real = measured(made(shape), examples, encoder_decoder, checkpointing)
    shell = made(shape).to("meta")
    model = Lora(shell, 8, 32.0, 0.1).model
    found = estimate(model, examples, len(examples), "adamw_torch", checkpointing)
    assert found.step == pytest.approx(real, rel=0.15)
    numbers = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found.weights == 4 * numbers
    assert found.optimizer == 8 * trained
    passing = measured(made(shape), examples, encoder_decoder, False)  # through the heap of a CPU
    assert found.gaps == pytest.approx(GAPS * (real + passing) / 2, rel=0.15)


@pytest.mark.parametrize(
    ("have", "advice"),
    [
        (500, None),
        (150, "set gradient_checkpointing=true"),
        (112, "set gradient_checkpointing=true, accumulation=4"),
        (40, "set gradient_checkpointing=true, accumulation=8, quantization=4bit"),
        (10, "will not fit, with"),
    ],
)
def test_it_is_said_what_would_make_it_fit(have, advice):
    def at(rows, checkpointing, quantization):
        return Memory(100 if quantization == "none" else 20, 0, rows * (4 if checkpointing else 50))

    said = what_fits(have, RunSettings.model_validate({"batch_size": 8}), 8, at)
    assert said is None if advice is None else advice in str(said)
