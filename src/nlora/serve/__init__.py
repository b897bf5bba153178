"""`nlora serve`: a model directory as an HTTP server."""
