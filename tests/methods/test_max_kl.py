"""A stage ends where it has moved the model far enough, with the setting `max_kl`."""

import pytest

from nlora.continual.model import ContinualModel
from nlora.data.task import sample
from nlora.evaluation.divergence import divergences
from nlora.methods.parts.until import PROMPTS
from tests import tiny
from tests.methods.helpers import TASKS, learn, losses, same_bits, stages

SLOW = {"epochs": 4, "learning_rate": 3e-3, "target_modules": "all-linear"}


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    """A run that measures how far it is after each step, and is never ended."""
    out = tmp_path_factory.mktemp("whole")
    learn(llama, out, "seq-lora", TASKS[:2], max_kl=1e9, **SLOW)
    return out


def test_a_stage_ends_with_the_step_that_passes_it(whole, llama, tmp_path):
    bound = [1e9, stages(whole)[1].notes["max_kl"]["kl"] / 2]
    learn(llama, tmp_path, "seq-lora", TASKS[:2], max_kl=bound, **SLOW)
    one, two = stages(tmp_path)
    assert not one.notes["max_kl"]["ended_early"]
    assert two.notes["max_kl"]["ended_early"]
    assert two.notes["max_kl"]["kl"] > bound[1]
    assert two.steps == len(losses(tmp_path, 2)) < one.steps == 8
    assert losses(tmp_path, 2) == losses(whole, 2)[: two.steps]  # the same steps, and no more


def test_it_is_measured_on_the_stages_own_training_examples(whole):
    model, record = ContinualModel.open(whole), stages(whole)[1]
    ctx = model.context()
    rows = ctx.encoder.all(sample(tiny.task(TASKS[1], 12).train, PROMPTS, record.seed))
    [(_, batch)] = list(ctx.batches(rows))
    now = model.asked.logits(batch)
    with model.after(1):
        before = model.asked.logits(batch)
    exact = float(divergences(before, now).mean())
    assert record.notes["max_kl"]["kl"] == pytest.approx(exact, rel=1e-3)


def test_a_bound_that_is_never_reached_changes_no_number(llama, tmp_path):
    learn(llama, tmp_path / "plain", "inc-lora", TASKS[:2])
    learn(llama, tmp_path / "bound", "inc-lora", TASKS[:2], max_kl=1e9)
    assert same_bits(tmp_path / "plain", tmp_path / "bound")
    assert "max_kl" not in stages(tmp_path / "plain")[0].notes


def test_what_was_ended_early_is_not_gone_on_with_after_a_kill(whole, llama, tmp_path, monkeypatch):
    """Killed between the end of the steps and the commit, it ends at the same step again."""
    bound = [1e9, stages(whole)[1].notes["max_kl"]["kl"] / 2]
    asked = {"max_kl": bound, "checkpoint_every": 1, **SLOW}
    learn(llama, tmp_path / "once", "seq-lora", TASKS[:2], **asked)
    evaluate, asked_for = ContinualModel.evaluate, []

    def killed(self, tasks, **more):
        asked_for.append(len(tasks))
        if len(asked_for) == 2:
            raise KeyboardInterrupt
        return evaluate(self, tasks, **more)

    with monkeypatch.context() as patched:
        patched.setattr(ContinualModel, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            learn(llama, tmp_path / "again", "seq-lora", TASKS[:2], **asked)
    learn(llama, tmp_path / "again", "seq-lora", TASKS[:2], **asked)
    assert same_bits(tmp_path / "once", tmp_path / "again")


def test_a_model_that_has_not_moved_is_at_0_under_mixed_precision(llama, tmp_path):
    still = {"learning_rate": 1e-12, "precision": "bf16", "max_kl": 1e9}
    learn(llama, tmp_path, "seq-ft", TASKS[:1], **still)
    assert stages(tmp_path)[0].notes["max_kl"]["kl"] < 1e-9
