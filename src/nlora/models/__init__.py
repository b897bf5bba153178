"""Backbones by name, and where their logits come from."""
