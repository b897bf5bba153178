"""A small random T5 (v1.1) as a folder, to try the encoder-decoder path without a download.

    python examples/random_t5.py FOLDER

It takes the tokenizer of smollm2-135m. Nothing was ever trained, so accuracies say nothing.
"""

import argparse

import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from nlora.backbones.catalog import find

parser = argparse.ArgumentParser()
parser.add_argument("folder")
folder = parser.parse_args().folder
tokenizer = AutoTokenizer.from_pretrained(find("smollm2-135m").target)
torch.manual_seed(0)
config = T5Config(
    vocab_size=len(tokenizer),
    d_model=128,
    d_kv=32,
    num_heads=3,
    d_ff=256,
    num_layers=3,
    feed_forward_proj="gated-gelu",
    pad_token_id=tokenizer.pad_token_id,
    eos_token_id=tokenizer.eos_token_id,
    decoder_start_token_id=tokenizer.unk_token_id,  # apart from the end token
)
model = T5ForConditionalGeneration(config)
with torch.no_grad():
    model.shared.weight.mul_(config.d_model**-0.5)  # the head is tied to it: logits of size 1
model.save_pretrained(folder)
tokenizer.save_pretrained(folder)
print(f"a random T5 is in {folder}")
