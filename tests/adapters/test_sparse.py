import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlora.adapters.lora import Lora
from nlora.adapters.masks import collision_rate, mask
from nlora.adapters.sparse import FILE, Sparse
from nlora.errors import NloraError
from nlora.fast.logits import answer_logits
from tests import tiny
from tests.adapters.helpers import batch, logits, train

SHAPES = ("grouped-query", "gpt2", "t5-v1.1")
KINDS = ("identical", "independent", "disjoint")
BOTH = pytest.mark.parametrize("fold", [True, False], ids=["fold", "dense"])


def adapter(shape: str, fold: bool = True, **options) -> Sparse:
    return Sparse(tiny.model(shape), 2, fold=fold, **options)


def learn(sparse: Sparse, stages: int, folder=None) -> list:
    folders = []
    for stage in range(1, stages + 1):
        torch.manual_seed(stage)
        sparse.begin()
        train(sparse, seed=stage)
        sparse.consolidate()
        if folder is not None:
            folders.append(folder / str(stage))
            sparse.save(folders[-1])
    return folders


def deltas(sparse: Sparse) -> dict[str, torch.Tensor]:
    """The update in hand, dense (out, in), written out entry by entry."""
    found = {}
    for name, branch in sparse.branches.items():
        delta = torch.zeros(branch.shape)
        for position, value in zip(branch.positions, branch.values.detach(), strict=True):
            delta[divmod(int(position), branch.shape[1])] = value
        found[name] = delta
    return found


def plain(shape: str, changes: dict[str, torch.Tensor]) -> torch.nn.Module:
    """A model to whose weights these changes were added, all its parameters trainable."""
    lora = Lora(tiny.model(shape), 1, 1.0, 0.0)  # it only finds the matrices by name
    with torch.no_grad():
        for name, layer in lora.layers.items():
            change = changes[name]
            layer.get_base_layer().weight.add_(change.T if layer.fan_in_fan_out else change)
    return lora.model.unload().requires_grad_(True)


@BOTH
@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_is_the_base_plus_all_updates_at_their_positions(shape, fold):
    sparse, changes = adapter(shape, fold), {}
    base = logits(sparse.model, shape)
    assert torch.equal(base, logits(tiny.model(shape), shape))
    for stage in (1, 2, 3):
        torch.manual_seed(stage)
        before = logits(sparse.model, shape)
        sparse.begin()
        torch.testing.assert_close(logits(sparse.model, shape), before, rtol=0, atol=1e-5)
        train(sparse, seed=stage)
        for name, delta in deltas(sparse).items():
            changes[name] = changes.get(name, 0) + delta
        found, expected = logits(sparse.model, shape), logits(plain(shape, changes), shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert (found - before).abs().max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_whole_matrix_at_the_positions(shape):
    sparse = adapter(shape)
    sparse.begin()
    train(sparse, seed=1)
    full = plain(shape, deltas(sparse))
    for model in (sparse.model, full):
        answer_logits(model, batch(shape)).logits.square().mean().backward()
    modules = dict(full.named_modules())
    for name, branch in sparse.branches.items():
        whole = modules[name].weight.grad
        whole = whole.T if shape == "gpt2" else whole
        wanted = whole.flatten()[branch.positions]
        torch.testing.assert_close(branch.values.grad, wanted, rtol=1e-3, atol=1e-7)
    assert [p for p in sparse.model.parameters() if p.requires_grad] == sparse.trainable()


@pytest.mark.parametrize("shape", SHAPES)
def test_there_are_as_many_entries_as_lora_has_parameters_or_as_the_density_says(shape):
    lora, sparse = Lora(tiny.model(shape), 2, 4.0, 0.0), adapter(shape)
    assert list(sparse.branches) == list(lora.layers)
    for name, factors in lora.factors().items():
        wanted = factors.A.numel() + factors.B.numel()
        assert len(sparse.branches[name].values) == wanted
    for branch in adapter(shape, density=0.1).branches.values():
        assert len(branch.values) == branch.size // 10
        assert branch.values.dtype == torch.float32


@given(
    st.sampled_from(KINDS), st.integers(2, 60), st.integers(1, 6), st.integers(0, 1000), st.data()
)
def test_masks_are_of_the_kind_asked_for(kind, size, tasks, seed, data):
    count = data.draw(st.integers(1, max(1, size // tasks)))
    if count * tasks > size:
        return
    random, masks = np.random.default_rng(seed), []
    for _ in range(tasks):
        masks.append(mask(kind, size, count, masks, random))
    for found in masks:
        assert len(found) == count == len(set(found.tolist()))
        assert found.tolist() == sorted(found.tolist())
        assert 0 <= int(found[0]) <= int(found[-1]) < size
    for i in range(tasks):
        for j in range(i):
            both = len(set(masks[i].tolist()) & set(masks[j].tolist()))
            assert collision_rate(masks[i], masks[j], size) == both / size
            assert kind != "identical" or both == count
            assert kind != "disjoint" or both == 0


def test_masks_are_drawn_evenly_and_independent_ones_meet_by_chance():
    random, size, count = np.random.default_rng(0), 50, 10
    free = {"independent": 50, "disjoint": 40}
    for kind, positions in free.items():
        counts, rates = np.zeros(size), []
        for _ in range(4000):
            first = mask(kind, size, count, [], random)
            second = mask(kind, size, count, [first], random)
            counts[second] += 1
            rates.append(collision_rate(first, second, size))
        assert counts == pytest.approx(4000 * count / size, rel=0.15)  # five standard deviations
        assert np.mean(rates) == pytest.approx((count / size) ** 2 * (positions == 50), rel=0.05)


def test_the_notes_hold_measured_collision_rates_densities_and_sizes():
    for kind in KINDS:
        sparse = adapter("grouped-query", masks=kind, density=0.25)
        learn(sparse, 3)
        notes = sparse.notes()["sparse"]
        assert notes["matrices"].keys() == sparse.branches.keys()
        whole = deltas(sparse)
        for name, found in notes["matrices"].items():
            assert found["density"] == 0.25
            assert found["frobenius"] == pytest.approx(float(whole[name].norm()))
            branch = sparse.branches[name]
            masks = [*(u[name].positions for u in sparse.past), branch.positions]
            at = [set(positions.tolist()) for positions in masks]
            rates = [len(at[2] & at[0]) / branch.size, len(at[2] & at[1]) / branch.size]
            assert found["collision_rates"] == rates
        expected = {"identical": 0.25, "independent": 0.0625, "disjoint": 0.0}[kind]
        assert notes["collision_rates"] == pytest.approx([expected, expected], abs=0.02)
        size = sum(float(d.square().sum()) for d in whole.values()) ** 0.5
        assert notes["frobenius"] == pytest.approx(size)


def test_the_first_mask_is_the_same_whatever_the_kind():
    found = []
    for kind in KINDS:
        sparse = adapter("llama", masks=kind)
        learn(sparse, 1)
        found.append(deltas(sparse))
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name])
        assert torch.equal(found[0][name], found[2][name])


def test_disjoint_masks_that_do_not_fit_are_one_clear_line():
    sparse = adapter("grouped-query", masks="disjoint", density=0.3)
    sparse.check_room(3)
    with pytest.raises(NloraError, match="4 disjoint masks do not fit") as error:
        sparse.check_room(4)
    assert "at most 3 do" in str(error.value)
    assert "\n" not in str(error.value)
    learn(sparse, 3)
    with pytest.raises(NloraError, match="4 disjoint masks"):
        sparse.begin()
    adapter("grouped-query", masks="independent", density=0.3).check_room(100)


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_is_bit_for_bit_the_one_that_was_trained_and_goes_on_alike(
    kind, fold, tmp_path
):
    shape = "t5-v1.1"
    live, loaded = (adapter(shape, fold, masks=kind) for _ in range(2))
    folders = learn(live, 3, tmp_path)
    loaded.load(folders)
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))
    for each in (live, loaded):
        torch.manual_seed(9)
        each.begin()
        train(each, seed=9)
    assert torch.equal(logits(loaded.model, shape), logits(live.model, shape))
    assert live.notes() == loaded.notes()


