"""What has changed since `main`: for `make check`, which has half a minute.

`python tools/changed.py modules` prints the modules, for the type checker; `… tests SECONDS` the
tests of their rooms that fit into that time by tests/durations.json, those that have changed
themselves or have the name of such a module first. What is left out is said on stderr.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = 0.5
"""Seconds of a file that tests/durations.json does not list, about."""


def main() -> None:
    """Print the files, one a line."""
    match sys.argv[1:]:
        case ["modules"]:
            files = [f for f in changed() if f.suffix == ".py" and f.parts[0] == "src"]
        case ["tests", seconds]:
            files = fitting(float(seconds))
        case _:
            sys.exit(__doc__)
    for file in files:
        if (ROOT / file).exists():
            print(file)


def fitting(seconds: float) -> list[str]:
    """The tests that fit into this time."""
    durations = json.loads((ROOT / "tests" / "durations.json").read_text(encoding="utf-8"))
    own, rooms = tests_of(changed())
    chosen = []
    for files in (own, rooms - own):
        for file in sorted(files, key=lambda f: (durations.get(f, QUICK), f)):
            seconds -= durations.get(file, QUICK)
            if seconds >= 0:
                chosen.append(file)
    if left := len(own | rooms) - len(chosen):
        print(f"left to `make test`: {left} test files of these rooms", file=sys.stderr)
    return chosen


def changed() -> list[Path]:
    """The files that differ from where this branch left `main`, those not yet in git too."""
    start = "HEAD"
    for main_branch in ("main", "origin/main"):
        found = git("merge-base", "HEAD", main_branch, check=False)
        if found:
            start = found[0]
            break
    listed = git("diff", "--name-only", start) + git("ls-files", "--others", "--exclude-standard")
    return [Path(name) for name in listed]


def git(*arguments: str, check: bool = True) -> list[str]:
    """The lines that git prints."""
    told = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=check
    )
    return told.stdout.splitlines()


def tests_of(files: list[Path]) -> tuple[set[str], set[str]]:
    """The tests that changed or have the name of a changed module, and all tests of their rooms."""
    own, rooms = set[str](), set[str]()
    for file in files:
        match file.parts:
            case ("tests", *_, name) if name.startswith("test_"):
                if (ROOT / file).exists():
                    own.add(file.as_posix())
            case ("tests" | "training_tools", room, _, *_):
                rooms |= tests_in(room if file.parts[0] == "tests" else "training_tools")
            case ("src", "nlora", room, *_, name):
                rooms |= tests_in(room)
                own |= {t for t in tests_in(room) if Path(t).stem == f"test_{Path(name).stem}"}
            case ("README.md",) | ("docs", *_):
                own.add("tests/test_docs.py")
    return own, rooms


def tests_in(room: str) -> set[str]:
    """The test files of a room."""
    return {p.relative_to(ROOT).as_posix() for p in (ROOT / "tests" / room).glob("test_*.py")}


if __name__ == "__main__":
    main()
