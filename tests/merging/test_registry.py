from zlib import crc32

import pytest
import torch

from nlora.adapters.lora import Lora
from nlora.errors import NloraError
from nlora.lowrank.factors import Factors, concatenate
from nlora.merging import registry
from nlora.merging.base import Consolidation
from nlora.methods.registry import method
from tests import tiny
from tests.adapters.helpers import logits
from tests.adapters.test_consolidation import dense_model
from tests.adapters.test_lora import delta, train


class Half(Consolidation):
    """A strategy as a plug-in has it: half of the sum."""

    name = "half"
    summary = "half of the sum"

    def merge(self, updates):
        return concatenate([u._replace(scaling=u.scaling / 2) for u in updates])


def pair(seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    return Factors(A, torch.randn(4, 2, generator=generator, dtype=torch.float64), 0.5)


def dense(change):
    return change.delta() if isinstance(change, Factors) else change


def sparsified(each: torch.Tensor) -> dict[str, torch.Tensor]:
    """ties, magnitude and dare of (3, 4, 5), entry by entry."""
    kept = torch.zeros_like(each)
    for update, found in zip(each, kept, strict=True):
        for place in update.abs().flatten().argsort(descending=True)[:4]:  # a fifth of 20
            found.view(-1)[place] = update.view(-1)[place]
    agreed = torch.zeros_like(each[0])
    for row in range(4):
        for column in range(5):
            values = kept[:, row, column]
            sign = 1 if values.sum() >= 0 else -1
            same = [float(v) for v in values if v * sign > 0]
            agreed[row, column] = sum(same) / max(len(same), 1)
    torch.manual_seed(crc32(b"a"))
    dropped = [u * torch.bernoulli(torch.full_like(u, 0.1)) * 10 for u in each]
    return {"ties": agreed, "magnitude": kept.sum(0), "dare": sum(dropped)}


def folded(each: torch.Tensor) -> torch.Tensor:
    """retract of (3, 4, 5) updates of rank 2, in dense matrices."""
    shared = each[0]
    for t, update in enumerate(each[1:], start=2):
        left = torch.linalg.svd(shared)[0][:, :2]
        update = update - left @ left.T @ update
        U, S, Vh = torch.linalg.svd(((t - 1) / t) ** 0.5 * shared + t**-0.5 * update)
        shared = U[:, :2] @ torch.diag(S[:2]) @ Vh[:2]
    return shared


def test_the_built_in_ones_are_what_they_say():
    updates = [pair(seed) for seed in range(3)]
    each = torch.stack([0.5 * u.B @ u.A for u in updates])
    wanted = {
        "sum": each.sum(0),
        "largest": each.gather(0, each.abs().argmax(0, keepdim=True))[0],
        "none": each[2],
        "retract": folded(each),
        **sparsified(each),
    }
    assert set(wanted) == set(registry.consolidations())
    for name, change in wanted.items():
        found = registry.consolidation(name)
        assert found.name == name
        assert found.summary
        torch.testing.assert_close(dense(found.merged(updates, "a")), change)
        torch.testing.assert_close(dense(found.merged(updates, "a")), change)  # and once more
        again = dense(found.merged(updates, "another matrix")).equal(
            dense(found.merged(updates, "a"))
        )
        assert again == (name != "dare")  # which drops others there
        assert found.additive == (name == "sum")
        assert found.alone == (name == "none")


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "dense"])
def test_a_strategy_of_one_s_own_makes_the_model_that_it_says(fold, tmp_path):
    lora, each, folders = (
        Lora(tiny.model("gpt2"), 3, 6.0, 0.0, fold=fold, consolidation=Half()),
        {},
        [],
    )
    for stage in (1, 2, 3):
        lora.begin()
        train(lora, seed=stage)
        lora.consolidate()
        folders.append(tmp_path / str(stage))
        lora.save(folders[-1])
        for name, factors in lora.factors().items():
            each[name] = each.get(name, 0) + delta(factors) / 2
        wanted = dense_model("gpt2", each)
        torch.testing.assert_close(logits(lora.model, "gpt2"), wanted, rtol=0, atol=2e-5)
    trained = logits(lora.model, "gpt2")
    with lora.after(folders[:1]):
        assert not torch.allclose(logits(lora.model, "gpt2"), trained, atol=1e-3)
    torch.testing.assert_close(logits(lora.model, "gpt2"), trained)
    torch.testing.assert_close(logits(lora.merged(), "gpt2"), trained, rtol=0, atol=2e-5)


def test_a_strategy_is_a_setting_once_it_is_registered(monkeypatch):
    monkeypatch.setattr(registry, "_known", dict(registry._known))
    with pytest.raises(NloraError, match="unknown consolidation 'half'"):
        method("inc-lora").build({"consolidation": "half"})
    registry.register(Half)
    built = method("inc-lora").build({"consolidation": "half"})
    assert built.adapter_options() == {"consolidation": "half"}
    assert isinstance(registry.consolidation("half"), Half)


def test_a_misspelt_strategy_has_a_hint():
    with pytest.raises(NloraError, match="unknown consolidation 'smu'; did you mean 'sum'"):
        method("inc-lora").build({"consolidation": "smu"})


def test_an_incomplete_strategy_is_refused():
    class Nothing(Consolidation):
        name = "nothing"

    with pytest.raises(NloraError, match="Nothing needs a name and `merge`"):
        registry.register(Nothing)
