"""A loop of one's own in plain PyTorch, month after month.

python examples/plain_loop.py OUT [MODEL]
"""

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

import nlora
import tickets
from nlora.backbones.catalog import find


def main(out: Path, model_name: str, months: int = 2, rows: int = 48, epochs: int = 2) -> None:
    """Learn some months of so many tickets."""
    model = AutoModelForCausalLM.from_pretrained(model_name)
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    lora = nlora.ContinualLora(model, penalty="l1", weight="relative", orthogonal=0.1)
    for month in range(1, months + 1):
        task = tickets.task(month, rows)
        loader = DataLoader(
            lora.rows(task, tokenizer),  # type: ignore[arg-type]
            batch_size=8,
            shuffle=True,
            collate_fn=DataCollatorForSeq2Seq(tokenizer),
        )
        optimizer = torch.optim.AdamW(lora.parameters(), lr=1e-3)
        lora.begin(steps=epochs * len(loader))
        lora.model.train()
        for _ in range(epochs):
            for batch in loader:
                optimizer.zero_grad()
                lora.model(**batch.to(model.device)).loss.backward()
                lora.step(optimizer, max_grad_norm=1.0)  # penalties, clipping, the step

        results = lora.commit(out, task)  # and a fresh adapter is on top, for the next month
        print(f"month {month}: {results['average_accuracy']:.0f} % of all tickets so far")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else find("smollm2-135m").target)
