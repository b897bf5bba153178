"""What a finished model has lost of its tasks, and why: `nlora explain`."""
