import pytest
import torch
from torch.nn.functional import cross_entropy

from nlora.backbones.structure import base_model
from nlora.data.batches import IGNORED, Collator
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from tests.tiny import ENCODER_DECODER, SHAPES, model

ROWS = [
    Encoded([11, 12, 13, 14], [21, 22, 1], False),
    Encoded([11], [31, 1], False),
    Encoded([11, 12, 15, 16, 17, 18], [41, 42, 43, 1], False),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_only_answers_are_projected_and_the_loss_is_the_models_own(shape):
    net = model(shape).double().eval()
    batch = Collator(0, shape in ENCODER_DECODER)(ROWS)
    logits, targets = answer_logits(net, batch)
    assert logits.shape[0] == sum(len(r.answer) for r in ROWS)
    total = cross_entropy(logits, targets, reduction="sum")
    # row by row and without padding, with the loss that Transformers computes
    expected = 0.0
    for row in ROWS:
        if shape in ENCODER_DECODER:
            out = net(input_ids=torch.tensor([row.prompt]), labels=torch.tensor([row.answer]))
        else:
            labels = torch.tensor([[IGNORED] * len(row.prompt) + row.answer])
            out = net(input_ids=torch.tensor([row.prompt + row.answer]), labels=labels)
        expected = expected + out.loss * len(row.answer)
    # Transformers computes its loss in fp32
    torch.testing.assert_close(total.float(), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", ["grouped-query", "t5"])
def test_targets_follow_the_order_of_the_logits(shape):
    batch = Collator(0, shape in ENCODER_DECODER)(ROWS)
    _, targets = answer_logits(model(shape), batch)
    assert targets.tolist() == [token for row in ROWS for token in row.answer]


def test_a_model_without_logits_to_keep_gives_the_same():
    class Plain(type(model("llama"))):
        def forward(self, input_ids, attention_mask, position_ids=None, use_cache=False):
            return super().forward(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids
            )

    net = model("llama")
    plain = Plain(net.config)
    plain.load_state_dict(net.state_dict())
    batch = Collator(0, False)(ROWS)
    torch.testing.assert_close(answer_logits(plain, batch).logits, answer_logits(net, batch).logits)


def test_the_model_is_found_inside_its_wrappers():
    from peft import LoraConfig, get_peft_model

    net = model("llama")
    assert base_model(get_peft_model(net, LoraConfig(task_type="CAUSAL_LM"))) is net
