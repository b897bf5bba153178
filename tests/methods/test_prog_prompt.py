import pytest
import torch
from transformers import LlamaForCausalLM

from nlora.continual.asked import Asked
from nlora.continual.learning import run
from nlora.methods.registry import method
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose
from tests import runs
from tests.methods.helpers import answers, learn, same_bits, stages, update


@pytest.mark.parametrize("model", ["llama", "t5"])
def test_nothing_is_forgotten_since_each_task_is_read_with_its_own_prompts(
    model, request, tmp_path, monkeypatch
):
    stream = runs.write_stream(tmp_path, train=12, test=8, labels=False)  # free text answers
    folder = request.getfixturevalue(model)
    told = {}  # the prompts that were read, by task
    original = Asked.answers

    def spy(self, examples):
        told.setdefault(examples[0].task.name, set()).add(tuple(self.adapter.model.reading))
        return original(self, examples)

    monkeypatch.setattr(Asked, "answers", spy)
    settings = {**runs.FAST, "epochs": 4, "learning_rate": 0.1}
    results = run(runs.config(folder, stream, settings, method="prog-prompt"), tmp_path / "out")
    assert told == {"colour": {(0,)}, "animal": {(1, 0)}, "fruit": {(2, 1, 0)}}
    first = {task: answers(tmp_path / "out", k, task) for k, task in enumerate(told, start=1)}
    for k, task in enumerate(told, start=1):
        for later in range(k, 4):
            assert answers(tmp_path / "out", later, task) == first[task]
            assert (
                results["accuracy_matrix"][later - 1][k - 1]
                == (results["accuracy_matrix"][k - 1][k - 1])
            )
    # prompts make a difference (not for what a random T5 says first)
    assert len({tuple(texts) for texts in first.values()}) > 1 or model == "t5"
    assert results["forgetting"] == results["backward_transfer"] == 0


def test_only_a_prompt_is_trained_and_saved(llama, tmp_path):
    learn(llama, tmp_path, "prog-prompt", prompt_length=5)
    for number, record in enumerate(stages(tmp_path), start=1):
        saved = update(tmp_path, number)
        assert saved.keys() == {"prompt"}
        assert saved["prompt"].shape == (5, 32)
        assert record.trainable_parameters == 5 * 32
        assert torch.isfinite(saved["prompt"]).all()


def test_tables_can_say_that_it_is_told_the_task():
    assert method("prog-prompt").build({}).needs_task_id
    assert not method("n-lora").build({}).needs_task_id


def test_its_papers_optimiser_is_the_default_and_a_user_may_change_it():
    def resolved(**settings):
        return choose(RunConfig(model="any", method="prog-prompt", settings=settings)).run

    assert (resolved().learning_rate, resolved().weight_decay) == (0.3, 1e-5)
    assert resolved(learning_rate=0.1).learning_rate == 0.1


def test_gradient_checkpointing_saves_memory_and_changes_nothing(llama, tmp_path, monkeypatch):
    asked = []
    original = LlamaForCausalLM.activation_checkpointing_enable
    monkeypatch.setattr(
        LlamaForCausalLM,
        "activation_checkpointing_enable",
        lambda self, **how: [asked.append(how), original(self, **how)],
    )
    for checkpointing in (True, False):
        learn(
            llama,
            tmp_path / str(checkpointing),
            "prog-prompt",
            ("colour",),
            gradient_checkpointing=checkpointing,
        )
    assert len(asked) == 1
    assert same_bits(tmp_path / "True", tmp_path / "False")
