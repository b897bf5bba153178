import pytest
import torch

from nlora.carriers.full import Full
from nlora.models.logits import answer_logits
from tests import tiny
from tests.carriers.helpers import batch, logits, train

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
    carrier = Full(tiny.model(shape))
    carrier.begin()
    train(carrier, seed=1)
    before = logits(carrier.model, shape)
    carrier.begin(keep_previous=True)
    train(carrier, seed=2)
    after = logits(carrier.model, shape)
    assert not torch.equal(after, before)
    with carrier.previous():
        assert torch.equal(logits(carrier.model, shape), before)
    assert torch.equal(logits(carrier.model, shape), after)


def test_previous_may_be_asked_while_a_backward_pass_is_in_flight():
    carrier = Full(tiny.model("llama"))
    carrier.begin(keep_previous=True)
    train(carrier, seed=1)

    def gradients(teacher: bool) -> list[torch.Tensor]:
        carrier.model.zero_grad()
        loss = answer_logits(carrier.model, batch("llama")).logits.square().mean()
        if teacher:
            with torch.no_grad(), carrier.previous():
                answer_logits(carrier.model, batch("llama"))
        loss.backward()
        return [p.grad.clone() for p in carrier.trainable()]

    pairs = zip(gradients(True), gradients(False), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_no_copy_of_the_model_is_kept_where_none_is_asked_for():
    carrier = Full(tiny.model("llama"))
    carrier.begin(keep_previous=True)
    carrier.begin()
    with pytest.raises(ValueError), carrier.previous():
        pass
