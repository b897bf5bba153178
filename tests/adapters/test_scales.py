"""A trained scalar on every earlier update."""

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.adapters.stacked import STATE
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.adapters.helpers import batch, logits
from tests.adapters.test_consolidation import dense_model
from tests.adapters.test_lora import adapter, delta, train

BOTH = pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
SHAPES = pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])


def learned(shape: str, fold: bool, folder) -> tuple[Lora, list, dict]:
    """Three stages, the third with scalars 0.5 and −2 on the updates before it."""
    lora, folders = adapter(shape, fold), []
    updates: dict[str, list] = {name: [] for name in lora.layers}
    for stage in (1, 2, 3):
        lora.begin(scales=True, keep_previous=True)
        train(lora, seed=stage)
        for name, factors in lora.factors().items():
            updates[name].append(delta(factors))
        if stage == 3:
            with torch.no_grad():
                lora.trained()["past_scales"].copy_(torch.tensor([0.5, -2.0]))
        folders.append(folder / str(stage))
        lora.save(folders[-1])
        if stage < 3:
            with torch.no_grad():
                for scalar in lora.state().values():
                    assert scalar.tolist() == [1.0] * (stage - 1)
    return lora, folders, updates


def expected(shape: str, updates: dict, scales: list[float]) -> torch.Tensor:
    """The logits of W₀ + Σ s_i ΔW_i, the sum in float64."""
    changes = {
        name: sum(s * dW for s, dW in zip(scales, each, strict=True))
        for name, each in updates.items()
    }
    return dense_model(shape, changes)


@BOTH
@SHAPES
def test_the_model_is_the_base_plus_the_scaled_updates(shape, fold, tmp_path):
    lora, folders, updates = learned(shape, fold, tmp_path)
    wanted = expected(shape, updates, [0.5, -2.0, 1.0])
    torch.testing.assert_close(logits(lora.model, shape), wanted, rtol=0, atol=2e-5)
    with lora.previous():
        two = {name: each[:2] for name, each in updates.items()}
        found = logits(lora.model, shape)
        torch.testing.assert_close(found, expected(shape, two, [1.0, 1.0]), rtol=0, atol=2e-5)
    lora.consolidate()
    trained = logits(lora.model, shape)
    torch.testing.assert_close(trained, wanted, rtol=0, atol=2e-5)
    with lora.previous():
        torch.testing.assert_close(logits(lora.model, shape), found, rtol=0, atol=2e-5)
    assert torch.equal(logits(lora.model, shape), trained)
    loaded = adapter(shape, fold)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), trained)
    assert loaded.notes()["scales"] == [0.5, -2.0]
    with loaded.after(folders[:2]):
        found = logits(loaded.model, shape)
        torch.testing.assert_close(found, expected(shape, two, [1.0, 1.0]), rtol=0, atol=2e-5)
    assert torch.equal(logits(loaded.model, shape), trained)
    torch.testing.assert_close(logits(loaded.merged(), shape), wanted, rtol=0, atol=2e-5)


@BOTH
def test_the_scalars_are_in_force_from_then_on_and_may_be_trained_further(fold, tmp_path):
    lora, _, updates = learned("llama", fold, tmp_path)
    lora.begin()
    assert not any("scales" in name for name in lora.trained())
    wanted = expected("llama", updates, [0.5, -2.0, 1.0])
    torch.testing.assert_close(logits(lora.model, "llama"), wanted, rtol=0, atol=2e-5)
    train(lora, seed=4)
    lora.save(tmp_path / "4")
    assert (tmp_path / "4" / STATE).is_file()
    lora.begin(scales=True)
    assert lora.trained()["past_scales"].tolist() == [0.5, -2.0, 1.0, 1.0]


@SHAPES
def test_a_scalar_s_gradient_is_that_of_its_update(shape, tmp_path):
    lora, _, updates = learned(shape, True, tmp_path)
    scales = lora.trained()["past_scales"]
    answer_logits(lora.model, batch(shape)).logits.square().mean().backward()

    def loss(first: float) -> float:
        found = expected(shape, updates, [first, -2.0, 1.0])
        return float(found.double().square().mean())

    assert scales.grad is not None
    step = 1e-2
    slope = (loss(0.5 + step) - loss(0.5 - step)) / (2 * step)
    assert float(scales.grad[0]) == pytest.approx(slope, rel=1e-2)


def test_the_first_stage_has_nothing_to_scale(tmp_path):
    lora = adapter("llama")
    lora.begin(scales=True)
    assert lora.state() == {}
    assert all("scales" not in name for name in lora.trained())
    lora.save(tmp_path)
    assert not (tmp_path / STATE).exists()


def test_a_rejected_stage_takes_its_scalars_with_it(tmp_path):
    lora, folders, _ = learned("llama", True, tmp_path)
    lora.load(folders[:1])
    assert lora.state() == {}
    assert all("scales" not in name for name in lora.trained())
    fresh = adapter("llama")
    fresh.load(folders[:1])
    assert torch.equal(logits(lora.model, "llama"), logits(fresh.model, "llama"))


@pytest.mark.parametrize("kind", ["largest", "none"])
def test_scalars_need_the_sum(kind):
    lora = Lora(tiny.model("llama"), 2, 4.0, 0.0, consolidation=kind)
    with pytest.raises(NloraError, match=f"need their sum, not '{kind}'"):
        lora.begin(scales=True)
