"""Penalties in a training script of one's own do what they would do in its loss."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.amp import GradScaler
from torch.optim import SGD
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from nlora.api.own_script import ContinualLora
from nlora.errors import NloraError
from tests.continual.own_script import (
    EXACT,
    OVERLAP,
    check_same,
    collate,
    learned,
    plain_loop,
    rows,
    started,
    trained,
)
from tests.tiny import TEMPLATE

NORMS = ("step", "learning_rate", "gradient_norm", "penalty_gradient_norm", "l1")


@pytest.mark.parametrize(("shape", "bf16"), [("llama", False), ("t5", True)])
def test_the_trainer_learns_what_it_learns_with_the_penalties_in_its_loss(
    shape, bf16, adapters, request, tmp_path
):
    model, previous = request.getfixturevalue(shape), adapters if shape == "llama" else ()
    kind = Seq2SeqTrainer if shape == "t5" else Trainer
    told = Seq2SeqTrainingArguments if shape == "t5" else TrainingArguments
    arguments = told(output_dir=str(tmp_path), bf16=bf16, **EXACT)
    found = [learned(started(model, previous))]
    for ours in (True, False):
        lora = started(model, previous, orthogonal=OVERLAP)
        found.append(trained(kind, arguments, lora, rows(shape), ours, data_collator=collate))
    check_same(*found[1:], found[0])
    assert all(set(NORMS) <= set(step) for step in lora.losses)


def test_a_plain_loop_learns_what_it_learns_with_the_penalties_in_its_loss(llama, adapters):
    data = rows("llama", count=20)
    batches = [[collate(data[i : i + 2]), collate(data[i + 2 : i + 4])] for i in range(0, 20, 4)]
    found = [learned(started(llama, adapters))]
    for ours in (True, False):
        lora = started(llama, adapters, orthogonal=OVERLAP)
        found.append(plain_loop(lora, batches, ours=ours))
    check_same(*found[1:], found[0])


def test_the_term_of_the_loss_has_the_same_gradients(llama, adapters, tmp_path):
    """For DeepSpeed, which cannot run here: the Trainer's own engine instead."""
    found = []
    for into_loss in (True, False):
        lora = started(llama, adapters, orthogonal=OVERLAP)
        trainer = Trainer(
            model=lora.model,
            args=TrainingArguments(output_dir=str(tmp_path), **EXACT),
            train_dataset=rows("llama"),
            data_collator=collate,
            callbacks=[lora],
        )
        if into_loss:
            lora.into_loss(trainer)
        trainer.train()
        found.append(learned(lora))
    check_same(*found, learned(started(llama, adapters)))


def test_what_was_measured_goes_on_after_a_checkpoint(llama, adapters, tmp_path):
    """Weights are measured over the first four steps; the training is stopped after two."""

    def train(folder, stop=None):
        lora = started(llama, adapters, weight="relative")
        trainer = Trainer(
            model=lora.model,
            args=TrainingArguments(
                **{**EXACT, "save_strategy": "steps", "save_steps": 2}, output_dir=str(folder)
            ),
            train_dataset=rows("llama", count=18),
            data_collator=collate,
            callbacks=[lora],
        )
        trainer.train(resume_from_checkpoint=stop)
        return lora

    whole = train(tmp_path / "whole")
    kept = tmp_path / "whole" / "checkpoint-2"
    again = train(tmp_path / "whole", str(kept))
    assert again.measured["l1"]["lambda"] == whole.measured["l1"]["lambda"] > 0
    assert again.losses == whole.losses
    assert torch.equal(learned(again), learned(whole))
    (kept / "continual_lora.json").unlink()
    with pytest.raises(NloraError, match="without this callback"):
        train(tmp_path / "whole", str(kept))


def test_a_step_that_overflows_in_fp16_leaves_nothing_behind(llama):
    lora = started(llama, weight="relative")
    lora.begin(10)
    for parameter in lora.parameters():
        parameter.grad = torch.full_like(parameter, float("inf"))
    state, optimizer = SimpleNamespace(global_step=0, max_steps=10), scaled_for_fp16(lora, 1.0)
    lora.on_pre_optimizer_step(None, state, None, optimizer=optimizer)
    lora.on_optimizer_step(None, state, None, optimizer=optimizer)
    [penalty] = lora._penalties()
    assert all((average == 0).all() for average in penalty._average)


def test_steps_that_overflow_in_fp16_count_for_nothing_where_a_weight_is_measured(llama):
    found = []
    for overflows in (0, 3):
        lora = started(llama, weight="relative")
        lora.begin(20)
        optimizer = scaled_for_fp16(lora, 1.0)
        for number in range(overflows + 5):
            gradient = float("inf") if number < overflows else 1e-3
            for parameter in lora.parameters():
                parameter.grad = torch.full_like(parameter, gradient)
            state = SimpleNamespace(global_step=number, max_steps=20)
            lora.on_pre_optimizer_step(None, state, None, optimizer=optimizer)
            if number >= overflows:
                optimizer.step()
            optimizer.scaler.update(1.0)
            lora.on_optimizer_step(None, state, None, optimizer=optimizer)
        found.append((lora.measured["l1"]["lambda"], lora.losses))
    assert found[0][0] > 0
    assert found[1] == found[0]


def test_a_weight_that_needs_dev_examples_is_refused(llama):
    with pytest.raises(NloraError, match="'l1': a weight that is 'auto' is found by a task's dev"):
        ContinualLora(AutoModelForCausalLM.from_pretrained(llama), l1="auto")


