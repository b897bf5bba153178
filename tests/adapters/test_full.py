import pytest
import torch
from benchmarks.tiny_families import tiny_config
from transformers import AutoModelForSeq2SeqLM

from nlora.adapters.full import Full
from tests import tiny
from tests.adapters.helpers import logits, teaching_leaves_gradients_alone, train

SHAPES = ("llama", "gpt2", "t5")  # gpt2 and t5 share embeddings and output layer


@pytest.mark.parametrize("shape", SHAPES)
def test_the_last_saved_state_is_the_model(shape, tmp_path):
    live = Full(tiny.model(shape))
    for stage in (1, 2):
        live.begin()
        train(live, seed=stage)
        live.save(tmp_path / str(stage))
    loaded = Full(tiny.model(shape, seed=5))
    loaded.load([tmp_path / "1", tmp_path / "2"])
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))
    assert live.replaces


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_is_trained_and_shared_ones_stay_shared(shape, tmp_path):
    live = Full(tiny.model(shape).requires_grad_(False))
    assert {id(p) for p in live.trainable()} == {id(p) for p in live.model.parameters()}
    assert all(p.requires_grad for p in live.trainable())
    train(live, seed=1)
    live.save(tmp_path)
    loaded = Full(tiny.model(shape))
    loaded.load([tmp_path])
    inputs, outputs = (
        loaded.model.get_input_embeddings().weight,
        loaded.model.get_output_embeddings().weight,
    )
    assert (inputs is outputs) == (shape != "llama")


@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_previous_is_the_model_from_before_the_stage(shape):
    adapter = Full(tiny.model(shape))
    adapter.begin()
    train(adapter, seed=1)
    before = logits(adapter.model, shape)
    adapter.begin(keep_previous=True)
    train(adapter, seed=2)
    after = logits(adapter.model, shape)
    assert not torch.equal(after, before)
    with adapter.previous():
        assert torch.equal(logits(adapter.model, shape), before)
    assert torch.equal(logits(adapter.model, shape), after)


def test_previous_may_be_asked_while_a_backward_pass_is_in_flight():
    adapter = Full(tiny.model("llama"))
    adapter.begin(keep_previous=True)
    train(adapter, seed=1)
    assert teaching_leaves_gradients_alone(adapter)


def test_no_copy_of_the_model_is_kept_where_none_is_asked_for():
    adapter = Full(tiny.model("llama"))
    adapter.begin(keep_previous=True)
    adapter.begin()
    with pytest.raises(ValueError), adapter.previous():
        pass


def test_what_a_model_is_not_saved_with_is_not_trained(tmp_path):
    """Marian computes its positions when it is loaded."""
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(tiny_config("marian")).save_pretrained(tmp_path / "base")
    full = Full(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base"))
    full.begin()
    assert not [name for name in full.trained() if "embed_positions" in name]
    train(full, seed=1)
    trained = logits(full.model, "t5")
    full.merged().save_pretrained(tmp_path / "plain")
    found = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "plain")
    torch.testing.assert_close(logits(found, "t5"), trained)
