"""The tables and figures of the N-LoRA paper, each made again from runs, with its own beside."""
