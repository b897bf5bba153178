"""Mathematics of factor pairs (A, B). Knows torch, nothing else."""
