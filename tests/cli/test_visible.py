"""What is printed of data is seen and not obeyed, and no answer is lost on a terminal."""

import json
import os
import sys
from typing import NamedTuple

import pytest

from tests.processes import context
from tests.report.rows import row, write
from tests.runs import write_stream

NASTY = "a\x1b[2J\x1b]0;title\x07\u202eb\x9bé\r"


def raw(text):
    return [c for c in text if (ord(c) < 32 and c not in "\n\t") or c in "\x7f\x9b\u202e"]


class Done(NamedTuple):
    status: int | None
    stdout: bytes
    stderr: bytes


def _main(arguments, out, err):
    from nlora.cli.app import main

    os.environ["COLUMNS"] = "200"
    sys.argv = ["nlora", *arguments]
    sys.stdout, sys.stderr = (open(path, "w", encoding="ascii") for path in (out, err))  # noqa: SIM115
    main()


def in_ascii(folder, *arguments):
    """The command in a process whose terminal knows ASCII alone."""
    out, err = folder / "stdout", folder / "stderr"
    told = ([str(part) for part in arguments], out, err)
    process = context().Process(target=_main, args=told)
    process.start()
    process.join()
    return Done(process.exitcode, out.read_bytes(), err.read_bytes())


@pytest.mark.parametrize("form", ["markdown", "latex", "csv", "json"])
def test_the_names_of_a_ledger_do_not_reach_the_terminal_raw(nlora, tmp_path, form):
    named = row(stream=NASTY)
    named["cell"]["method"] = f"n-lora:{NASTY}"
    ledger = write(tmp_path / "l.jsonl", [named])
    done = nlora("table", ledger, "--format", form)
    assert done.exit_code == 0, done.stderr
    assert raw(done.stdout) == []
    escapes = {"json": "\\u001b[2J", "latex": "U+001B"}
    assert escapes.get(form, "\\x1b[2J") in done.stdout
    if form == "json":
        rows = [line for table in json.loads(done.stdout) for line in table["rows"]]
        assert any(f"n-lora:{NASTY}" in line.values() for line in rows)


def test_labels_and_texts_are_visible_in_a_dry_run_and_in_errors(nlora, llama, tmp_path):
    rows = [{"text": f"{NASTY} {i}", "label": NASTY.strip() + "ab"[i % 2]} for i in range(12)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    entry = f"[{{name: t, train: {tmp_path}/t.jsonl, labels: auto}}]"
    (tmp_path / "s.yaml").write_text(entry)
    command = ("--stream", tmp_path / "s.yaml", "--model", llama, "--method", "inc-lora")
    done = nlora("run", *command, "--dry-run")
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "\\x1b[2J" in done.stdout
    assert raw(done.stdout + done.stderr) == []
    wrong = nlora("learn", tmp_path / "o", "--task", NASTY, "--model", llama, "--method", "ns")
    assert wrong.exit_code == 2
    assert raw(wrong.stderr) == []


def test_no_answer_is_lost_on_a_terminal_that_knows_ascii_alone(finished, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("Käse – 日本\n", encoding="utf-8")
    done = in_ascii(tmp_path, "predict", finished("inc-lora").out, texts, "--task", "colour")
    assert done.status == 0, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["text"] == "Käse – 日本"
    shown = in_ascii(tmp_path, "table", write(tmp_path / "l.jsonl", [row(stream="größe")]))
    assert shown.status == 0, shown.stderr
    assert b"gr\\xf6\\xdfe" in shown.stdout
    refused = in_ascii(tmp_path, "table", tmp_path / "größe")
    assert refused.status == 2
    assert b"gr\\xf6\\xdfe" in refused.stderr


def test_a_table_of_what_is_no_ledger_says_what_to_give(refused, finished, tmp_path):
    out = finished("inc-lora").out
    assert f"`nlora study row {out} > ledger.jsonl`" in refused("table", out)
    (tmp_path / "grid").mkdir()
    assert "without ledger.jsonl" in refused("table", tmp_path / "grid")
    write(tmp_path / "grid" / "ledger.jsonl", [row()])
    assert f"give its ledger, {tmp_path / 'grid' / 'ledger.jsonl'}" in refused(
        "table", tmp_path / "grid"
    )


@pytest.mark.parametrize("given", ["rank=true", "epochs=[1,true]", "learning_rate=true", "l1=true"])
def test_true_is_no_number(refused, given):
    command = ("run", "--model", "m", "--method", "n-lora", "--stream", "demo", "--out", "o")
    line = refused(*command, "--set", given)
    assert f"setting '{given.split('=')[0]}': must be a number" in line


OWN = """
from nlora.methods.inc_lora import IncLora

def helper(loss):
    return {"task": loss["tsk"]}

class Own(IncLora):
    name = "own"
    summary = "fails"

    def loss(self, ctx, batch):
        return helper(super().loss(ctx, batch))
"""


def test_an_own_method_that_fails_is_told_by_its_own_line(nlora, llama, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    stream = write_stream(tmp_path, "colour")
    command = ("run", "--stream", stream, "--method", "own", "--plugin", tmp_path / "own.py")
    command = (*command, "--model", llama, "--out", tmp_path / "out")
    done = nlora(*command)
    assert done.exit_code == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    expected = f"{tmp_path / 'own.py'}, line 5, in helper: KeyError: 'tsk' (return"
    assert said[0].startswith(f"error: {expected}")
    assert "transformers" not in done.stderr
    monkeypatch.setenv("NLORA_DEBUG", "1")
    assert isinstance(nlora(*command).exception, KeyError)
