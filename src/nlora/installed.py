"""What installed packages offer through their entry points."""

import importlib.metadata
from functools import cache
from importlib.metadata import EntryPoints


@cache
def entry_points(group: str) -> EntryPoints:
    """The entry points of a group, looked up once: a run asks for methods and adapters often."""
    return importlib.metadata.entry_points(group=group)
