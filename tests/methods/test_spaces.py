"""Methods that keep out of the directions which earlier tasks read."""

import math

import pytest
import torch

from nlora.methods.parts.spaces import directions, extended, outside
from tests.methods.helpers import TASKS, first_stages, learn, same_bits, state, update

SETTINGS = {"learning_rate": 1e-2, "rank": 4, "epochs": 2, "tasks": TASKS[:2]}


def covariance(seed: int, tokens: int = 5, size: int = 8) -> torch.Tensor:
    """Of inputs that span `tokens` directions."""
    x = torch.randn(tokens, size, generator=torch.Generator().manual_seed(seed))
    return x.T @ x / tokens


def plain_extended(basis, C, share: float) -> torch.Tensor:
    """Gradient projection memory's update, a direction at a time, in float64."""
    C = C.double()
    kept = [] if basis is None else list(basis.double())
    P = sum((torch.outer(b, b) for b in kept), torch.zeros_like(C))
    U, S, _ = torch.linalg.svd((torch.eye(len(C)) - P) @ C)
    explained, total = float((C**2).sum() - (S**2).sum()), float((C**2).sum())
    for u, s in zip(U.T, S, strict=True):
        if explained / total >= share:
            break
        kept.append(u)
        explained += float(s) ** 2
    return torch.stack(kept)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_basis_takes_up_as_many_directions_as_the_share_asks_for(share):
    first = extended(None, covariance(1), share)
    both = extended(first, covariance(2), share)
    for found, plain in (
        (first, plain_extended(None, covariance(1), share)),
        (both, plain_extended(first, covariance(2), share)),
    ):
        assert found.shape == plain.shape
        projection = plain.T @ plain
        torch.testing.assert_close((found.T @ found).double(), projection, rtol=0, atol=1e-5)
    assert extended(both, covariance(1), share).equal(both)  # it knows them


def test_what_is_known_whole_leaves_no_direction():
    basis = extended(None, covariance(1), 1 - 1e-12)
    found, _ = directions(covariance(1), basis)
    assert len(basis) == 5
    assert len(found) == 0
    whole = torch.linalg.qr(covariance(2).float() + torch.eye(len(covariance(2))))[0]
    assert not outside(torch.randn(4, len(whole)), whole).any()  # nor rounding, which Adam enlarges


@pytest.fixture(scope="module")
def learned(llama, tmp_path_factory):
    done = {}

    def get(name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            learn(llama, done[name], name, **SETTINGS)
        return done[name]

    return get


@pytest.mark.parametrize("name", ["inf-lora", "null-space"])
def test_the_second_update_does_nothing_to_what_the_first_task_read(name, learned):
    bases = state(learned(name), 1)
    for key, A in update(learned(name), 2).items():
        if "lora_A" in key:
            matrix = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            basis = bases[f"bases.{matrix}"]
            assert (A @ basis.T).abs().max() < 1e-4 * A.abs().max()
            assert torch.allclose(outside(A, basis), A, atol=1e-5)
            if name == "inf-lora":
                torch.testing.assert_close(A @ A.T, torch.eye(4) / 3, rtol=0, atol=1e-5)


def test_a_of_null_space_is_trained_and_that_of_inf_lora_is_not(learned):
    for name, moved in (("inf-lora", False), ("null-space", True)):
        for key, A in update(learned(name), 1).items():
            if "lora_A" in key:
                assert (abs(float(A.norm()) - math.sqrt(4 / 3)) > 1e-4) == moved


@pytest.mark.parametrize("name", ["inf-lora", "null-space"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, learned, llama, tmp_path):
    again = first_stages(learned(name), 1, tmp_path / "again")
    learn(llama, again, name, **SETTINGS)
    assert same_bits(again, learned(name))
