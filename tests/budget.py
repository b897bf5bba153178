"""The time that each test file may take, in tests/durations.json.

With NLORA_BUDGET=1 the tests fail where a file takes twice its time, measured by the time that all
the others take, so that it makes no difference how fast the machine is. NLORA_BUDGET=write writes
the file anew (`make budget`).
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

LEAST = 5.0
"""Seconds that any file may take: those of less are not listed, and what they take is noise."""


class Budget:
    """A plug-in of pytest that adds up the seconds of each file."""

    def __init__(self, root: Path, mode: str | None = None) -> None:
        self.path = root / "tests" / "durations.json"
        self.mode = mode
        self.taken: dict[str, float] = defaultdict(float)
        self.seconds: dict[str, float] = {}
        if self.path.exists():
            self.seconds = json.loads(self.path.read_text(encoding="utf-8"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.taken[report.nodeid.split("::")[0]] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.mode == "write" and session.exitstatus == pytest.ExitCode.OK:
            listed = {name: round(s) for name, s in sorted(self.taken.items()) if s >= LEAST}
            self.path.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
        elif self.mode == "1" and exceeded(self.taken, self.seconds):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.mode == "1":
            for line in exceeded(self.taken, self.seconds):
                terminalreporter.write_line(line, red=True)


def exceeded(taken: dict[str, float], budget: dict[str, float]) -> list[str]:
    """A line for each file that takes more than twice its budget on a machine like this one."""
    lines = []
    for name, seconds in sorted(taken.items()):
        own = budget.get(name, LEAST)
        others = sum(taken.values()) - seconds
        expected = sum(budget.get(other, 0.0) for other in taken) - budget.get(name, 0.0)
        speed = others / expected if expected else 1.0
        if seconds > 2 * max(own, LEAST) * speed:
            lines.append(
                f"over budget: {name} took {seconds:.1f} s, twice the {own:.0f} s of "
                "tests/durations.json; make it faster, or `make budget` if it is worth its time"
            )
    return lines
