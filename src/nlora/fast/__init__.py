"""What makes training and evaluation quick and changes no result."""
