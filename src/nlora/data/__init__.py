"""Tasks, prompts, streams, sources and tokenised batches. Knows no model."""
