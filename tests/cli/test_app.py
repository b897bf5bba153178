import subprocess
import sys
from itertools import pairwise

import pytest
from typer.main import get_command

from nlora import __version__
from nlora.cli.app import app


def commands(group, path=()):
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", commands(get_command(app)), ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(nlora, path, option):
    result = nlora(*path, option)
    assert result.exit_code == 0
    assert "Usage: nlora" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("columns", [60, 100])
def test_help_is_broken_where_the_terminal_ends(nlora, columns):
    lines = nlora("learn", "--help", env={"COLUMNS": str(columns)}).stdout.splitlines()
    paragraph = lines[next(i for i, line in enumerate(lines) if "Without --method" in line) :]
    whole = paragraph[: next(i for i, line in enumerate(paragraph) if not line.strip())]
    for line, after in pairwise(text.strip() for text in whole):
        assert len(line) + len(after.split()[0]) + 3 > columns  # with a space at both ends


def test_version(nlora):
    result = nlora("--version")
    assert (result.exit_code, result.stdout) == (0, f"nlora {__version__}\n")


def test_python_m_nlora_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "nlora", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"nlora {__version__}\n", "")


def test_ctrl_c_while_the_libraries_are_loaded_is_one_line():
    code = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'nlora.cli.app': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from nlora.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: stopped\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rn"], "Did you mean 'run'"),
        (["data", "chek"], "Did you mean 'check'"),
        (["run", "--sed", "1"], "--seed"),
        (["run", "--seed", "one"], "--seed"),
        (["run", "--max-train", "1.5"], "--max-train"),
        (["--versio"], "--version"),
        (["learn"], "MODEL_DIR"),
        (["run", "--set"], "--set"),
    ],
    ids=str,
)
def test_a_typing_error_is_one_line_that_helps(refused, arguments, said):
    assert said in refused(*arguments)


@pytest.mark.parametrize("path", [(), ("data",), ("models",)], ids=str)
def test_a_group_alone_prints_its_commands(nlora, path):
    result = nlora(*path)
    assert "Usage" in result.stdout
    assert "error" not in result.stderr


def fail_in_run(monkeypatch, error):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("nlora.continual.learning.run", fails)


ARGUMENTS = ("run", "--stream", "demo", "--model", "m", "--method", "inc-lora", "--out", "out")


@pytest.fixture
def stands(tmp_path, monkeypatch):
    """Commits a stage in the folder `out`, as far as the command line looks."""
    monkeypatch.chdir(tmp_path)

    def commit():
        (tmp_path / "out/stages/001-a").mkdir(parents=True)
        (tmp_path / "out/model.json").write_text("{}")

    return commit


def test_ctrl_c_is_one_line_and_status_130_and_says_what_stands(nlora, monkeypatch, stands):
    fail_in_run(monkeypatch, KeyboardInterrupt())
    result = nlora(*ARGUMENTS)
    assert result.exit_code == 130
    assert result.stdout == ""
    said = "error: stopped; nothing is committed yet, the same command begins anew"
    assert result.stderr.strip() == said
    stands()
    said = "committed stages stand, the same command goes on after the last one"
    assert nlora(*ARGUMENTS).stderr.strip() == f"error: stopped; {said}"


@pytest.mark.parametrize("kept", ["checkpoints/001-a/step-20", "tuning.jsonl"])
def test_what_is_kept_of_a_first_stage_is_gone_on_from(nlora, monkeypatch, stands, kept, tmp_path):
    fail_in_run(monkeypatch, KeyboardInterrupt())
    (tmp_path / "out" / kept).mkdir(parents=True)
    told = "no stage is committed yet, the same command goes on from its last checkpoint or trial"
    assert nlora(*ARGUMENTS).stderr.strip() == f"error: stopped; {told}"
    stands()
    assert "committed stages stand" in nlora(*ARGUMENTS).stderr


@pytest.mark.parametrize("number", [28, 13, 30, 2, 17, 36])
def test_a_disk_or_path_that_cannot_be_written_is_one_line(refused, monkeypatch, stands, number):
    fail_in_run(monkeypatch, OSError(number, "the disk says no", "/some/file"))
    stands()
    line = refused(*ARGUMENTS)
    assert "/some/file: the disk says no" in line
    assert "committed stages stand" in line


@pytest.mark.parametrize("error", [OSError(28, "full", "/some/file"), KeyboardInterrupt()])
def test_stages_stand_only_where_there_are_any(nlora, monkeypatch, tmp_path, error):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr("nlora.report.tables.tables", fails)
    said = nlora("table", tmp_path / "ledger.jsonl").stderr
    told = "/some/file: full; make room there" if isinstance(error, OSError) else "stopped"
    assert said.strip() == f"error: {told}"


def test_what_is_our_own_fault_is_not_hidden(nlora, monkeypatch):
    fail_in_run(monkeypatch, ZeroDivisionError("a bug"))
    assert isinstance(nlora(*ARGUMENTS).exception, ZeroDivisionError)
