"""Pages of docs/results of which several commands write a section each."""

from pathlib import Path


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
