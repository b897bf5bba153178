"""What a method needs, as symbols beside its name (†, ‡, §) and their legend.

And ¶, where a penalty never came into force: two methods that differ in it are one.
"""

from typing import Any

from nlora.report.runs import Section
from nlora.report.table import Name

MARKS = {"task_identity": "†", "old_data": "‡", "storage": "§"}
MEANINGS = {
    "task_identity": "prediction is told the task",
    "old_data": "trains on data of earlier tasks",
    "storage": "what is kept to answer grows with the tasks",
}


NEVER_ACTED = "¶"


def needs(section: Section, label: str) -> dict[str, Any]:
    """What a method needs, as its rows say."""
    runs = section.of(label)
    return runs[0].row.get("needs", {}) if runs else {}


def marked(section: Section, label: str) -> Name:
    """A method's name with the symbols of what it needs."""
    found = needs(section, label)
    marks = [mark for name, mark in MARKS.items() if found.get(name)]
    idle = [NEVER_ACTED] if _idle(section, label) else []
    return Name(label, "".join([*marks, *idle]))


def legend(section: Section, methods: list[str]) -> list[str]:
    """What the symbols mean, of those that these methods have."""
    there = {name for label in methods for name, on in needs(section, label).items() if on}
    found = [f"{mark} {MEANINGS[name]}" for name, mark in MARKS.items() if name in there]
    idle = [f"{label}: {said}" for label in methods if (said := _idle(section, label))]
    if idle:
        found.append(
            f"{NEVER_ACTED} a penalty never came into force, in stages too short to measure its "
            f"weight, which are those of a run without it ({'; '.join(idle)})"
        )
    return found


def _idle(section: Section, label: str) -> str:
    """In how many stages of a method's runs a penalty had no weight; empty where it had in all."""
    stages, counts = 0, dict[str, int]()
    for run in section.of(label):
        notes = run.row.get("notes")
        for noted in notes.values() if isinstance(notes, dict) else ():
            stages += 1
            for name, value in noted.items() if isinstance(noted, dict) else ():
                if isinstance(value, dict) and value.get("lambda", 0) is None:
                    counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name} in {count} of {stages} stages" for name, count in counts.items())
