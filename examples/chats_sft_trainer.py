"""A chat model, month after month, with TRL's SFTTrainer (`pip install 'nlora[trl]'`).

    python examples/chats_sft_trainer.py OUT [MODEL]

The tickets are conversations, which the model reads through its chat template in training and in
the tests of the model directory OUT alike.
"""

import sys
from pathlib import Path

import tickets
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import nlora
from nlora.backbones.catalog import find
from nlora.data.files import task_from_files


def main(out: Path, model_name: str, months: int = 2, rows: int = 48) -> None:
    """Learn some months of so many tickets."""
    for month in range(1, months + 1):
        model = AutoModelForCausalLM.from_pretrained(model_name)
        tokenizer = AutoTokenizer.from_pretrained(model_name)
        files = [
            tickets.write(out.parent / "tickets", f"{month:02d}-{split}", list(map(tickets.chat, found)))
            for split, found in (
                ("train", tickets.month(month, rows)),
                ("test", tickets.month(month + 100, rows // 2)),
            )
        ]

        lora = nlora.ContinualLora(model, [out] if out.exists() else [], orthogonal=0.1)
        trainer = SFTTrainer(
            model=lora.model,
            args=SFTConfig(
                output_dir=str(out.with_name(f"{out.name}-trainer")),
                num_train_epochs=2,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                learning_rate=1e-3,
                bf16=False,
                save_strategy="no",
                report_to="none",
            ),
            train_dataset=load_dataset("json", data_files=str(files[0]), split="train"),
            processing_class=tokenizer,
            callbacks=[lora],
        )
        trainer.train()

        results = lora.commit(out, task_from_files("tickets", *files), tokenizer=tokenizer)
        print(f"month {month}: {results['average_accuracy']:.0f} % of all tickets so far")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else find("smollm2-135m").target)
