"""Updates that do not start at 0, on a base model that stays what it is published as."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import ValidationError

from nlora.adapters.lora import Lora
from nlora.adapters.settings import AdapterSettings
from nlora.adapters.starts import peft_start
from nlora.errors import NloraError
from tests import tiny
from tests.adapters.helpers import logits, train
from tests.adapters.test_consolidation import together
from tests.methods.helpers import TASKS, learn, stages

STARTS = ("gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")
MOVING = ("pissa", "pissa_niter_4", "olora")
BOTH = pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])


def adapter(shape: str, start: str, fold: bool = True, **options) -> Lora:
    torch.manual_seed(0)
    return Lora(tiny.model(shape), 2, 4.0, 0.0, fold=fold, start=start, **options)


def peft_logits(shape: str, folder) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(tiny.model(shape), str(folder)), shape)


@BOTH
@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])
@pytest.mark.parametrize("start", STARTS)
def test_a_start_leaves_the_model_and_its_file_is_a_plain_adapter(start, shape, fold, tmp_path):
    lora = adapter(shape, start, fold)
    base = logits(tiny.model(shape), shape)
    lora.begin(keep_previous=True)
    torch.testing.assert_close(logits(lora.model, shape), base, rtol=0, atol=1e-5)
    assert bool(lora.origin) == (start in MOVING)
    train(lora, seed=1)
    trained = logits(lora.model, shape)
    assert (trained - base).abs().max() > 1e-3
    with lora.previous():
        torch.testing.assert_close(logits(lora.model, shape), base, rtol=0, atol=1e-5)
    lora.save(tmp_path / "1")
    torch.testing.assert_close(peft_logits(shape, tmp_path / "1"), trained, rtol=0, atol=2e-5)
    loaded = adapter(shape, start, fold)
    loaded.load([tmp_path / "1"])
    assert torch.equal(logits(loaded.model, shape), trained)


@BOTH
@pytest.mark.parametrize("start", MOVING)
@pytest.mark.parametrize("kind", ["sum", "largest", "none"])
def test_stages_that_start_elsewhere_make_the_model_of_their_updates(kind, start, fold, tmp_path):
    shape = "grouped-query"
    lora, folders, stood = adapter(shape, start, fold, consolidation=kind), [], []
    for stage in (1, 2, 3):
        lora.begin()
        train(lora, seed=stage, size=0.05)
        lora.consolidate()
        folders.append(tmp_path / str(stage))
        lora.save(folders[-1])
        stood.append(logits(lora.model, shape))
    updates = [*lora.past, lora.copy()]
    plain = tiny.model(shape)
    with torch.no_grad():
        for name in lora.layers:
            each = [u[name].scaling * u[name].B.double() @ u[name].A.double() for u in updates]
            weight = plain.get_submodule(name).weight
            weight.copy_(weight.double() + together(kind, each))
    torch.testing.assert_close(stood[2], logits(plain, shape), rtol=0, atol=3e-5)
    for count in (1, 2, 3):
        with lora.after(folders[:count]):
            torch.testing.assert_close(logits(lora.model, shape), stood[count - 1])
        assert torch.equal(logits(lora.model, shape), stood[2])
    loaded = adapter(shape, start, fold, consolidation=kind)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), stood[2])
    merged = logits(loaded.merged(), shape)
    torch.testing.assert_close(merged, stood[2], rtol=0, atol=3e-5)


@BOTH
@pytest.mark.parametrize("start", MOVING)
def test_a_continued_update_goes_on_from_where_it_is_and_keeps_its_origin(start, fold, tmp_path):
    lora = adapter("llama", start, fold)
    lora.begin(continued=True)
    train(lora, seed=1)
    lora.save(tmp_path / "1")
    loaded = adapter("llama", start, fold)
    loaded.load([tmp_path / "1"])
    for each in (lora, loaded):
        before = logits(each.model, "llama")
        each.begin(continued=True)
        assert each.replaces
        assert torch.equal(logits(each.model, "llama"), before)
        train(each, seed=2)
        each.save(tmp_path / "2")
        after = logits(each.model, "llama")
        torch.testing.assert_close(peft_logits("llama", tmp_path / "2"), after, rtol=0, atol=2e-5)
    assert torch.equal(logits(lora.model, "llama"), logits(loaded.model, "llama"))


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_factors_are_those_of_plain_peft(start):
    lora = adapter("llama", start)
    lora.begin()
    config = LoraConfig(r=2, lora_alpha=4, init_lora_weights=start, target_modules=["q_proj"])
    plain = get_peft_model(tiny.model("llama"), config)
    name = "model.layers.0.self_attn.q_proj"
    layer = plain.get_base_model().get_submodule(name)
    torch.testing.assert_close(lora.factors()[name].A, layer.lora_A["default"].weight)
    torch.testing.assert_close(lora.factors()[name].B, layer.lora_B["default"].weight)


@BOTH
def test_every_stage_starts_from_the_published_weights(fold):
    lora = adapter("llama", "olora", fold)
    lora.begin()
    first = {name: f.A.detach().clone() for name, f in lora.factors().items()}
    train(lora, seed=1)
    lora.begin()
    assert all(torch.equal(f.A, first[name]) for name, f in lora.factors().items())


@BOTH
def test_a_method_may_say_where_an_update_starts(fold, tmp_path):
    lora = adapter("llama", "default", fold)
    base = logits(lora.model, "llama")
    given = {}

    def start(name, factors):
        assert factors.B.abs().max() == 0
        given[name] = torch.randn(factors.A.shape), torch.randn(factors.B.shape)
        return given[name]

    lora.begin(start=start)
    torch.testing.assert_close(logits(lora.model, "llama"), base, rtol=0, atol=1e-4)
    for name, factors in lora.factors().items():
        assert torch.equal(factors.A, given[name][0])
        assert torch.equal(factors.B, given[name][1])
    train(lora, seed=1)
    lora.save(tmp_path)
    found = peft_logits("llama", tmp_path)
    torch.testing.assert_close(found, logits(lora.model, "llama"), rtol=0, atol=1e-4)
    lora.begin(start=lambda name, f: (2 * f.A, f.B))  # B stays 0, so this is plain LoRA
    assert not lora.origin


def test_a_start_of_another_shape_is_one_line():
    with pytest.raises(NloraError, match=r"the start of 'model.*q_proj' is \[1, 32\]"):
        adapter("llama", "default").begin(start=lambda name, f: (f.A[:1], f.B))


def test_a_start_that_a_matrix_has_no_room_for_is_one_line():
    with pytest.raises(NloraError, match="pissa needs a rank of at most 8"):
        peft_start("pissa", torch.randn(8, 32), 9, 1.0)
    with pytest.raises(NloraError, match="orthogonal: Orthogonal"):
        peft_start("orthogonal", torch.randn(8, 32), 3, 1.0)


def test_a_start_that_is_not_known_is_refused_with_a_hint():
    with pytest.raises(NloraError, match="did you mean 'pissa'"):
        AdapterSettings(start="pisa")
    assert AdapterSettings(start="pissa_niter_3").start == "pissa_niter_3"
    with pytest.raises(ValidationError):
        AdapterSettings(start=1)


def test_a_penalty_on_the_change_wants_an_update_that_starts_at_zero(llama, tmp_path):
    with pytest.raises(NloraError, match="starts at 0; set start=default") as error:
        learn(llama, tmp_path, "n-lora", TASKS[:1], start="pissa")
    assert "\n" not in str(error.value)
    assert stages(tmp_path) == []
