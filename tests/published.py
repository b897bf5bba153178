"""LoRA adapters as PEFT saves them."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

PLAIN = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def published(llama, folder, seed=1, **options):
    """A trained-looking adapter as PEFT saves it."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(llama)
    base.name_or_path = str(llama)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **{**PLAIN, **options}))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.2)
    model.peft_config["default"].base_model_name_or_path = str(llama)
    model.save_pretrained(folder)
    return folder
