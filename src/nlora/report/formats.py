"""Tables as Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from nlora.report.table import Cell, Table, Value, marks_of, plain, text

ENDINGS = {"markdown": "md", "latex": "tex", "csv": "csv", "json": "json"}

_LATEX = {
    "\\": r"\textbackslash{}",
    "‖ΔW‖_F": r"$\|\Delta W\|_F$",
    **{c: rf"\{c}" for c in "&%$#_{}"},
    **{c: f"{{{c}}}" for c in "[]*"},  # else an option of the row's end before it
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
    "–": "--",
    "Σ": r"$\Sigma$",
    "Δ": r"$\Delta$",
    "‖": r"$\|$",
    "√": r"$\surd$",
    "ᵀ": r"$^\top$",
    "²": r"$^2$",
    "·": r"$\cdot$",
    "ℓ": r"$\ell$",
    "₁": "$_1$",
    "₂": "$_2$",
    "→": r"$\to$",
    "−": "$-$",
    "λ": r"$\lambda$",
    "ρ": r"$\rho$",
    "⊙": r"$\odot$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "…": r"\ldots{}",
    **{"“": "``", "”": "''", "‘": "`", "’": "'"},
}
_KNOWN_TO_LATEX = 0x180
"""Letters from here on (Latin Extended-B) need fonts that a document may not have."""
_WIDE = 6
"""A table of more columns spans both columns of a page, in small print."""


def render(tables: Sequence[Table], form: str) -> str:
    """The tables one after another. JSON is one list; CSV has titles where there are several."""
    if form == "json":
        return json.dumps([t.to_json() for t in tables], indent=1, ensure_ascii=False) + "\n"
    if form == "csv" and len(tables) == 1:
        return comma_separated(tables[0])
    write = {"markdown": markdown, "latex": latex, "csv": _titled_csv}[form]
    return "\n".join(write(table) for table in tables)


def markdown(table: Table) -> str:
    """A pipe table, numbers on the right, notes below."""
    numeric = [
        all(isinstance(row[i], Value | int | None) for row in table.rows)
        for i in range(len(table.columns))
    ]
    lines = [
        f"**{table.title}**",
        "",
        _pipes(table.columns),
        _pipes("---:" if right else "---" for right in numeric),
        *(_pipes(text(cell) for cell in row) for row in table.rows),
        *(f"\n{note}" for note in table.notes),
    ]
    return "\n".join(lines) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(table: Table) -> str:
    """A `table` with booktabs (the package), notes in the caption; a wide one is a `table*`."""
    wide = len(table.columns) > _WIDE
    kind = "table*" if wide else "table"
    caption = _latex(
        " ".join([f"{table.title}.", *(f"{n[0].upper()}{n[1:]}." for n in table.notes)])
    )
    lines = [
        rf"\begin{{{kind}}}",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', table.key)}}}",
        *([r"\footnotesize\setlength{\tabcolsep}{3pt}"] if wide else []),
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        " & ".join(_heading(name) for name in table.columns) + r" \\",
        r"\midrule",
        *(_latex_row([text(cell) for cell in row]) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\end{{{kind}}}",
    ]
    return "\n".join(lines) + "\n"


def _heading(name: str) -> str:
    """What a column is headed by, its words below one another: its figures say how wide it is."""
    words = name.split()
    said = r"\\".join(_latex(word) for word in words)
    return said if len(words) == 1 else rf"\shortstack[r]{{{said}}}"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex(cell) for cell in cells) + r" \\"


def _latex(said: str) -> str:
    """A text as LaTeX has it; what no plain document can set is named by its code point."""
    out, i = [], 0
    while i < len(said):
        found = next((k for k in _LATEX if said.startswith(k, i)), said[i])
        out.append(_LATEX.get(found) or _settable(found))
        i += len(found)
    return "".join(out)


def _settable(char: str) -> str:
    plain = char.isprintable() and ord(char) < _KNOWN_TO_LATEX
    return char if plain else rf"\texttt{{U+{ord(char):04X}}}"


def comma_separated(table: Table) -> str:
    """CSV with numbers unrounded: more columns for standard deviations, bounds and symbols."""
    columns: list[str] = []
    rows: list[dict[str, object]] = [{} for _ in table.rows]
    for i, name in enumerate(table.columns):
        parts = [_parts(row[i]) for row in table.rows]
        for key in ("mean", "sd", "low", "high"):
            if key == "mean" or any(key in part for part in parts):
                columns.append(name if key == "mean" else f"{name} {key}")
                for row, part in zip(rows, parts, strict=True):
                    row[columns[-1]] = part.get(key)
    if any(map(marks_of, table.rows)):
        columns.append("marks")
        for values, row in zip(rows, table.rows, strict=True):
            values["marks"] = marks_of(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _parts(cell: Cell) -> dict[str, Any]:
    return cell.to_json() if isinstance(cell, Value) else {"mean": plain(cell)}


def _titled_csv(table: Table) -> str:
    return f"# {table.title}\n{comma_separated(table)}"
