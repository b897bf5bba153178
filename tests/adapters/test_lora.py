from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from nlora.adapters.lora import Lora
from nlora.adapters.past import HISTORY
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.adapters.helpers import batch, logits
from tests.runs import tree

RANK, ALPHA = 3, 6.0
SHAPES = ("grouped-query", "gpt2", "neox", "t5-v1.1")


def adapter(shape: str, fold: bool = True, dropout: float = 0.0, **options) -> Lora:
    return Lora(tiny.model(shape), RANK, ALPHA, dropout, fold=fold, **options)


def train(lora: Lora, seed: int, size: float = 0.1) -> None:
    """As if a stage had been trained: factors that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for A, B, _ in lora.factors().values():
            A.copy_(0.2 * torch.randn(A.shape, generator=generator))
            B.copy_(size * torch.randn(B.shape, generator=generator))


def learn(lora: Lora, stages: int, folder: Path | None = None) -> list[Path]:
    """Stage after stage as a run has them; the last update stays in hand."""
    folders = []
    for stage in range(1, stages + 1):
        lora.begin()
        train(lora, seed=stage)
        if folder is not None:
            folders.append(folder / str(stage))
            lora.save(folders[-1])
    return folders


def weights(lora: Lora) -> dict[str, torch.Tensor]:
    return {name: layer.get_base_layer().weight for name, layer in lora.layers.items()}


def delta(factors) -> torch.Tensor:
    """(α/r)·B·A in float64, written out."""
    return ALPHA / RANK * (factors.B.detach().double() @ factors.A.detach().double())


@pytest.mark.parametrize("shape", SHAPES)
def test_folded_weights_are_the_base_plus_all_earlier_updates(shape):
    lora = adapter(shape)
    expected = {name: w.detach().double() for name, w in weights(lora).items()}
    for stage in range(1, 5):
        lora.begin()
        train(lora, seed=stage)
        if stage < 4:
            for name, factors in lora.factors().items():
                change = delta(factors)
                expected[name] = expected[name] + (change.T if shape == "gpt2" else change)
    for name, weight in weights(lora).items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=0, atol=1e-6)
        assert not weight.requires_grad


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])
def test_a_loaded_model_is_bit_for_bit_the_one_that_was_trained(shape, fold, tmp_path):
    live = adapter(shape, fold)
    folders = learn(live, 4, tmp_path)
    loaded = adapter(shape, fold)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))
    for lora in (live, loaded):  # and they go on in the same way
        torch.manual_seed(9)
        lora.begin()
        train(lora, seed=9)
    for name, weight in weights(loaded).items():
        assert torch.equal(weight, weights(live)[name])
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_history_branch_is_the_folded_model_to_rounding(shape):
    folded, branched = adapter(shape), adapter(shape, fold=False)
    learn(folded, 4)
    learn(branched, 4)
    base = logits(tiny.model(shape), shape)
    expected = logits(folded.model, shape)
    assert (expected - base).abs().max() > 0.01
    torch.testing.assert_close(logits(branched.model, shape), expected, rtol=0, atol=1e-5)
    assert branched.notes() == {"history_error": 0.0}


def test_only_the_newest_adapter_is_trained_beside_a_history_branch():
    lora = adapter("grouped-query", fold=False)
    learn(lora, 3)
    assert {n for n, p in lora.model.named_parameters() if p.requires_grad} == {
        n for n, _ in lora.model.named_parameters() if ".default." in n
    }


def test_the_history_branch_has_no_dropout():
    lora = adapter("grouped-query", fold=False, dropout=0.5)
    learn(lora, 2)
    lora.begin()  # B is 0, so whatever dropout does in training is not the new adapter's doing
    expected = logits(lora.model, "grouped-query")
    with torch.no_grad():
        found = answer_logits(lora.model.train(), batch("grouped-query")).logits
    assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", ["grouped-query", "t5-v1.1"])
def test_a_long_history_is_recompressed_at_a_recorded_error(shape):
    exact, short = adapter(shape), adapter(shape, fold=False, history_rank=5)
    for lora in (exact, short):
        for stage in range(1, 6):
            lora.begin()
            train(lora, seed=stage, size=0.1 if stage == 1 else 0.003)
    past = {  # of the four updates before the one in hand
        name: sum(delta(update[name]) for update in short.past) for name in short.layers
    }
    errors = []
    for name, whole in past.items():
        layer = short.layers[name]
        A, B = layer.lora_A[HISTORY].weight, layer.lora_B[HISTORY].weight
        assert A.shape[0] == 5
        kept = layer.scaling[HISTORY] * (B.double() @ A.double())
        errors.append(float((kept - whole).norm() / whole.norm()))
        singular = torch.linalg.svdvals(whole)  # from the exact factors: the best there is
        assert errors[-1] == pytest.approx(float(singular[5:].norm() / singular.norm()), rel=1e-3)
    assert short.notes()["history_error"] == pytest.approx(max(errors), rel=1e-3)
    assert 0 < max(errors) < 0.3
    off = logits(short.model, shape) - logits(exact.model, shape)
    moved = logits(exact.model, shape) - logits(tiny.model(shape), shape)
    assert off.norm() < 0.3 * moved.norm()


@pytest.mark.parametrize("modules", [["q_proj", "v_proj"], ["v_proj", "o_proj"]])
def test_a_history_may_be_longer_than_a_matrix_is_wide(modules):
    # v_proj gives 8 values, the others 32
    branched = adapter("multi-query", fold=False, history_rank=10, target_modules=modules)
    learn(branched, 6)
    for layer in branched.layers.values():
        assert layer.lora_A[HISTORY].weight.shape[0] <= 10
    v = {n: layer for n, layer in branched.layers.items() if n.endswith("v_proj")}
    for name, layer in v.items():  # rank 8 is all there can be, so nothing is lost
        kept = layer.scaling[HISTORY] * (
            layer.lora_B[HISTORY].weight.double() @ layer.lora_A[HISTORY].weight.double()
        )
        whole = sum(delta(update[name]) for update in branched.past)
        torch.testing.assert_close(kept, whole, rtol=0, atol=1e-6)


def test_a_bf16_branch_keeps_the_small_updates_that_folding_into_bf16_loses():
    def bf16(fold: bool) -> Lora:
        return Lora(tiny.model("grouped-query").bfloat16(), RANK, ALPHA, 0.0, fold=fold)

    lost, kept = bf16(fold=True), bf16(fold=False)
    before = {name: w.detach().double() for name, w in weights(lost).items()}
    for lora in (lost, kept):
        for stage in range(1, 4):
            lora.begin()
            train(lora, seed=stage, size=3e-5)
    for name, layer in kept.layers.items():
        dW = sum(delta(update[name]) for update in lost.past)
        folded = weights(lost)[name].double() - before[name]
        branch = layer.scaling[HISTORY] * (
            layer.lora_B[HISTORY].weight.double() @ layer.lora_A[HISTORY].weight.double()
        )
        assert torch.equal(weights(kept)[name].double(), before[name])
        assert float((folded - dW).norm() / dW.norm()) > 0.5
        assert float((branch - dW).norm() / dW.norm()) < 1e-6


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])
@pytest.mark.parametrize("continued", [False, True], ids=["fresh", "continued"])
def test_previous_is_the_model_from_before_the_stage(shape, fold, continued):
    lora = adapter(shape, fold)
    learn(lora, 2)
    trained = logits(lora.model, shape)
    lora.begin(continued=continued, keep_previous=True)
    before = logits(lora.model, shape)
    torch.testing.assert_close(before, trained, rtol=0, atol=1e-5)
    train(lora, seed=3)
    after = logits(lora.model, shape)
    assert (after - before).abs().max() > 1e-3
    with lora.previous():
        assert torch.equal(logits(lora.model, shape), before)
    assert torch.equal(logits(lora.model, shape), after)


@pytest.mark.parametrize("shape", ["grouped-query", "t5-v1.1"])
def test_previous_may_be_asked_while_a_backward_pass_is_in_flight(shape):
    def gradients(between: Callable[[], None]) -> list[torch.Tensor]:
        lora.model.zero_grad()
        loss = answer_logits(lora.model, batch(shape)).logits.square().mean()
        between()
        loss.backward()
        return [p.grad.clone() for p in lora.trainable()]

    def teach() -> None:
        with torch.no_grad(), lora.previous():
            answer_logits(lora.model, batch(shape))

    lora = adapter(shape)
    learn(lora, 1)
    lora.begin(keep_previous=True)
    train(lora, seed=2)
    expected = gradients(lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(gradients(teach), expected, strict=True))


def test_previous_restores_the_model_when_the_teacher_fails():
    lora = adapter("llama")
    lora.begin(keep_previous=True)
    train(lora, seed=1)
    after = logits(lora.model, "llama")
    with pytest.raises(RuntimeError), lora.previous():
        raise RuntimeError
    assert torch.equal(logits(lora.model, "llama"), after)


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
@pytest.mark.parametrize("shape", ["grouped-query", "gpt2", "t5-v1.1"])
def test_plain_peft_loads_a_saved_update(shape, fold, tmp_path):
    lora = adapter(shape, fold)
    lora.begin()
    train(lora, seed=1)
    lora.save(tmp_path / "1")
    assert sorted(tree(tmp_path / "1")) == ["adapter_config.json", "adapter_model.safetensors"]
    expected = logits(lora.model, shape)
    plain = PeftModel.from_pretrained(tiny.model(shape), str(tmp_path / "1"))
    assert torch.equal(logits(plain, shape), expected)
    # a later update is its own adapter too, without the history
    lora.begin()
    train(lora, seed=2)
    lora.save(tmp_path / "2")
    second = PeftModel.from_pretrained(tiny.model(shape), str(tmp_path / "2"))
    loaded = {n: p for n, p in second.named_parameters() if "lora_" in n}
    own = {n: p for n, p in lora.model.named_parameters() if ".default." in n}
    assert loaded.keys() == own.keys()
    assert all(torch.equal(loaded[n], own[n]) for n in own)


def test_a_continued_adapter_goes_on_with_its_factors_and_replaces_its_update(tmp_path):
    lora = adapter("grouped-query")
    lora.begin(continued=True)
    assert not lora.replaces  # there was none to continue
    train(lora, seed=1)
    lora.save(tmp_path / "1")
    factors = {n: (f.A.clone(), f.B.clone()) for n, f in lora.factors().items()}
    loaded = adapter("grouped-query")
    loaded.load([tmp_path / "1"])
    for each in (lora, loaded):
        base = {n: w.clone() for n, w in weights(each).items()}
        each.begin(continued=True)
        assert each.replaces
        for name, (A, B) in factors.items():
            assert torch.equal(each.factors()[name].A, A)
            assert torch.equal(each.factors()[name].B, B)
            assert torch.equal(weights(each)[name], base[name])
    lora.begin()
    assert not lora.replaces


def test_a_fresh_adapter_starts_at_zero_with_other_directions():
    lora = adapter("grouped-query")
    learn(lora, 1)
    earlier = {name: f.A.detach().clone() for name, f in lora.factors().items()}
    lora.begin()
    for name, factors in lora.factors().items():
        assert factors.B.abs().max() == 0
        assert factors.A.abs().max() > 0
        assert not torch.equal(factors.A, earlier[name])


@pytest.mark.parametrize("fold", [True, False], ids=["fold", "branch"])
@pytest.mark.parametrize("shape", ["t5-v1.1", "multi-query"])
def test_all_linear_layers_can_be_adapted(shape, fold, tmp_path):
    live = adapter(shape, fold, target_modules="all-linear")
    assert len(live.layers) > 10
    folders = learn(live, 3, tmp_path)
    loaded = adapter(shape, fold, target_modules="all-linear")
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))


def test_an_output_layer_that_shares_its_weight_is_folded_alone():
    adapted = ["c_attn", "lm_head"]  # gpt2 ties lm_head to the embeddings
    folded = adapter("gpt2", target_modules=adapted)
    branched = adapter("gpt2", fold=False, target_modules=adapted)
    for lora in (folded, branched):
        learn(lora, 3)
    torch.testing.assert_close(
        logits(folded.model, "gpt2"), logits(branched.model, "gpt2"), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        (["no_such"], "no_such"),
        ("no_such", "no_such"),
        (["q_proj", "embed_tokens"], "embed_tokens"),
        (["self_attn"], "LlamaAttention"),
        ("[", "unterminated"),
    ],
)
def test_target_modules_that_cannot_be_adapted_are_one_clear_line(modules, named):
    with pytest.raises(NloraError, match="target_modules") as error:
        adapter("llama", target_modules=modules)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
