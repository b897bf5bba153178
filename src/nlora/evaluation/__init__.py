"""Decoding, exact match, the accuracy matrix and what is computed from it."""
