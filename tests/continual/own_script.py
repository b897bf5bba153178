"""Small training scripts of one's own: data, a `ContinualLora`, a plain reference."""

import torch
from torch.optim import SGD
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from nlora.api.own_script import ContinualLora
from nlora.training.shards import whole
from tests.loop import encode
from tests.tiny import ENCODER_DECODER, task

L1, OVERLAP, CLIP, RATE = 0.003, 0.5, 2.0, 0.05
QUIET = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
STEPS = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "num_train_epochs": 2}
EXACT = {"optim": "sgd", "learning_rate": RATE, "max_grad_norm": CLIP, **STEPS, **QUIET}


def rows(shape, count=12):
    """Token ids and labels of a small task, as a data set of the Trainer's."""
    return [e.row(shape in ENCODER_DECODER) for e in encode(shape, task(count=count))]


def collate(examples):
    """Padded tensors."""

    def padded(name, value):
        longest = max(len(e[name]) for e in examples)
        return torch.tensor([e[name] + [value] * (longest - len(e[name])) for e in examples])

    ids = padded("input_ids", 0)
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": padded("labels", -100)}


def started(folder, previous=(), **settings):
    """A `ContinualLora` of a model in a folder, its factors at made-up values."""
    kind = AutoModelForSeq2SeqLM if "t5" in str(folder) else AutoModelForCausalLM
    settings = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "weight": L1, **settings}
    if previous:
        settings = {k: v for k, v in settings.items() if k not in ("rank", "alpha")}
    lora = ContinualLora(kind.from_pretrained(folder), previous, **settings)
    numbers = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for A, B, _ in lora.adapter.factors().values():
            A.copy_(0.3 * torch.randn(A.shape, generator=numbers))
            B.copy_(0.1 * torch.randn(B.shape, generator=numbers))
    return lora


def dense(lora):
    """The penalties as anybody would write them into a loss, for autograd to differentiate."""
    value = 0.0
    with torch.autocast("cpu", enabled=False):
        for name, (A, B, scaling) in lora.adapter.factors().items():
            value = value + L1 * (scaling * B @ A).abs().sum()
            for update in lora.adapter.past:
                value = value + OVERLAP * (update[name].A @ A.T).abs().sum()
    return value


def learned(lora):
    """All trained numbers, in one vector."""
    return torch.cat([whole(p.detach()).flatten() for p in lora.parameters()])


def check_same(ours, theirs, start, rounding=1e-4):
    """Two trainings ended at the same place, and moved."""
    moved = (ours - start).norm()
    assert moved > 0.01 * start.norm()
    assert (ours - theirs).norm() < rounding * moved


def plain_loop(lora, batches, model=None, ours=True):
    """A loop of one's own over (list of micro-batches); the penalties ours, or in its loss."""
    optimizer, model = SGD(lora.parameters(), lr=RATE), model or lora.model
    if ours:
        lora.begin(len(batches))
    for micro in batches:
        optimizer.zero_grad()
        for batch in micro:
            loss = model(**batch).loss + (0.0 if ours else dense(lora))
            (loss / len(micro)).backward()
        if ours:
            lora.step(optimizer, CLIP)
        else:
            torch.nn.utils.clip_grad_norm_(lora.parameters(), CLIP)
            optimizer.step()
    return learned(lora)


def trained(kind, arguments, lora, data, ours, **more):
    """What a trainer learns, with our callback or with the penalties in its loss."""

    class InItsLoss(kind):
        def compute_loss(self, *args, **kwargs):
            """A share per micro-batch, as it weighs them."""
            loss = super().compute_loss(*args, **kwargs)
            shared = getattr(self, "loss_is_scaled_for_ga", None)  # TRL's trainers say so
            shared = self.model_accepts_loss_kwargs if shared is None else shared
            share = 1 / self.current_gradient_accumulation_steps if shared else 1
            return loss + share * dense(lora)

    chosen = kind if ours else InItsLoss
    callbacks = [lora] if ours else []
    trainer = chosen(
        model=lora.model, args=arguments, train_dataset=data, callbacks=callbacks, **more
    )
    trainer.train()
    assert trainer.args.max_grad_norm == CLIP
    return learned(lora)
