import pytest
import torch
from torch.nn.functional import linear

from nlora.adapters.lora import Lora
from nlora.methods.migu import busy
from tests import tiny
from tests.loop import context, encode, stage
from tests.methods.helpers import TASKS, learn, same_bits, update


def test_busy_units_are_those_above_the_quantile():
    sizes = torch.tensor([0.3, 0.1, 0.9, 0.5, 0.2])
    assert busy(sizes, 0.7).tolist() == [False, False, True, True, False]
    assert busy(sizes, 0.0).all()


@pytest.mark.parametrize("shape", ["grouped-query", "t5"])
def test_sizes_are_those_of_the_layers_outputs_over_the_tokens_that_are_read(shape):
    adapter = Lora(tiny.model(shape), 3, 6.0, 0.0)
    adapter.begin()
    ctx = context(shape, adapter, stage())
    rows = encode(shape, tiny.task())[:5]
    [(_, together)] = list(ctx.batches(rows))
    with ctx.output_magnitudes() as measured, measured.of(together) as batch:
        ctx.logits(batch)
    means = measured.means()
    sums, tokens = {}, {}
    seen, base = {}, {}
    layers = dict(ctx.model.named_modules())
    for name in measured.modules:
        layers[name].register_forward_pre_hook(
            lambda _, inputs, name=name: seen.__setitem__(name, inputs[0])
        )
        if "lora_B" in name:  # W·x of the layer that B adapts
            layers[name.split(".lora_B")[0]].base_layer.register_forward_hook(
                lambda _, inputs, output, name=name: base.__setitem__(name, output)
            )
    for row in rows:  # each by itself: there is no padding
        [(_, alone)] = list(ctx.batches([row]))
        ctx.logits(alone)
        for name, x in seen.items():
            y = linear(x.double(), layers[name].weight.double()).flatten(0, -2)
            if name in base:  # scaled by α/r = 2
                y = base[name].double().flatten(0, -2) + 2 * y
            sums[name] = sums.get(name, 0) + y.abs().sum(0)
            tokens[name] = tokens.get(name, 0) + len(y)
    assert {"lora_A" in name for name in means} == {True, False}
    for name, mean in means.items():
        expected = sums[name] / tokens[name]
        torch.testing.assert_close(mean.double(), expected, rtol=1e-4, atol=1e-7)


def test_the_other_rows_have_no_gradient_from_the_second_task_on(llama, tmp_path):
    settings = {"learning_rate": 1e-2, "epochs": 1, "tasks": TASKS[:2], "count": 8}
    settings |= {"shared_prefix": "off"}  # measured passes read every example whole
    learn(llama, tmp_path / "plain", "seq-lora", **settings)
    learn(llama, tmp_path / "none", "migu", still=0.0, **settings)
    assert same_bits(tmp_path / "none", tmp_path / "plain")
    learn(llama, tmp_path / "most", "migu", still=0.7, **settings)
    one, two = (update(tmp_path / "most", k) for k in (1, 2))
    assert all(tensor.equal(update(tmp_path / "plain", 1)[name]) for name, tensor in one.items())
    for name, before in one.items():
        moved = (two[name] != before).any(1)
        assert 0 < int(moved.sum()) <= 0.5 * len(moved)  # of one step
