"""T5, month after month, with Transformers' Seq2SeqTrainer.

    python examples/t5_seq2seq_trainer.py OUT [MODEL]

Each month's tickets are an update of their own on top of the earlier ones, kept sparse by N-LoRA's
penalty and apart from them by O-LoRA's. Afterwards OUT is a model directory (`nlora history OUT`).
"""

import argparse
from pathlib import Path

from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

import nlora
import tickets
from nlora.backbones.catalog import find


def main(out: Path, model: str, months: int = 2, rows: int = 48) -> None:
    """Learn some months of so many tickets, with a built-in model, a folder or a Hub name."""
    place = find(model).target
    for month in range(1, months + 1):
        base = AutoModelForSeq2SeqLM.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)
        task = tickets.task(month, rows)

        lora = nlora.ContinualLora(base, [out] if out.exists() else [], orthogonal=0.1)
        trainer = Seq2SeqTrainer(
            model=lora.model,
            args=Seq2SeqTrainingArguments(
                output_dir=str(out.with_name(f"{out.name}-trainer")),
                num_train_epochs=8,
                per_device_train_batch_size=8,
                gradient_accumulation_steps=2,
                learning_rate=2e-3,
                save_strategy="no",
                report_to="none",
            ),
            train_dataset=lora.rows(task, tokenizer),
            data_collator=DataCollatorForSeq2Seq(tokenizer, base),
            callbacks=[lora],
        )
        trainer.train()

        results = lora.commit(out, task)
        print(f"month {month}: {results['average_accuracy']:.0f} % of all tickets so far")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model", nargs="?", default="tiny-t5")
    main(**vars(parser.parse_args()))
