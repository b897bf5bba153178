"""docs/help-desk.md: every command runs, ends as it says there, and prints what is shown there."""

import re
import runpy
import shlex
import sys
from pathlib import Path

from typer.testing import CliRunner

from nlora.cli.app import app
from nlora.cli.console import out as console

ROOT = Path(__file__).parents[1]


def steps(page: str) -> list[tuple[str, list[str]]]:
    """The commands of a page's console blocks, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def plain(text: str) -> str:
    """A text whatever its numbers and the widths of its columns."""
    return re.sub(r"[\s━╇]+", " ", re.sub(r"-?\d[\d.-]*", "#", text))


def check_shown(shown: list[str], printed: str) -> None:
    """What stands between two … was printed, one after another."""
    place, printed = 0, plain(printed)
    for part in "\n".join(shown).split("…"):
        wanted = plain(part).strip()
        found = printed.find(wanted, place)
        assert found >= 0, f"not printed: {wanted}\n\n{printed}"
        place = found + len(wanted)


def test_a_year_of_a_help_desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 100)
    monkeypatch.syspath_prepend(ROOT / "examples")
    status, learned = 0, 0
    for command, shown in steps((ROOT / "docs" / "help-desk.md").read_text(encoding="utf-8")):
        given, _, line = command.rpartition(" | ")
        program, *arguments = shlex.split(line)
        if line == "echo $?":
            assert shown == [str(status)]
            status, shown = 0, []
            printed = ""
        elif program == "python":
            monkeypatch.setattr(sys, "argv", arguments)
            runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
            printed = ""
        else:
            text = given.removeprefix("echo ").strip('"') + "\n"
            done = CliRunner().invoke(app, arguments, prog_name="nlora", input=text)
            assert done.exit_code in (0, 3), (command, done.output)
            assert status == 0, f"{command}: the page does not show the exit status before it"
            status, printed = done.exit_code, done.stdout
            learned += arguments[0] == "learn" and status == 0
        check_shown(shown, printed)
    assert learned == 12
