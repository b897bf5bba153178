"""Mathematics of factor pairs (A, B). Knows torch and numpy, nothing else."""
