import pytest
import torch

from nlora.continual.learning import learn as learn_one
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from tests import tiny
from tests.methods.helpers import TASKS, learn, losses, stages, update
from tests.runs import FAST, config

SGD = {"optimizer": "sgd", "learning_rate": 0.3, "target_modules": ["q_proj", "v_proj"]}


def frozen_share(old: torch.Tensor, new: torch.Tensor, rank: int) -> float:
    """The share of the change that touches the first singular directions of `old`, by hand."""
    U, _, V = torch.linalg.svd(old.double())
    rotated = U.T @ (new.double() - old.double()) @ V.T
    size = float(rotated.norm())
    rotated[rank:, rank:] = 0
    return float(rotated.norm()) / size


def base(out) -> dict[str, torch.Tensor]:
    """The base's matrices that OSF changes."""
    named = dict(tiny.model("llama", layers=1).named_parameters())
    return {name: named[name].detach() for name in update(out, 1)}


def test_more_is_preserved_task_by_task_and_no_step_enters_it(llama, tmp_path):
    # The clip and the micro-batches come after the projection and must not undo it.
    learn(llama, tmp_path, "osf", accumulation=2, max_grad_norm=0.5, epochs=2, **SGD)
    known = base(tmp_path)
    for stage, rank in ((1, 1), (2, 10), (3, 21)):  # of 32: 0, 1/3 and 2/3, but 1 at least
        learned = update(tmp_path, stage)
        for name, old in known.items():
            assert not torch.equal(learned[name], old)
            assert frozen_share(old, learned[name], rank) < 5e-3
            assert frozen_share(old, learned[name], rank + 3) > 5e-3
        record = stages(tmp_path)[stage - 1]
        assert record.notes["osf_preserved"] == pytest.approx(rank / 32)
        assert record.trainable_parameters == 2 * (32 - rank) * (32 + 32 + 1)
        known = learned


def test_adam_leaks_into_what_is_preserved_unless_its_steps_are_projected(llama, tmp_path):
    settings = {"effective_rank": 16, "learning_rate": 1e-3, "target_modules": ["q_proj"]}
    for projection in ("gradient", "step"):
        learn(
            llama, out := tmp_path / projection, "osf", TASKS[:1], projection=projection, **settings
        )
        learned = update(out, 1)
        shares = [frozen_share(old, learned[name], 16) for name, old in base(out).items()]
        assert max(shares) < 2e-3 if projection == "step" else min(shares) > 0.05
        noted = stages(out)[0].notes["osf_leak"]
        assert min(shares) - 1e-4 < noted < max(shares) + 1e-4
    first = [losses(tmp_path / projection, 1)[0]["task"] for projection in ("gradient", "step")]
    assert first[0] == first[1]


def test_by_default_all_linear_layers_but_the_output_are_trained(llama, tmp_path):
    learn(llama, tmp_path, "osf", TASKS[:1])
    kinds = {name.split(".")[-2] for name in update(tmp_path, 1)}
    assert kinds == {f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")}


def test_task_by_task_what_is_preserved_grows_with_the_tasks_so_far(llama, tmp_path):
    settings = {**FAST, "target_modules": ["q_proj"]}
    asked = config(llama, None, settings, method="osf")
    for name in TASKS:
        learn_one(tmp_path, tiny.task(name, 12), asked)
    found = [record.notes["osf_preserved"] * 32 for record in stages(tmp_path)]
    assert found == [1, 16, 21]  # 0, 1/2 and 2/3, but 1 at least


@pytest.mark.parametrize(
    ("rank", "preserved"), [([0.25, 0.5, 8], [8, 16, 8]), (8, [8, 8, 8]), (0.5, [16, 16, 16])]
)
def test_what_is_preserved_may_be_given(rank, preserved, llama, tmp_path):
    settings = {"effective_rank": rank, "target_modules": ["q_proj"]}
    learn(llama, tmp_path, "osf", **settings)
    found = [record.notes["osf_preserved"] * 32 for record in stages(tmp_path)]
    assert found == preserved


def test_mixed_precision_keeps_the_weights_in_fp32(llama, tmp_path):
    learn(llama, tmp_path, "osf", TASKS[:2], precision="bf16", **SGD)
    known = base(tmp_path)
    for stage, rank in ((1, 1), (2, 16)):
        learned = update(tmp_path, stage)
        assert all(w.dtype == torch.float32 for w in learned.values())
        assert all(frozen_share(w, learned[n], rank) < 5e-3 for n, w in known.items())
        known = learned


def test_an_encoder_decoder_is_trained_too(t5, tmp_path):
    learn(t5, tmp_path, "osf", TASKS[:2], learning_rate=1e-3)
    first, second = update(tmp_path, 1), update(tmp_path, 2)
    assert len(first) == 16
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_recomputing_activations_changes_nothing(llama, tmp_path):
    for name, on in (("plain", False), ("less", True)):
        learn(llama, tmp_path / name, "osf", TASKS[:1], gradient_checkpointing=on, **SGD)
    found = [update(tmp_path / name, 1) for name in ("plain", "less")]
    assert all(torch.allclose(found[0][n], found[1][n], atol=1e-6) for n in found[0])


def test_the_learning_rate_is_what_dev_chose_of_what_peft_advises():
    assert choose(RunConfig(model="smollm2-135m", method="osf")).run.learning_rate == 1e-5
