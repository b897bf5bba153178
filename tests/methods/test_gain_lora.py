"""GainLoRA, and updates that are weighed by gates of the input."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, silu

from nlora.adapters.gated import Gated
from nlora.adapters.settings import AdapterSettings
from nlora.data.encode import Encoded
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.loop import context, encode, stage
from tests.methods.helpers import TASKS, first_stages, learn, same_bits, state, update

SETTINGS = {"learning_rate": 1e-2, "rank": 2, "epochs": 1, "count": 16, "tasks": TASKS[:2]}
SETTINGS |= {"share": 0.9, "gate_hidden": 6}


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    out = tmp_path_factory.mktemp("gain") / "out"
    learn(llama, out, "gain-lora", **SETTINGS)
    return out


def stacked(shape: str, updates: int) -> Gated:
    """An adapter of so many updates that are not 0."""
    torch.manual_seed(0)
    settings = AdapterSettings(rank=2, dropout=0.0, precision="fp32")
    adapter = Gated.build(tiny.model(shape), settings, hidden=5)
    for _ in range(updates):
        adapter.begin()
        with torch.no_grad():
            for factors in adapter.factors().values():
                factors.B.normal_()
    return adapter


@pytest.mark.parametrize("shape", ["grouped-query", "t5"])
def test_a_model_is_the_base_with_each_update_times_its_gate(shape):
    adapter = stacked(shape, 3)
    ctx = context(shape, adapter, stage())
    rows = encode(shape, tiny.task())[:3]
    [(order, batch)] = list(ctx.batches(rows))
    sizes = [int((batch["labels"][i] >= 0).sum()) for i in range(len(rows))]
    together = answer_logits(adapter.model, batch).logits.split(sizes)
    embeddings = adapter.model.get_base_model().get_input_embeddings().weight.detach().double()
    plain = tiny.model(shape)
    base = {name: plain.get_submodule(name).weight.detach().clone() for name in adapter.layers}
    for i, logits in zip(order, together, strict=True):
        ids = rows[i].prompt
        mean = embeddings[torch.tensor(ids)].mean(0)
        weights: list[torch.Tensor] = []
        for gate in adapter.gates():
            down, up, key = (part.detach().double() for part in gate)
            x = silu(up @ silu(down @ mean))
            weights.append(abs(2 * torch.sigmoid(4 * cosine_similarity(x, key, 0)) - 1))
        assert len(set(map(float, weights))) == 3
        each = [*adapter.past, adapter.copy()]
        with torch.no_grad():
            for name, weight in base.items():
                change = sum(w * u[name].delta() for w, u in zip(weights, each, strict=True))
                plain.get_submodule(name).weight.copy_(weight + change)
            [(_, alone)] = list(ctx.batches([rows[i]]))
            expected = answer_logits(plain, alone).logits
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_what_is_written_after_a_prompt_is_weighed_by_the_prompt_alone(shape):
    adapter = stacked(shape, 2)
    ctx = context(shape, adapter, stage())
    prompt = encode(shape, tiny.task())[0].prompt
    inputs = {"input_ids": torch.tensor([prompt])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    adapter.model.eval()
    new = adapter.model.generate(**inputs, max_new_tokens=5, do_sample=False)[0].tolist()
    new = new[1:] if shape == "t5" else new[len(prompt) :]
    read = Encoded(prompt, new, truncated=False)
    [(_, batch)] = list(ctx.batches([read]))
    assert answer_logits(adapter.model, batch).logits.argmax(-1).tolist() == new


def test_a_new_gate_stays_as_it_began_where_earlier_tasks_have_been(learned):
    kept, stood = state(learned, 1), update(learned, 2)
    key, size = stood["gate_1_key"].double(), stood["gate_1_key"].norm()
    basis = kept["gate_bases.key"].double()
    assert float((basis @ key).norm()) < 1e-4 * float(size)
    for part in ("down", "up"):
        moved = (stood[f"gate_1_{part}"] - stood[f"gate_0_{part}"]).double()
        inside = moved @ kept[f"gate_bases.{part}"].double().T
        assert float(inside.norm()) < 1e-4 * float(moved.norm())
    assert all(stood[n].equal(t) for n, t in update(learned, 1).items() if n.startswith("gate_0"))


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(learned, llama, tmp_path):
    again = first_stages(learned, 1, tmp_path / "again")
    learn(llama, again, "gain-lora", **SETTINGS)
    assert same_bits(again, learned)
