"""Continual-learning methods, one file each; `base` holds their contract."""
