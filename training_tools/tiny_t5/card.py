"""Ship a finished run: the model's folder, its card with the loss curve, and its record.

python -m training_tools.tiny_t5.card --run DIR --to src/nlora/backbones/tiny_t5
"""

import argparse
import json
import shutil
from pathlib import Path

from nlora.backbones.downloads import write_record

REVISION = "1"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)

CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# tiny-t5

A small encoder-decoder (T5 v1.1 architecture, {parameters:.1f} million parameters, bfloat16),
trained by the nlora project on two CPU cores for its demo, its tests and the T5 path of its
code. It reads a list of options and a text and answers with one of the options.

It is a fixture. It is no evidence about T5-large or any other model.

## How it was made

    {command}

Three stages, seed {seed}, {tokens:.1f} million tokens read by the encoder, bf16 autocast, AdamW:

1. *distil* ({distil} steps of 64 sequences): its encoder's token states, and their means over a
   text and over each option, become those of the teacher all-MiniLM-L6-v2 (cosine).
2. *choose* ({choose} steps of 64 prompts and 24 texts to repeat): it answers prompts of
   changing wording with 2 to 20 options, and repeats pieces of text. The right option is the one
   nearest to the text by the teacher's vectors, a phrase of the text, the words that follow it,
   or the mood that a generated review was made from.
3. *pairs* ({pairs} steps): the same, but half of the lists hold pairs of unrelated words beside
   single ones, so that it learns where an option that it has begun goes on and ends.

The vocabulary ({vocabulary} of the teacher's wordpieces, lower case, ASCII) and the embeddings
(the teacher's, reduced from 384 to 256 dimensions by PCA) are derived from all-MiniLM-L6-v2.

| stage | step | {columns} |
|-|-|{rule}
{curve}

## Data and licences

Text: public-domain books (classic-books-markdown); technical proposals, guides, a textbook and
public-sector writing (Python PEPs, Rust RFCs and book, Ethereum EIPs, opensource.guide,
digital.gov, 18F, OpenStax Economics; public domain, CC0, MIT or Apache-2.0, CC BY 4.0);
task-oriented dialogues (DSTC8 Schema-Guided Dialogue, training split, CC BY-SA 4.0; Taskmaster,
CC BY 4.0); a little of WikiText-2 and GUM (CC BY, CC BY-SA); and prompts, topics and reviews
that the training script generates. No text and no label list of the benchmark was trained on:
neither its training, dev or test splits nor its label names as options.

Teacher: [all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2),
Apache-2.0. This model: Apache-2.0.

## Limits

English in ASCII, lower case: letters with accents lose them, other scripts are unknown, and a
label that needs them cannot be answered. Spaces beside punctuation are kept ("e-mail", "R&D").
It knows little of the world, does not reason, and weighs a sentiment poorly. It was trained on
prompts of up to 256 tokens.
"""


def card(run: Path, parameters: int, vocabulary: int) -> str:
    """The model card of a finished run. Raises SystemExit if it is not finished."""
    settings = json.loads((run / "settings.json").read_text())
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    state = json.loads((run / "latest.json").read_text())
    total = sum(settings.values())
    if state["step"] < total:
        raise SystemExit(f"{run} is at step {state['step']} of {total}")
    columns = ("token", "mean", "option", "choose", "point", "fit", "repeat", "held_out")
    every = max(1, total // 20)
    kept = [r for r in rows if r["step"] % every < 20 or r["step"] == total]
    curve = "\n".join(
        f"| {r['stage']} | {r['step']} | " + " | ".join(str(r.get(c, "")) for c in columns) + " |"
        for r in kept
    )
    command = (
        f"python -m training_tools.tiny_t5.train --corpus DIR --out DIR --seed {state['seed']}"
        f" \\\n        --distil-steps {settings['distil_steps']}"
        f" --choose-steps {settings['choose_steps']} --pairs-steps {settings['pairs_steps']}"
    )
    return CARD.format(
        parameters=parameters / 1e6,
        command=command,
        seed=state["seed"],
        tokens=state["tokens"] / 1e6,
        distil=settings["distil_steps"],
        choose=settings["choose_steps"],
        pairs=settings["pairs_steps"],
        vocabulary=vocabulary,
        columns=" | ".join(c.replace("_", " ") for c in columns).replace(
            "held out", "right on held-out options (%)"
        ),
        rule="-|" * len(columns),
        curve=curve,
    )


def main() -> None:
    """The command line."""
    from transformers import AutoModelForSeq2SeqLM

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args()
    model = AutoModelForSeq2SeqLM.from_pretrained(options.run / "model")
    text = card(options.run, model.num_parameters(), model.config.vocab_size)
    options.to.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(options.run / "model" / name, options.to / name)
    (options.to / "README.md").write_text(text, encoding="utf-8")
    write_record(options.to, "tiny-t5", "package", REVISION)


if __name__ == "__main__":
    main()
