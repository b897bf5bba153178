"""Where an update lives: all parameters, LoRA adapters, soft prompts, sparse entries."""
