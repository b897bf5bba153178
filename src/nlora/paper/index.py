"""The list of what was made in a folder, and of what is missing there and why."""

from collections.abc import Mapping
from pathlib import Path

from nlora.paper.artefacts import ARTEFACTS
from nlora.report.formats import markdown
from nlora.report.table import Cell, Table

FILE = "index.md"


def write_index(out: Path, missing: Mapping[str, str]) -> Path:
    """Write the list of all artefacts; `missing` says why one that was asked for is not there.

    What an earlier call left of that is no answer to this one.
    """
    rows: list[list[Cell]] = []
    for key, artefact in ARTEFACTS.items():
        if key not in missing and (out / f"{key}.md").is_file():
            rows.append([f"[{key}]({key}.md)", artefact.title, ""])
        else:
            rows.append([key, artefact.title, missing.get(key, "not asked for")])
    table = Table("index", "The paper's tables and figures", ["name", "what", "missing"], rows)
    (out / FILE).write_text(f"# Tables and figures\n\n{markdown(table)}", encoding="utf-8")
    return out / FILE
