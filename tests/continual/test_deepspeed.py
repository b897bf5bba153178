"""DeepSpeed's ZeRO-2: two processes learn what one learns with the penalties in its loss.

`make deepspeed` runs it: DeepSpeed is no part of what the other tests need.
"""

import os

import pytest
import torch
from torch.optim import AdamW
from transformers import Trainer, TrainingArguments

from nlora.errors import NloraError
from tests.continual.own_script import CLIP, OVERLAP, check_same, collate, dense, learned, started
from tests.continual.test_own_script_together import batches
from tests.processes import two

pytest.importorskip("deepspeed")

RATE = 0.01
LIMIT = 1500
"""Seconds: an operation for shared memory is compiled where it never was."""


def zero(stage, micro_batches):
    """A configuration as people have it in a file."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": CLIP,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }


def loop(lora, micro_batches):
    """By an engine, which divides a loss by the number of micro-batches itself."""
    import deepspeed

    trained = list(lora.parameters())
    engine, *_ = deepspeed.initialize(
        model=lora.model,
        model_parameters=trained,
        optimizer=AdamW(trained, lr=RATE, weight_decay=0.0),
        config=zero(2, 2),
    )
    lora.begin(len(micro_batches))
    for pair in micro_batches:
        for batch in pair:
            engine.backward(engine(**batch).loss + lora.loss())
            engine.step()
    return learned(lora)


def trainer(lora, rows, folder, **more):
    """By the Trainer, the penalties as a term of its loss."""
    args = TrainingArguments(
        output_dir=str(folder),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=CLIP,
        optim="adamw_torch",
        train_sampling_strategy="sequential",
        average_tokens_across_devices=False,
        num_train_epochs=1,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        **more,
    )
    made = Trainer(
        model=lora.model, args=args, train_dataset=rows, data_collator=collate, callbacks=[lora]
    )
    lora.into_loss(made)
    made.train()
    return learned(lora)


def rows_of(micro_batches):
    """The rows one by one, as the Trainer takes them."""
    flat = [batch for four in micro_batches for batch in four]
    return [{k: batch[k][0].tolist() for k in ("input_ids", "labels")} for batch in flat]


def together(rank, port, folder, adapters, out):
    """One of two processes: what it has learned, saved."""
    import deepspeed

    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({n: str(v) for n, v in place.items()} | {"MASTER_ADDR": "127.0.0.1"})
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo")
    found = {"loop": loop(started(folder, adapters, orthogonal=OVERLAP), batches(rank, 2))}
    settings = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    lora = started(folder, adapters, orthogonal=OVERLAP)
    rows = rows_of(batches())
    found["trainer"] = trainer(lora, rows, out, **settings, deepspeed=zero(2, 2))
    lora = started(folder, adapters)
    with pytest.raises(NloraError, match="take ZeRO-2"):
        trainer(lora, rows, out, **settings, deepspeed=zero(3, 2))
    torch.save(found, out / f"{rank}.pt")


def test_two_processes_learn_under_zero_2_what_one_learns(llama, adapters, tmp_path):
    with two(together, llama, adapters, tmp_path, limit=LIMIT):
        one = started(llama, adapters, orthogonal=OVERLAP)
        start, optimizer = learned(one), AdamW(one.parameters(), lr=RATE, weight_decay=0.0)
        for four in batches():
            optimizer.zero_grad()
            for batch in four:
                ((one.model(**batch).loss + dense(one)) / len(four)).backward()
            torch.nn.utils.clip_grad_norm_(list(one.parameters()), CLIP)
            optimizer.step()
    for rank in (0, 1):
        for found in torch.load(tmp_path / f"{rank}.pt", weights_only=True).values():
            check_same(found, learned(one), start)
