"""A loop of one's own in plain PyTorch, month after month.

python examples/plain_loop.py OUT [MODEL]
"""

import argparse
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

import nlora
import tickets
from nlora.backbones.catalog import find


def main(out: Path, model: str, months: int = 2, rows: int = 48, epochs: int = 2) -> None:
    """Learn some months of so many tickets, with a built-in model, a folder or a Hub name."""
    place = find(model).target
    base = AutoModelForCausalLM.from_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(place)
    lora = nlora.ContinualLora(base, penalty="l1", weight="relative", orthogonal=0.1)
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
                lora.model(**batch.to(base.device)).loss.backward()
                lora.step(optimizer, max_grad_norm=1.0)  # penalties, clipping, the step

        results = lora.commit(out, task)  # and a fresh adapter is on top, for the next month
        print(f"month {month}: {results['average_accuracy']:.0f} % of all tickets so far")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    main(**vars(parser.parse_args()))
