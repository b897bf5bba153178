"""With what the runs were made: settings, versions, machines, data."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from nlora.report.runs import Run, Section
from nlora.report.table import Cell, Table

_SHOWN = ("model", "max_train", "max_eval", "evaluate")


def setup(section: Section) -> list[Table]:
    """Settings, those that most methods share first; versions and machines; data."""
    runs = [run for run in section.runs if not run.error] or section.runs
    firsts = {run.label: _of(run) for run in reversed(runs)}
    known = {run.label: firsts[run.label] for run in runs}
    data = _data(runs)
    return [*_settings(known, _most_common(known)), _made_by(runs), *([data] if data else [])]


def _settings(known: Mapping[str, Mapping[str, Any]], shared: Mapping[str, str]) -> list[Table]:
    """What most methods are set to, and by method what else it has."""
    rows: list[list[Cell]] = [[name, value] for name, value in shared.items()]
    own: list[list[Cell]] = []
    for label, values in known.items():
        others = [f"{n}={_said(v)}" for n, v in values.items() if _said(v) != shared.get(n)]
        own.append([label, ", ".join(others) or "–"])
    tables = [Table("settings", "Configuration", ["setting", "value"], rows)]
    if len(known) > 1:
        tables.append(Table("own", "Settings of each method", ["method", "its own"], own))
    return tables


def _most_common(known: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By setting its most common value, of those that more than half of the methods have."""
    counts: dict[str, Counter[str]] = {}
    for values in known.values():
        for name, value in values.items():
            counts.setdefault(name, Counter())[_said(value)] += 1
    enough = len(known) / 2
    return {n: c.most_common(1)[0][0] for n, c in counts.items() if c.total() > enough}


def _of(run: Run) -> dict[str, Any]:
    configuration = run.row["configuration"]
    return {n: configuration[n] for n in _SHOWN if n in configuration} | run.settings


def _said(value: Any) -> str:
    return "–" if value is None else str(value)


def _made_by(runs: list[Run]) -> Table:
    """Every version, machine and commit that stands in a row, with how many runs say so."""
    counts: dict[tuple[str, str], int] = {}
    for run in runs:
        row = run.row
        pairs = [*(row.get("versions") or {}).items(), *_pairs(row.get("machine") or {})]
        base = row["base"]
        revision = base.get("revision")
        pairs.append(("base model", f"{base.get('title')}{f', {revision}' if revision else ''}"))
        pairs.append(("commit of nlora", row.get("commit") or "not recorded"))
        for name, value in pairs:
            counts[name, str(value)] = counts.get((name, str(value)), 0) + 1
    rows: list[list[Cell]] = [[name, value, count] for (name, value), count in counts.items()]
    return Table("versions", "Versions and machines", ["what", "value", "runs"], rows)


def _pairs(machine: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((name, value) for name, value in machine.items() if value is not None)


def _data(runs: list[Run]) -> Table | None:
    rows: dict[tuple[str, str], list[Cell]] = {}
    for run in runs:
        tests = run.row.get("tests") or {}
        counts = ((run.row.get("answers") or {}).get("stages") or [{}])[-1]
        for task, fingerprint in (run.row.get("data") or {}).items():
            count = int(counts[task].split(":")[0]) if task in counts else None
            rows[task, fingerprint] = [task, fingerprint, tests.get(task), count]
    if not rows:
        return None
    columns = ["task", "fingerprint of the data", "fingerprint of the tests", "test examples"]
    return Table("data", "Data", columns, list(rows.values()))
