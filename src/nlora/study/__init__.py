"""Many runs that are compared: the grid, its workers, what they share, and the tuning."""
