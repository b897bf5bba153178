import pytest
import torch
from peft import OSFConfig, get_peft_model
from peft.tuners.osf import Linear
from safetensors.torch import load_file

from nlora.adapters.osf import Osf
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.adapters.helpers import batch, logits, teaching_leaves_gradients_alone, train

SHAPES = ("grouped-query", "t5", "t5-v1.1")  # adapted matrices are square, wide and tall


def weights(adapter: Osf) -> dict[str, torch.Tensor]:
    """The adapted matrices without an update that is not merged yet, in float64."""
    layers = adapter.layers.items()
    return {name: layer.get_base_layer().weight.detach().double() for name, layer in layers}


def two_steps(model, parameters, shape: str, optimizer=torch.optim.SGD, lr: float = 1.0) -> None:
    """Two steps by the gradient of the answers' likelihood."""
    optimizer = optimizer(parameters, lr=lr)
    for _ in range(2):
        optimizer.zero_grad()
        found, targets = answer_logits(model, batch(shape))
        torch.nn.functional.cross_entropy(found, targets).backward()
        optimizer.step()


def frozen_share(old: torch.Tensor, new: torch.Tensor, rank: int) -> float:
    """The share of a change (float64) that touches the first singular directions of `old`."""
    U, _, V = torch.linalg.svd(old)
    change = new - old
    left = U[:, :rank] @ (U[:, :rank].T @ change)
    right = (change @ V[:rank].T) @ V[:rank]
    both = U[:, :rank] @ (U[:, :rank].T @ right)
    return float((left + right - both).norm() / change.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_before_training_the_model_is_the_base(shape):
    adapter = Osf(tiny.model(shape), effective_rank=0.25)
    base = logits(adapter.model, shape)
    adapter.begin()
    assert torch.allclose(logits(adapter.model, shape), base, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_learned_is_orthogonal_to_the_first_directions_of_what_was_known(shape):
    adapter = Osf(tiny.model(shape))
    for share in (0.25, 0.5):  # the second stage preserves more, of the weights after the first
        adapter.effective_rank = share
        adapter.begin()
        old = weights(adapter)
        two_steps(adapter.model, adapter.trainable(), shape)
        adapter.consolidate()
        new = weights(adapter)
        expected = 0
        for name, before in old.items():
            rank = int(share * min(before.shape))
            expected += (min(before.shape) - rank) * (sum(before.shape) + 1)
            assert not torch.equal(new[name], before)
            assert frozen_share(before, new[name], rank) < 5e-3  # fp32, and a change that is small
            assert frozen_share(before, new[name], rank + 3) > 5e-3
        assert sum(p.numel() for p in adapter.trainable()) == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_multiplied_once_train_as_those_that_every_token_meets(shape):
    """Against PEFT's own layers: logits and the gradient of every factor."""
    adapter = Osf(tiny.model(shape), effective_rank=0.25)
    adapter.begin()
    two_steps(adapter.model, adapter.trainable(), shape)
    found = []
    for kind in (type(next(iter(adapter.layers.values()))), Linear):
        for layer in adapter.layers.values():
            layer.__class__ = kind
        adapter.model.zero_grad()
        said, targets = answer_logits(adapter.model, batch(shape))
        torch.nn.functional.cross_entropy(said, targets).backward()
        found.append([said.detach(), *(p.grad.clone() for p in adapter.trainable())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_steps_of_adam_leave_the_subspace_and_can_be_taken_back():
    for project in (False, True):
        adapter = Osf(tiny.model("grouped-query"), effective_rank=0.5)
        adapter.begin()
        old = weights(adapter)
        two_steps(adapter.model, adapter.trainable(), "grouped-query", torch.optim.AdamW, lr=1e-2)
        if project:
            adapter.project()
        adapter.consolidate()
        new = weights(adapter)
        shares = [frozen_share(w, new[n], min(w.shape) // 2) for n, w in old.items()]
        assert max(shares) < 1e-4 if project else min(shares) > 0.05
        sizes = [float((new[n] - w).norm()) for n, w in old.items()]
        leak = sum((a * b) ** 2 for a, b in zip(shares, sizes, strict=True)) ** 0.5
        leak /= sum(b**2 for b in sizes) ** 0.5
        assert adapter.notes()["osf_leak"] == pytest.approx(leak, rel=1e-3, abs=1e-4)
        assert adapter.notes()["osf_preserved"] == 0.5


def test_the_weights_are_those_of_plain_peft_merged_and_wrapped_anew():
    adapter = Osf(tiny.model("llama"), ["q_proj", "v_proj"])
    model = tiny.model("llama")
    for share in (0.25, 0.5):
        adapter.effective_rank = share
        adapter.begin()
        for layer in adapter.layers.values():
            layer.__class__ = Linear  # which rounds otherwise
        two_steps(adapter.model, adapter.trainable(), "llama", torch.optim.AdamW, lr=1e-3)
        config = OSFConfig(
            effective_rank=share, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        )
        wrapped = get_peft_model(model, config)
        own = [p for p in wrapped.parameters() if p.requires_grad]
        two_steps(wrapped, own, "llama", torch.optim.AdamW, lr=1e-3)
        model = wrapped.merge_and_unload()
    adapter.consolidate()
    expected = {n: model.get_submodule(n).weight.double() for n in adapter.layers}
    assert all(torch.equal(w, expected[n]) for n, w in weights(adapter).items())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_new_stage_keeps_what_was_learned_and_saved_states_bring_it_back(shape, tmp_path):
    live = Osf(tiny.model(shape), effective_rank=0.25)
    seen = []
    for stage in (1, 2):
        live.begin()
        train(live, seed=stage)
        trained = logits(live.model, shape)
        live.consolidate()
        seen.append(logits(live.model, shape))
        assert torch.allclose(seen[-1], trained, atol=1e-4)
        live.save(tmp_path / str(stage))
    assert not torch.allclose(seen[0], seen[1], atol=1e-2)
    live.begin()
    assert torch.allclose(logits(live.model, shape), seen[1], atol=1e-4)
    train(live, seed=3)
    third = logits(live.model, shape)
    folders = [tmp_path / "1", tmp_path / "2"]
    for last in (1, 2):
        with live.after(folders[:last]):
            assert torch.equal(logits(live.model, shape), seen[last - 1])
    assert torch.equal(logits(live.model, shape), third)

    loaded = Osf(tiny.model(shape), effective_rank=0.25)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), seen[1])
    with loaded.after(folders[:1]):  # without an update in hand
        assert torch.equal(logits(loaded.model, shape), seen[0])
    loaded.begin()
    train(loaded, seed=3)
    assert torch.equal(logits(loaded.model, shape), third)
    assert loaded.replaces


def test_a_saved_state_is_read_into_the_plain_model(tmp_path):
    adapter = Osf(tiny.model("llama"), ["q_proj"])
    adapter.begin()
    train(adapter, seed=1)
    adapter.save(tmp_path)
    tensors = load_file(tmp_path / "weights.safetensors")
    assert set(tensors) == {f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)}
    model = tiny.model("llama")
    assert not model.load_state_dict(tensors, strict=False).unexpected_keys
    assert torch.equal(logits(model, "llama"), logits(adapter.model, "llama"))


@pytest.mark.parametrize("shape", ["grouped-query", "t5"])
def test_previous_is_the_model_from_before_the_stage_until_the_next(shape):
    adapter = Osf(tiny.model(shape), effective_rank=0.25)
    adapter.begin()
    train(adapter, seed=1)
    adapter.consolidate()
    before = logits(adapter.model, shape)
    adapter.begin(keep_previous=True)
    train(adapter, seed=2)
    for merged in (False, True):
        if merged:
            adapter.consolidate()
        after = logits(adapter.model, shape)
        assert not torch.allclose(after, before, atol=1e-2)
        with adapter.previous():
            assert torch.equal(logits(adapter.model, shape), before)
        assert torch.equal(logits(adapter.model, shape), after)
    adapter.begin()
    with pytest.raises(ValueError), adapter.previous():
        pass


def test_previous_may_be_asked_while_a_backward_pass_is_in_flight():
    adapter = Osf(tiny.model("llama"))
    adapter.begin(keep_previous=True)
    train(adapter, seed=1)
    assert teaching_leaves_gradients_alone(adapter)


def test_a_share_preserves_one_direction_at_least():
    adapter = Osf(tiny.model("multi-query"), ["q_proj", "v_proj"], effective_rank=0.1)
    adapter.begin()
    ranks = {n.split(".")[-1]: layer.effective_rank for n, layer in adapter.layers.items()}
    assert ranks == {"q_proj": {"default": 3}, "v_proj": {"default": 1}}  # of 32 and 8


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize(
    ("shape", "targets", "reason"),
    [
        ("llama", ["no_such_layer"], "no_such_layer"),
        ("llama", "q_proj[", "target_modules"),
        ("llama", ["q_proj", "embed_tokens"], "'model.embed_tokens' is a Embedding"),
        ("gpt2", None, "is a Conv1D; OSF takes linear layers only"),
        ("gpt2", ["lm_head"], "'lm_head' shares its weights"),
    ],
)
def test_what_cannot_be_adapted_is_one_line(shape, targets, reason):
    with pytest.raises(NloraError, match="target_modules") as error:
        Osf(tiny.model(shape), targets)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_would_round_the_factors_are_refused():
    with pytest.raises(NloraError, match=r"fp32 weights, and those of '.*q_proj' are bfloat16"):
        Osf(tiny.model("llama").bfloat16())


def test_a_rank_that_leaves_nothing_to_train_is_refused():
    adapter = Osf(tiny.model("llama"), ["q_proj"], effective_rank=32)
    with pytest.raises(NloraError, match="effective_rank: 32"):
        adapter.begin()
