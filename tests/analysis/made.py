"""Adapter folders, written by hand or by PEFT."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

MODULES = {
    f"model.layers.{layer}.self_attn.{kind}": shape
    for layer in range(2)
    for kind, shape in (("q_proj", (6, 8)), ("v_proj", (4, 8)))
}
PREFIX = "base_model.model."


def tensors(seed=0, rank=2, modules=MODULES, dtype=torch.float32):
    """Random factors by PEFT's names."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for module, (out, size) in modules.items():
        A = torch.randn(rank, size, generator=generator)
        B = torch.randn(out, rank, generator=generator)
        found[f"{PREFIX}{module}.lora_A.weight"] = A.to(dtype)
        found[f"{PREFIX}{module}.lora_B.weight"] = B.to(dtype)
    return found


def write(folder: Path, values=None, **config) -> Path:
    """An adapter folder; `config` goes over the usual keys."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "somebody/tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**usual, **config}))
    save_file(tensors() if values is None else values, folder / "adapter_model.safetensors")
    return folder
