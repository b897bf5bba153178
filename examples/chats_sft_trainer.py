"""A chat model, month after month, with TRL's SFTTrainer (`pip install 'nlora[trl]'`).

    python examples/chats_sft_trainer.py OUT [MODEL]

The tickets are conversations, which the model reads through its chat template in training and in
the tests of the model directory OUT alike.
"""

import argparse
from pathlib import Path

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import nlora
import tickets
from nlora.backbones.catalog import find


def main(out: Path, model: str, months: int = 2, rows: int = 48) -> None:
    """Learn some months of so many tickets, with a built-in model, a folder or a Hub name."""
    place = find(model).target
    for month in range(1, months + 1):
        base = AutoModelForCausalLM.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)
        chats = list(map(tickets.chat, tickets.month(month, rows)))
        tests = list(map(tickets.chat, tickets.held_out(month, rows // 2)))

        lora = nlora.ContinualLora(base, [out] if out.exists() else [], orthogonal=0.1)
        trainer = SFTTrainer(
            model=lora.model,
            args=SFTConfig(
                output_dir=str(out.with_name(f"{out.name}-trainer")),
                num_train_epochs=3,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                learning_rate=1e-3,
                bf16=False,
                save_strategy="no",
                report_to="none",
            ),
            train_dataset=Dataset.from_list(chats),
            processing_class=tokenizer,
            callbacks=[lora],
        )
        trainer.train()

        results = lora.commit(out, nlora.Task("tickets", train=chats, test=tests))
        print(f"month {month}: {results['average_accuracy']:.0f} % of all tickets so far")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    main(**vars(parser.parse_args()))
