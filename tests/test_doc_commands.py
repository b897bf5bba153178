"""Every command of the documentation is one, and is run here or says what it needs.

A block of commands that is not run stands below a comment such as `<!-- needs: hours -->`: hours,
a GPU, a network, a cluster, or a checkout (make, pytest: what the tests are part of).
"""

import csv
import gzip
import re
import shlex
import sqlite3
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
import yaml
from typer.core import TyperGroup

from nlora.api.running import configured
from nlora.cli import options
from nlora.cli.app import app
from nlora.methods.registry import methods
from nlora.paper.figure import Figure
from nlora.plan.points import parse_points
from nlora.plan.resolve import choose
from nlora.plan.settings import RunSettings
from nlora.report.formats import comma_separated
from nlora.study.grid import Grid
from tests.calling import call
from tests.commands import in_this_process
from tests.paper.conftest import standard  # noqa: F401
from tests.test_docs import blocks as code_blocks

ROOT = Path(__file__).parents[1]

PAGES = [
    p.relative_to(ROOT).as_posix()
    for p in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
]

NEEDS = {"hours", "a GPU", "a network", "a cluster", "a checkout", "a server"}


class Block(NamedTuple):
    """Commands that stand together."""

    page: str
    needs: str | None
    commands: list[str]

    def of_nlora(self) -> list[list[str]]:
        """The words after `nlora` of each command of nlora's."""
        found = []
        for command in self.commands:
            words = shlex.split(command, comments=True)
            for sign in ("|", ">", ">>", "&&", "&"):
                words = words[: words.index(sign)] if sign in words else words
            if "nlora" in words[:12] and "pip" not in words:
                found.append(words[words.index("nlora") + 1 :])
        return found


def blocks(page: str) -> list[Block]:
    """The blocks of commands of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for needs, block in re.findall(
        r"(?:<!-- needs: ([^>]+?) -->\n+)?```console\n(.*?)```", text, flags=re.DOTALL
    ):
        lines = block.replace("\\\n", "").splitlines()
        commands = [line[2:] for line in lines if line.startswith("$ ")]
        found.append(Block(page, needs or None, commands))
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


NLORA = typer.main.get_command(app)


def leaf(words):
    """The command that words name, and the rest of them."""
    command, rest = NLORA, list(words)
    while isinstance(command, TyperGroup) and rest and rest[0][0] not in "-…":
        name = rest.pop(0)
        assert name in command.commands, f"nlora {name}"
        command = command.commands[name]
    return command, rest


def settings() -> set[str]:
    """The name of every setting of every method."""
    kinds = [entry.kind.Settings for entry in methods().values()]
    return {*RunSettings.model_fields, *(n for kind in kinds for n in kind.model_fields)}


def check_asked(command: str, given: dict) -> None:
    """Raise NloraError for a run or a comparison that would be refused before it reads data."""
    named = options.settings(given.get("overrides"))
    if command == "run":
        names = ("method", "model", "recipe")
        choose(configured(given["stream"], settings=named, **{n: given[n] for n in names})[0])
    elif command == "compare" and not given["status"]:
        points = parse_points(given["methods"])
        grid = Grid(given["model"], tuple(given["streams"]), points, settings=named)
        for stream, point in grid.pairs():
            choose(grid.config(stream, point, seed=0))


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS}))
def test_every_command_is_one(page):
    """Its options and their values are those of the command, and what it sets is a setting."""
    known = settings()
    for words in (words for block in blocks(page) for words in block.of_nlora()):
        command, rest = leaf(words)
        if "…" not in rest and not {"--help", "--install-completion"} & {*rest}:
            with command.make_context(" ".join(words), list(rest)) as context:
                if "results" not in page:
                    check_asked(words[0], context.params)
        options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for i, word in enumerate(rest):
            if word.startswith("-") and word != "-":
                own = {*options, "--help", "--install-completion"}
                assert word.split("=")[0] in own, f"{page}: {' '.join(words)}"
            if word == "--set" and "results" not in page:  # those stand as they were run
                key = rest[i + 1].split("=")[0].rpartition(".")[2]
                assert key in known, f"{page}: {' '.join(words)}"


ELSEWHERE = {"docs/help-desk.md"}
"""Pages whose commands a test of their own runs."""
RUN = {
    *("README.md", "docs/index.md", "docs/analysis.md", "docs/explain.md", "docs/report.md"),
    *("docs/how-to/adapter.md", "docs/how-to/data.md", "docs/how-to/from-peft.md"),
    *ELSEWHERE,
}
"""Pages whose blocks are run, but for those that say what they need."""
WITHOUT_END = ("serve", "--install-completion", "--watch")
"""Commands with such a word go on until they are stopped, or change a shell."""
QUICK = {"epochs": 1, "max_new_tokens": 2, "precision": "fp32", "batch_size": 8}
SMALLER = {"smollm2-135m": "./my-model", "0,1,2": "0", "384": "6", "120": "3", "DIR": "data"}
"""What is other than written, so that it takes no hours."""
TASKS = ("tickets", "tickets-may", "march", "cities", "reviews")
ROWS = "".join(f"i was charged {i} times,billing\nit is broken {i},technical\n" for i in range(12))


def only_reads(words: list[str]) -> bool:
    """Whether a command reads this repository alone, and takes no hours."""
    if words[0] in ("table", "report"):
        return words[1].startswith("docs/results/") and "--watch" not in words
    return words[0] in ("methods", "streams") or (words[0] == "paper" and "--from" in words)


def test_what_is_not_run_says_what_it_needs():
    for block in BLOCKS:
        if block.needs or block.page not in RUN:
            reads = block.commands and all(map(only_reads, block.of_nlora()))
            assert block.needs in NEEDS or reads, (block.page, block.needs, block.commands)


@pytest.fixture
def place(tmp_path, llama, finished, standard, monkeypatch):  # noqa: F811
    """A folder with all that commands of the documentation read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NLORA_DATA", str(standard))
    monkeypatch.setattr("nlora.page.build._vega", lambda: "")
    for name in TASKS:
        (tmp_path / f"{name}.csv").write_text("text,label\n" + ROWS)
    (tmp_path / "reviews.csv.gz").write_bytes(gzip.compress(f"text,label\n{ROWS}".encode()))
    (tmp_path / "stars.csv").write_text(f"review,stars\n{ROWS}")
    rows = '{"text": "it is broken", "label": "technical"}\n' * 6
    (tmp_path / "reviews-test.jsonl").write_text(rows)
    texts = "".join(f"a text about {i}\n" for i in range(100))
    (tmp_path / "texts.txt").write_text(texts)
    (tmp_path / "texts.txt.gz").write_bytes(gzip.compress(texts.encode()))
    (tmp_path / "messages.txt").write_text("why was i charged twice?\n")
    entries = [
        {"name": n, "train": f"{n}.csv", "test": f"{n}.csv", "labels": ["billing", "technical"]}
        for n in ("tickets", "cities")
    ]
    (tmp_path / "my-tasks.yaml").write_text(yaml.safe_dump(entries))
    (tmp_path / "desk.py").write_text(code_blocks("docs/how-to/data.md", "python")[0])
    with sqlite3.connect(tmp_path / "desk.db") as desk:
        desk.execute("CREATE TABLE tickets (body, team, month)")
        rows = [(*line.split(","), 3) for line in ROWS.splitlines()]
        desk.executemany("INSERT INTO tickets VALUES (?, ?, ?)", rows)
    (tmp_path / "docs/results").mkdir(parents=True)
    links = {
        "my-model": llama,
        "data": standard,
        "my-adapter": finished("inc-lora").out / "stages/001-colour/update",
        "adapters/news": finished("inc-lora").out / "stages/001-colour/update",
        "adapters/films": finished("inc-lora").out / "stages/002-animal/update",
        **{f"docs/results/{p.name}": p for p in (ROOT / "docs/results").glob("*.jsonl")},
    }
    for name, target in links.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)
    return tmp_path


