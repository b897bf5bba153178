"""What a method needs, as symbols beside its name (†, ‡, §) and their legend."""

from typing import Any

from nlora.report.runs import Section
from nlora.report.table import Name

MARKS = {"task_identity": "†", "old_data": "‡", "storage": "§"}
MEANINGS = {
    "task_identity": "prediction is told the task",
    "old_data": "trains on data of earlier tasks",
    "storage": "what is kept to answer grows with the tasks",
}


def needs(section: Section, label: str) -> dict[str, Any]:
    """What a method needs, as its rows say."""
    runs = section.of(label)
    return runs[0].row.get("needs", {}) if runs else {}


def marked(section: Section, label: str) -> Name:
    """A method's name with the symbols of what it needs."""
    found = needs(section, label)
    return Name(label, "".join(mark for name, mark in MARKS.items() if found.get(name)))


def legend(section: Section, methods: list[str]) -> list[str]:
    """What the symbols mean, of those that these methods have."""
    there = {name for label in methods for name, on in needs(section, label).items() if on}
    return [f"{mark} {MEANINGS[name]}" for name, mark in MARKS.items() if name in there]
