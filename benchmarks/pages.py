"""Pages of docs/results of which several commands write a section each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def put(page: Path, title: str, text: str) -> None:
    """Write a section of a page in place of the one with the same title, else at its end."""
    old = page.read_text(encoding="utf-8") if page.exists() else f"# {page.stem.capitalize()}\n"
    head, *sections = old.split("\n## ")
    new = f"{title}\n\n{text.strip()}\n"
    found = [new if part.partition("\n")[0] == title else part for part in sections]
    if new not in found:
        found.append(new)
    parts = [part.rstrip("\n") for part in (head, *found)]
    page.write_text("\n\n## ".join(parts) + "\n", encoding="utf-8")


def by_command(
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, Callable[[Mapping[str, Any]], object]],
) -> str:
    """A table with a line for each command and one for all: rows, and those of each column."""
    head = ("command", "kills", *counts)
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name in (*names, "all"):
        mine = [row for row in rows if name in ("all", row["command"])]
        cells = [len(mine), *(sum(map(bool, map(count, mine))) for count in counts.values())]
        shown = f"`nlora {name}`" if name != "all" else "all"
        lines.append(f"| {shown} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
