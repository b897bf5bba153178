"""The loop: one way through the Trainer for every method."""