def test_what_a_start_took_from_the_base_model_is_not_lost_by_loading(llama, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(llama)
    lora = ContinualLora(model, penalty="none", orthogonal=0.5, start="pissa")
    with pytest.raises(NloraError, match="does not hold what start=pissa has taken"):
        lora.load(tmp_path)


def scaled_for_fp16(lora, scale):
    """An optimiser as accelerate wraps it, whose gradients are `scale` times too large."""

    scaler = GradScaler("cpu", init_scale=scale)
    scaler.scale(torch.ones(()))  # as of a loss: then it knows its scale
    optimizer = SGD(lora.parameters(), lr=1.0)
    optimizer.scaler, optimizer.optimizer = scaler, optimizer
    return optimizer


@pytest.mark.parametrize("unscaled", [False, True], ids=["by the callback", "by the Trainer"])
def test_penalties_are_added_to_gradients_of_the_loss_and_not_to_those_scaled_for_fp16(
    unscaled, llama
):
    found = []
    for scale in (1.0, 2.0**16):
        lora = started(llama, weight=0.5)
        lora.begin(10)
        for parameter in lora.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3 * scale)
        state = SimpleNamespace(global_step=0, max_steps=10)
        optimizer = scaled_for_fp16(lora, scale)
        if unscaled:  # where it has measured the gradients' norm
            optimizer.scaler.unscale_(optimizer)
        lora.on_pre_optimizer_step(None, state, None, optimizer=optimizer)
        found.append([parameter.grad.clone() for parameter in lora.parameters()])
    for plain, scaled in zip(*found, strict=True):
        torch.testing.assert_close(scaled, plain)


def test_clipping_is_the_trainer_s_again_after_a_training_that_was_broken_off(llama):
    lora = started(llama)
    arguments, state = (
        SimpleNamespace(max_grad_norm=0.7),
        SimpleNamespace(max_steps=4, global_step=0),
    )
    for _ in range(2):  # the first is never ended
        lora.on_train_begin(arguments, state, None)
        assert lora._gradients.max_grad_norm == 0.7
    lora.on_train_end(arguments, state, None)
    assert arguments.max_grad_norm == 0.7


@pytest.fixture(scope="module")
def talker(llama):
    """The tokenizer of the fixture `llama` with a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_the_trainer_of_chats_learns_what_it_learns_with_the_penalties_in_its_loss(
    llama, adapters, talker, tmp_path
):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    chats = [
        [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "abc"[i % 3]}]
        for i in range(12)
    ]
    data = Dataset.from_list([{"messages": chat} for chat in chats])
    found = [learned(started(llama, adapters))]
    for ours in (True, False):
        lora = started(llama, adapters, orthogonal=OVERLAP)
        arguments = SFTConfig(output_dir=str(tmp_path), bf16=False, **EXACT)
        found.append(trained(SFTTrainer, arguments, lora, data, ours, processing_class=talker))
    check_same(*found[1:], found[0])


PAIRS = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "bf16": False}


def test_the_trainer_of_preferences_learns_what_it_learns_with_the_penalties_in_its_loss(
    llama, adapters, talker, tmp_path
):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pairs = [{"prompt": f"{i}?", "chosen": " a", "rejected": " b"} for i in range(2)]
    found = [learned(started(llama, adapters))]
    for ours in (True, False):
        lora = started(llama, adapters, orthogonal=OVERLAP)
        arguments = DPOConfig(output_dir=str(tmp_path), **{**EXACT, **PAIRS})
        data = Dataset.from_list(pairs)
        found.append(trained(DPOTrainer, arguments, lora, data, ours, processing_class=talker))
    check_same(*found[1:], found[0])


def test_the_trainer_of_rewards_learns_what_it_learns_with_the_penalties_in_its_loss(
    llama, adapters, talker, tmp_path
):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def every_other(completions, **_):
        return [float(i % 2) for i in range(len(completions))]

    found = [learned(started(llama, adapters))]
    for ours in (True, False):
        lora = started(llama, adapters, orthogonal=OVERLAP)
        told = {**EXACT, **PAIRS, "num_generations": 2, "max_completion_length": 4}
        arguments = GRPOConfig(output_dir=str(tmp_path), **told)
        data = Dataset.from_list([{"prompt": f"{i}?"} for i in range(2)])
        more = {"processing_class": talker, "reward_funcs": every_other}
        found.append(trained(GRPOTrainer, arguments, lora, data, ours, **more))
    check_same(*found[1:], found[0])


def test_preferences_are_compared_with_the_model_as_it_was_before(
    llama, adapters, talker, tmp_path
):
    """At the first step the model is its own reference: the loss is ln 2."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    model = AutoModelForCausalLM.from_pretrained(llama)
    lora = ContinualLora(model, adapters, dropout=0.0)
    before = lora.model(torch.arange(3, 20)[None]).logits
    pairs = [{"prompt": f"{i}?", "chosen": " a", "rejected": " b"} for i in range(6)]
    trainer = DPOTrainer(
        model=lora.model,
        args=DPOConfig(
            output_dir=str(tmp_path), bf16=False, logging_steps=1, **{**EXACT, "learning_rate": 0.0}
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=talker,
        callbacks=[lora],
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses == pytest.approx([math.log(2)] * len(losses), abs=1e-4)
    torch.testing.assert_close(lora.model(torch.arange(3, 20)[None]).logits, before)


def test_a_penalty_that_never_acts_is_told_once(llama, caplog):
    lora = started(llama, weight="relative")
    lora.begin(3)
    [said] = [m for m in caplog.messages if "never acts" in m]
    assert "they have 3 steps or fewer" in said
