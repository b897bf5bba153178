"""The two sides of the speed and memory benchmarks: one stage as `nlora run` trains it, and what a
user of Transformers and PEFT would write for the same batches.
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

from nlora.backbones.catalog import find
from nlora.backbones.hardware import bf16_is_faster
from nlora.backbones.load import Backbone, load
from nlora.continual.building import make_adapter, make_encoder
from nlora.data.batches import Collator, TrainingOrder
from nlora.data.streams import load_stream
from nlora.data.task import Example, TaskData, sample
from nlora.evaluation.answers import answer
from nlora.fast.attention import use_plain_attention
from nlora.fast.dropout import use_quick_dropout
from nlora.machine import peak_memory
from nlora.methods.context import Context, Stage
from nlora.plan.config import RunConfig
from nlora.plan.resolve import choose, resolve
from nlora.training.gradients import GradientCallback
from nlora.training.loop import take_examples
from nlora.training.trainer import StageTrainer

BATCH = 16


def plain(folder: str) -> dict[str, Any]:
    """The arguments of a plain Trainer that keeps nothing and says nothing."""
    return {
        "output_dir": folder,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "num_train_epochs": 1,
    }


class Ours:
    """One stage of a method, as `nlora run` trains it."""

    def __init__(
        self,
        method: str,
        model: str,
        dtype: torch.dtype,
        data: TaskData,
        steps: int,
        backbone: Backbone | None = None,
        **settings: Any,
    ) -> None:
        """One of the first `BATCH · steps` examples; `backbone` stands in for the model's own."""
        settings["precision"] = "bf16" if dtype == torch.bfloat16 else "fp32"
        config = RunConfig(model=model, method=method, settings=settings)
        self.data = replace(data, train=data.train[: BATCH * steps])
        self.plan = resolve(config, [self.data], whole=False)
        self.backbone = backbone or load(self.plan.base, dtype)
        use_plain_attention(self.backbone.model)
        use_quick_dropout(self.backbone.model)
        self.adapter = make_adapter(self.plan, self.backbone)
        self.encoder = make_encoder(self.plan, self.backbone)
        self.adapter.begin()
        self.encoder.all(self.data.train)  # which keeps the token ids

    def evaluate(self, tests: Sequence[Example]) -> list[str]:
        """The answers."""
        return [p.text for p in answer(self.adapter.model, self.encoder, tests)]

    def train(self) -> None:
        """All steps."""
        method, run = self.plan.method, self.plan.run
        ctx = Context(
            stage=Stage(1, self.data.name, (self.data,), seed=1),
            adapter=self.adapter,
            encoder=self.encoder,
            stream=(self.data,),
            after=lambda stage: nullcontext(),
            stage_of=lambda task: None,
        )
        take_examples(method, ctx, run)
        gradients = GradientCallback(method, ctx, method.penalties(ctx), run.optimizer)
        StageTrainer(method, ctx, run, gradients, False, Path("unused")).losses_of_training()


class Minimal:
    """A Trainer over a PEFT model with the full vocabulary projection; `generate` of 50 tokens."""

    def __init__(self, model: str, dtype: torch.dtype, data: TaskData, steps: int):
        config = RunConfig(model=model, method="inc-lora")
        shell = load(find(model), dtype, weights=False)
        self.tokenizer = shell.tokenizer
        self.encoder = make_encoder(choose(config), shell)
        rows = [self.encoder(e) for e in data.train[: BATCH * steps]]
        self.rows = [rows[i] for i in TrainingOrder(rows, BATCH, seed=1)]
        base = AutoModelForCausalLM.from_pretrained(find(model).target, dtype=dtype)
        lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.1)
        self.model = get_peft_model(base, lora)
        self.pad_id = self.tokenizer.pad_token_id

    def train(self) -> None:
        """All steps."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                **plain(folder),
                per_device_train_batch_size=BATCH,
                train_sampling_strategy="sequential",
            )
            trainer = Trainer(
                model=self.model,
                args=arguments,
                train_dataset=self.rows,  # type: ignore[arg-type]
                data_collator=Collator(self.pad_id, encoder_decoder=False),
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()

    @torch.inference_mode()
    def evaluate(self, tests: Sequence[Example]) -> list[str]:
        """The answers, in file order, padded to the longest prompt of all."""
        self.model.eval()
        prompts = [self.encoder.prompt_ids(e.task, e.text)[0] for e in tests]
        longest = max(len(p) for p in prompts)
        texts: list[str] = []
        for start in range(0, len(prompts), BATCH):
            rows = prompts[start : start + BATCH]
            missing = [longest - len(p) for p in rows]
            ids = [[self.pad_id] * n + p for n, p in zip(missing, rows, strict=True)]
            mask = [[0] * n + [1] * len(p) for n, p in zip(missing, rows, strict=True)]
            out = self.model.generate(
                input_ids=torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                max_new_tokens=50,
                do_sample=False,
                pad_token_id=self.pad_id,
            )
            texts += self.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)
        return texts


def main() -> None:
    """Do one thing and print the peak memory of this process, for `end_to_end.py`."""
    side, phase, model, folder, task, steps, tests = sys.argv[1:]
    dtype = torch.bfloat16 if bf16_is_faster() else torch.float32
    data = load_stream(task, Path(folder))[0]
    started: Ours | Minimal = (
        Ours("n-lora", model, dtype, data, int(steps))
        if side == "ours"
        else Minimal(model, dtype, data, int(steps))
    )
    if phase == "train":
        started.train()
    else:
        started.evaluate(sample(data.test, int(tests), seed=0))
    print(peak_memory() / 1e9)


if __name__ == "__main__":
    main()
