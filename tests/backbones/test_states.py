"""What a router sees of a text: the same states in every family, whatever its class calls them."""

import copy

import pytest
import torch
from transformers import Llama4ForCausalLM, Llama4TextConfig

from nlora.backbones.states import half_of_layers, mean_state
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


@pytest.mark.parametrize("shape", ["llama", "gpt2", "t5"])
def test_with_its_first_layers_alone_it_is_a_shallower_model_and_then_itself_again(shape):
    net = model(shape).eval()
    ids, mask = torch.arange(3, 13)[None], torch.tensor([[True] * 6 + [False] * 4])
    whole = mean_state(net, ids, mask)
    found = mean_state(net, ids, mask, layers=half_of_layers(net))
    name = {"gpt2": "n_layer", "t5": "num_layers"}.get(shape, "num_hidden_layers")
    config = copy.deepcopy(net.config)
    assert getattr(config, name) == 2
    setattr(config, name, 1)
    shallow = type(net)(config).eval()
    shallow.load_state_dict(net.state_dict(), strict=False)
    assert torch.equal(found, mean_state(shallow, ids, mask))
    assert not torch.equal(found, whole)
    assert torch.equal(mean_state(net, ids, mask), whole)
    assert half_of_layers(shallow) is None  # what T5 lists within its one layer are no layers
