"""Consolidations: what model the updates of all tasks make together."""
