import math

import pytest
import torch

from tests.methods.helpers import TASKS, first_stages, learn, same_bits, state, update

SETTINGS = {"learning_rate": 1e-2, "rank": 3, "epochs": 1}


@pytest.fixture(scope="module")
def out(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slao")
    learn(llama, folder, "slao", **SETTINGS)
    return folder


def factors(out, stage: int):
    """By matrix A and B as they answer, and B as it was trained."""
    trained = state(out, stage)
    for key, A in update(out, stage).items():
        if "lora_A" in key:
            name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            yield (
                name,
                (A, update(out, stage)[key.replace("lora_A", "lora_B")]),
                trained[f"trained.{name}"],
            )


def test_b_is_merged_by_its_age_and_a_is_the_newest(out):
    merged = {}
    for stage in (1, 2, 3):
        for name, (_, B), trained in factors(out, stage):
            before = merged.get(name, torch.zeros_like(B).double())
            merged[name] = before + (trained.double() - before) / math.sqrt(stage)
            torch.testing.assert_close(B.double(), merged[name], rtol=1e-5, atol=1e-7)


def test_a_task_starts_orthogonally_from_the_last_one(llama, out, tmp_path):
    """With a learning rate of 0 what is trained is what it started from."""
    still = first_stages(out, 1, tmp_path / "still")
    first = {name: (A, B) for name, (A, _), B in factors(still, 1)}
    again = tmp_path / "again"
    settings = {**SETTINGS, "learning_rate": [1e-2, 0.0], "tasks": TASKS[:2]}
    learn(llama, again, "slao", **settings)
    for name, (A, _), trained in factors(again, 2):
        old_A, old_B = first[name]
        torch.testing.assert_close(A @ A.T, torch.eye(3), rtol=0, atol=1e-5)
        projection = old_A.T @ torch.linalg.inv(old_A @ old_A.T) @ old_A  # the same rows' span
        torch.testing.assert_close(A @ projection, A, rtol=0, atol=1e-5)
        assert (torch.diagonal(A @ old_A.T) > 0).all()  # B goes with rows that are not turned round
        assert trained.equal(old_B)


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(llama, out, tmp_path):
    again = first_stages(out, 2, tmp_path / "again")
    learn(llama, again, "slao", **SETTINGS)
    assert same_bits(again, out)


def test_a_rank_above_the_size_of_a_matrix_starts_with_as_many_directions_as_there_are(
    llama, tmp_path
):
    learn(llama, tmp_path / "out", "slao", ("colour", "size"), rank=40, epochs=1)
    A = next(t for name, t in update(tmp_path / "out", 2).items() if "lora_A" in name)
    assert A.shape == (40, 32)
