"""What model the updates make together, and the model as it was before."""

import pytest
import torch
from benchmarks.tiny_families import tiny_config
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from nlora.adapters.base import ties_told
from nlora.adapters.full import Full
from nlora.adapters.lora import Lora
from tests import tiny
from tests.adapters.helpers import logits, train
from tests.adapters.test_lora import adapter, delta, learn
from tests.adapters.test_lora import train as train_lora

KINDS = ("sum", "largest", "none")


def dense_model(shape: str, changes: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a plain model to whose weights these changes were added."""
    plain = Lora(tiny.model(shape), 1, 1.0, 0.0)  # B is 0: it only finds the matrices by name
    with torch.no_grad():
        for name, layer in plain.layers.items():
            change = changes[name].float()
            layer.get_base_layer().weight.add_(change.T if layer.fan_in_fan_out else change)
    return logits(plain.model, shape)


def together(kind: str, updates: list[torch.Tensor]) -> torch.Tensor:
    """What the updates (float64) of one matrix make, entry by entry."""
    if kind == "none":
        return updates[-1]
    if kind == "sum":
        return torch.stack(updates).sum(0)
    stacked = torch.stack(updates)
    return stacked.gather(0, stacked.abs().argmax(0, keepdim=True))[0]


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_stage_the_model_is_what_its_updates_make(kind, shape, fold):
    lora = adapter(shape, fold, consolidation=kind)
    learned: dict[str, list[torch.Tensor]] = {name: [] for name in lora.layers}
    for stage in range(1, 4):
        lora.begin()
        before = logits(lora.model, shape)
        train_lora(lora, seed=stage)
        lora.consolidate()
        for name, factors in lora.factors().items():
            learned[name].append(delta(factors))
        expected = dense_model(shape, {n: together(kind, u) for n, u in learned.items()})
        torch.testing.assert_close(logits(lora.model, shape), expected, rtol=0, atol=2e-5)
        if stage == 3:  # what the third stage was trained on
            earlier = {
                n: torch.zeros_like(u[0]) if kind == "none" else together(kind, u[:2])
                for n, u in learned.items()
            }
            torch.testing.assert_close(before, dense_model(shape, earlier), rtol=0, atol=2e-5)


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
@pytest.mark.parametrize("shape", ["grouped-query", "t5-v1.1"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_as_it_stood_comes_back_from_its_files_and_goes_again(
    kind, shape, fold, tmp_path
):
    lora = adapter(shape, fold, consolidation=kind)
    folders, stood = [], [logits(tiny.model(shape), shape)]
    for stage in range(1, 4):
        lora.begin()
        train_lora(lora, seed=stage)
        lora.consolidate()
        folders.append(tmp_path / str(stage))
        lora.save(folders[-1])
        stood.append(logits(lora.model, shape))
    for stage, expected in enumerate(stood[:3]):
        with lora.after(folders[:stage]):
            found = logits(lora.model, shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=0 if stage else 1e-6)
        assert torch.equal(logits(lora.model, shape), stood[3])
    with pytest.raises(RuntimeError), lora.after(folders[:1]):
        raise RuntimeError
    assert torch.equal(logits(lora.model, shape), stood[3])
    assert len(lora.past) == 2
    loaded = adapter(shape, fold, consolidation=kind)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), stood[3])


def test_a_dense_change_of_a_bf16_model_is_kept_where_folding_would_lose_it():
    lora = Lora(tiny.model("llama").bfloat16(), 3, 6.0, 0.0, fold=False, consolidation="largest")
    before = {n: layer.get_base_layer().weight.clone() for n, layer in lora.layers.items()}
    learn(lora, 3)
    assert 0 < lora.notes()["history_error"] < 2**-8
    for name, layer in lora.layers.items():
        assert torch.equal(layer.get_base_layer().weight, before[name])


def test_isolated_stages_over_all_parameters_each_begin_at_the_base(tmp_path):
    full = Full(tiny.model("llama"), isolated=True)
    base, stood = logits(full.model, "llama"), []
    for stage in (1, 2):
        full.begin()
        assert torch.equal(logits(full.model, "llama"), base)
        train(full, seed=stage)
        full.save(tmp_path / str(stage))
        stood.append(logits(full.model, "llama"))
    with full.after([tmp_path / "1"]):
        assert torch.equal(logits(full.model, "llama"), stood[0])
    assert torch.equal(logits(full.model, "llama"), stood[1])
    resumed = Full(tiny.model("llama"), isolated=True)
    resumed.load([tmp_path / "2"])
    assert torch.equal(logits(resumed.model, "llama"), stood[1])
    resumed.begin()
    assert torch.equal(logits(resumed.model, "llama"), base)


@pytest.mark.parametrize("family", ["bart", "marian", "prophetnet", "t5", "gpt2"])
def test_a_head_that_was_the_embeddings_is_written_beside_them(family, tmp_path):
    made = tiny_config(family)
    kind = AutoModelForSeq2SeqLM if made.is_encoder_decoder else AutoModelForCausalLM
    shape = "t5" if made.is_encoder_decoder else "gpt2"
    torch.manual_seed(0)
    lora = Lora(kind.from_config(made), 2, 4.0, 0.0, ["lm_head"])
    lora.begin()
    train(lora, seed=1)
    lora.consolidate()
    trained = logits(lora.model, shape)
    ties_told(lora.merged()).save_pretrained(tmp_path)
    found = kind.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(found, shape), trained, rtol=0, atol=1e-5)
