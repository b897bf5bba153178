"""What several methods share: the LoRA family, penalties and their weight, routing, Fisher."""
