"""What a router sees of a text: the same states in every family, whatever its class calls them."""

import pytest
import torch
from transformers import Llama4ForCausalLM, Llama4TextConfig

from nlora.backbones.states import mean_state
from tests.tiny import model


def llama4():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "intermediate_size_mlp": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    experts = {"num_local_experts": 2, "num_hidden_layers": 2, "vocab_size": 259}
    return Llama4ForCausalLM(Llama4TextConfig(**sizes, **heads, **experts, pad_token_id=0))


@pytest.mark.parametrize("make", [llama4, lambda: model("llama"), lambda: model("gpt2")])
def test_the_mean_is_of_the_states_below_the_head(make):
    net = make().eval()
    ids, mask = torch.arange(3, 13)[None], torch.tensor([[1] * 6 + [0] * 4])
    given = {"input_ids": ids, "attention_mask": mask, "output_hidden_states": True}
    with torch.no_grad():
        states = net(**given).hidden_states[-1]
    found = mean_state(net, ids, mask.bool())
    torch.testing.assert_close(found, states[:, :6].mean(1), rtol=1e-4, atol=1e-5)
