import pytest
import torch

from nlora.fast import attention
from nlora.fast.attention import NAME, use_plain_attention
from tests import tiny


def outputs(shape: str, plain: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits of rows of different lengths, and the gradients of all parameters."""
    net = tiny.model(shape)
    if plain:
        use_plain_attention(net)
        assert net.config._attn_implementation == NAME
    torch.manual_seed(1)
    ids = torch.randint(3, 200, (3, 20))
    mask = torch.ones_like(ids)
    more = {}
    if shape in tiny.ENCODER_DECODER:
        mask[0, 9:] = 0
        more = {"decoder_input_ids": torch.randint(3, 200, (3, 5))}
        seen = torch.ones(3, 5, dtype=torch.bool)
    else:
        mask[0, :9] = 0
        seen = mask.bool()
    logits = net(input_ids=ids, attention_mask=mask, **more).logits[seen]
    logits.square().mean().backward()
    return logits.detach(), [p.grad for p in net.parameters() if p.grad is not None]


@pytest.mark.parametrize("most", [2**22, 0], ids=["plain", "fused"])
@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_plain_attention_is_that_of_the_library(shape, most, monkeypatch):
    monkeypatch.setattr(attention, "MOST_SCORES", most)
    expected, gradients = outputs(shape, plain=False)
    logits, ours = outputs(shape, plain=True)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_an_attention_that_a_user_chose_stays(tmp_path):
    net = tiny.model("llama")
    net.set_attn_implementation("eager")
    use_plain_attention(net)
    assert net.config._attn_implementation == "eager"


def test_models_that_choose_their_keys_attend_as_they_do(monkeypatch):
    net = tiny.model("llama")
    monkeypatch.setattr(net.config, "index_topk", 4, raising=False)
    use_plain_attention(net)
    assert net.config._attn_implementation == "sdpa"
