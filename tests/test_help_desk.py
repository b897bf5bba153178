"""docs/help-desk.md: every command runs, ends as it says there, and prints what is shown there."""

import logging
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from nlora.cli.console import out as console
from tests.calling import call

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


def asked(server: FastAPI, words: list[str]) -> str:
    """What the server answers to the words of a `curl`."""
    path, body = words[1].partition("/")[2], words[words.index("-d") + 1]
    headers = dict([words[words.index("-H") + 1].split(": ")])
    with TestClient(server, base_url="http://localhost:8000") as client:
        return client.post(path, content=body, headers=headers).text


def test_a_year_of_a_help_desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging, "_handlerList", [])  # uvicorn closes those that it finds
    served: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: served.append(self.config.app))
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
        elif program == "curl":
            printed = asked(served[-1], arguments)
        else:
            arguments = [*arguments[:-1], "--port", "0"] if arguments[-1] == "&" else arguments
            text = given.removeprefix("echo ").strip('"') + "\n"
            done = call(*arguments, input=text)
            assert done.exit_code in (0, 3), (command, done.output)
            assert status == 0, f"{command}: the page does not show the exit status before it"
            status, printed = done.exit_code, done.stdout
            learned += arguments[0] == "learn" and status == 0
        check_shown(shown, printed)
    assert (learned, len(served)) == (12, 1)
