"""The model directory: the only place that reads and writes a run's files."""