def as_run(words: list[str]) -> list[str]:
    """The words of a command, smaller."""
    words = [SMALLER.get(word, word) for word in words]
    if words[0] in ("run", "learn", "compare") and "--model" in words:
        words += [part for k, v in QUICK.items() for part in ("--set", f"{k}={v}")]
    return words


OWN = "run --stream my-tasks.yaml --model ./my-model --method"
BEFORE = {
    "docs/analysis.md": (f"{OWN} n-lora --out runs/n-lora",),
    "docs/explain.md": (f"{OWN} seq-lora --out runs/seq-lora",),
    "docs/how-to/from-peft.md": (f"{OWN} inc-lora --out runs/mine",),
    "docs/report.md": (
        f"{OWN} n-lora --out runs/n-lora",
        "compare --stream my-tasks.yaml --methods inc-lora --model ./my-model --out runs/grid",
    ),
}
"""What the commands of a page are done with."""


@pytest.mark.parametrize("page", sorted(RUN - ELSEWHERE))
def test_the_commands_of_a_page_run(page, place):
    lines = [shlex.split(line) for line in BEFORE.get(page, ())]
    lines += [w for block in blocks(page) if not block.needs for w in block.of_nlora()]
    done = 0
    for words in map(as_run, lines):
        if {*WITHOUT_END} & {*words} or "…" in words:
            continue
        with in_this_process():
            result = call(*words)
        assert result.exit_code == 0, (words, result.output)
        done += 1
    assert done


def numbers(path: Path) -> list[str]:
    """The cells of a CSV file, of numbers ten digits: the last ones are the machine's."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_digits(cell) for row in csv.reader(file) for cell in row]


def _digits(cell: str) -> str:
    try:
        return f"{float(cell):.10g}"
    except ValueError:
        return cell


def test_commands_that_only_read_this_repository_run(place, monkeypatch):
    def numbers_alone(figure, folder):
        for table in figure.tables:
            (folder / f"{table.key}.csv").write_text(comma_separated(table), encoding="utf-8")
        return []

    monkeypatch.setattr(Figure, "write", numbers_alone)
    found = [words for block in BLOCKS for words in block.of_nlora() if only_reads(words)]
    for words in {tuple(words): words for words in found}.values():
        if "NAME" in words or "--models" in words:
            continue
        result = call(*words)
        assert result.exit_code == 0, (words, result.output)
    made = place / "docs/results/paper"
    for path in made.iterdir():
        committed = ROOT / "docs/results/paper" / path.name
        if path.suffix == ".csv":
            assert numbers(path) == numbers(committed), path.name
        elif path.name != "index.md":
            assert path.read_text() == committed.read_text(), path.name
    assert (made / "table-1.md").is_file()