@BOTH
def test_the_model_as_it_stood_after_a_stage_can_be_had_and_left_again(fold, tmp_path):
    shape = "grouped-query"
    sparse = adapter(shape, fold)
    folders, stood = [], [logits(sparse.model, shape)]
    for stage in (1, 2, 3):
        torch.manual_seed(stage)
        sparse.begin()
        train(sparse, seed=stage)
        folders.append(tmp_path / str(stage))
        sparse.save(folders[-1])
        stood.append(logits(sparse.model, shape))
    for stage, expected in enumerate(stood[:3]):
        with sparse.after(folders[:stage]):
            assert torch.equal(logits(sparse.model, shape), expected)
        assert torch.equal(logits(sparse.model, shape), stood[3])
    with pytest.raises(RuntimeError), sparse.after(folders[:1]):
        raise RuntimeError
    assert torch.equal(logits(sparse.model, shape), stood[3])


@BOTH
@pytest.mark.parametrize("continued", [False, True], ids=["fresh", "continued"])
def test_previous_is_the_model_from_before_the_stage(fold, continued):
    sparse = adapter("grouped-query", fold)
    learn(sparse, 2)
    sparse.begin(continued=continued, keep_previous=True)
    assert sparse.replaces == continued
    before = logits(sparse.model, "grouped-query")
    train(sparse, seed=3)
    after = logits(sparse.model, "grouped-query")
    assert not torch.equal(after, before)
    with sparse.previous():
        assert torch.equal(logits(sparse.model, "grouped-query"), before)
    assert torch.equal(logits(sparse.model, "grouped-query"), after)


def test_small_updates_of_a_bf16_model_are_not_lost():
    sparse = Sparse(tiny.model("llama").bfloat16(), 2, fold=False)
    before = {name: layer.get_base_layer().weight.clone() for name, layer in sparse.layers.items()}
    for stage in (1, 2):
        sparse.begin()
        train(sparse, seed=stage, size=3e-5)
    assert sparse.notes()["history_error"] < 2**-8
    x = torch.eye(32, dtype=torch.bfloat16)
    for name, layer in sparse.layers.items():
        base, branch = layer.get_base_layer(), sparse.branches[name]
        assert torch.equal(base.weight, before[name])
        added = branch.add(base, (x,), torch.zeros_like(x)).float().T  # (out, in)
        torch.testing.assert_close(added, deltas(sparse)[name], rtol=2**-8, atol=0)


def test_a_saved_update_is_coordinates_and_values(tmp_path):
    from safetensors.torch import load_file

    sparse = adapter("grouped-query")
    learn(sparse, 1, tmp_path)
    tensors = load_file(tmp_path / "1" / FILE)
    for name, delta in deltas(sparse).items():
        indices, values = tensors[f"{name}.indices"], tensors[f"{name}.values"]
        made = torch.sparse_coo_tensor(indices, values, delta.shape, check_invariants=True)
        assert torch.equal(made.to_dense(), delta)


def test_target_modules_that_cannot_be_adapted_are_one_clear_line():
    with pytest.raises(NloraError, match="target_modules"):
        adapter("llama", target_modules=["no_such"])
