"""Lower layers stay as they are after the first stage, with the setting `frozen_layers`."""

import re

import pytest

from nlora.errors import NloraError
from tests.methods.helpers import TASKS, learn, same_bits, stages, update


def moved(out, stage):
    """By tensor of the update whether the stage changed it, against the stage before."""
    before, after = update(out, stage - 1), update(out, stage)
    return {name: not before[name].equal(after[name]) for name in after}


@pytest.mark.parametrize(
    ("shape", "name", "asked"),
    [
        ("llama_of_two", "seq-lora", 1),
        ("t5_of_two", "seq-lora", 0.5),
        ("llama_of_two", "seq-ft", 0.5),
        ("t5_of_two", "seq-ft", 1),
    ],
)
def test_the_lowest_layers_keep_what_the_first_stage_made_of_them(
    shape, name, asked, request, tmp_path
):
    model = request.getfixturevalue(shape)
    learn(model, tmp_path, name, learning_rate=1e-2, frozen_layers=asked)
    first = [t for t in update(tmp_path, 1).values() if t.any()]
    assert first
    # A T5 layer has numbers of its own in its name: block.1.layer.0 is not the lowest.
    low = re.compile(
        r"^[^0-9]*\.0\.|embed|shared|lm_head" if shape == "t5_of_two" else r"layers\.0\.|embed"
    )
    for stage in (2, 3):
        changed = moved(tmp_path, stage)
        frozen = {n for n in changed if low.search(n)}
        assert frozen
        assert not any(changed[n] for n in frozen - {"lm_head.weight"})
        assert all(changed[n] for n in changed.keys() - frozen if "lora_B" in n or "q.weight" in n)
    counts = [record.trainable_parameters for record in stages(tmp_path)]
    assert counts[0] > counts[1] == counts[2] > 0


def test_a_fresh_adapter_is_no_change_there(llama_of_two, tmp_path):
    learn(llama_of_two, tmp_path, "inc-lora", TASKS[:2], frozen_layers=1)
    found = {n: bool(t.any()) for n, t in update(tmp_path, 2).items() if "lora_B" in n}
    assert set(found.values()) == {True, False}
    assert all(there != ("layers.0." in name) for name, there in found.items())


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("n-lora", {"epochs": 4}),
        ("n-lora", {"epochs": 4, "penalty": "column-row", "learning_rate": 1e-3}),
        ("ewc", {"adapter": "lora"}),
        ("lwf", {"adapter": "full"}),
        ("sparse-masks", {}),
        ("osf", {}),
    ],
)
def test_it_goes_with_penalties_and_other_adapters(name, more, llama_of_two, tmp_path):
    learn(llama_of_two, tmp_path, name, TASKS[:2], frozen_layers=1, **more)
    one, two = stages(tmp_path)
    assert two.trainable_parameters < one.trainable_parameters


def test_the_first_stage_is_that_of_a_run_without_it(learned, llama_of_two, tmp_path):
    learn(llama_of_two, tmp_path, "seq-lora", TASKS[:1], frozen_layers=1)
    assert same_bits(learned("llama_of_two", "seq-lora", TASKS[:1]), tmp_path)


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("inc-lora", 2, "2 freezes everything that adapter 'lora' trains; the model has 2 layers"),
        ("prog-prompt", 1, "1 freezes nothing that adapter 'prompt' trains"),
        ("inc-lora", 1.5, "must be a number of layers, or a share below 1"),
        ("inc-lora", -1, "greater than or equal to 0"),
    ],
)
def test_what_freezes_nothing_or_everything_is_refused_at_once(
    name, asked, said, llama_of_two, tmp_path
):
    with pytest.raises(NloraError, match=said):
        learn(llama_of_two, tmp_path, name, frozen_layers=asked)
    assert not stages(tmp_path)
