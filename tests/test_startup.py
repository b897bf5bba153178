"""What a command imports: what needs no model starts without PyTorch, and answering without more.

Seconds differ between machines; what is imported does not.
"""

import json
import subprocess
import sys

import pytest

from nlora.continual.learning import run
from tests.report.rows import row, write
from tests.runs import config, write_stream

SLOW = {"torch", "transformers", "peft", "accelerate", "scipy", "sklearn", "datasets"}


@pytest.fixture(scope="module")
def trained(t5, tmp_path_factory):
    """A directory that has learned one task."""
    folder = tmp_path_factory.mktemp("startup")
    run(config(t5, write_stream(folder, "colour"), max_train=4), folder / "out")
    return folder / "out"


IN_ONE_PROCESS = """
import json, sys
import nlora
imported = {"import nlora": [*sys.modules]}
from nlora.cli.app import main
for line in json.load(sys.stdin):
    sys.argv = ["nlora", *line]
    try:
        main()
        status = 0
    except SystemExit as stopped:
        status = stopped.code or 0
    imported[" ".join(line)] = [status, *sys.modules]
print("\\n" + json.dumps(imported))
"""


def modules_after(*lines):
    """By command: its exit status and the modules that are imported by then, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps([[str(word) for word in line] for line in lines]),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_what_needs_no_model_imports_no_library_of_models(tmp_path, trained):
    ledger = write(tmp_path / "ledger.jsonl", [row(stream="order-1", seed=s) for s in (0, 1)])
    found, _ = modules_after(
        ("--help",),
        ("methods", "n-lora"),
        ("methods",),
        ("streams",),
        ("streams", "--json"),
        ("models", "list"),
        ("table", ledger),
        ("history", trained),
    )
    assert not {"rich", "typer", "numpy", *SLOW}.intersection(found["import nlora"])
    for command, (status, *imported) in list(found.items())[1:]:
        assert status == 0, command
        assert not SLOW.intersection(imported), command


def test_what_is_refused_is_refused_before_a_library_of_models_is_imported(tmp_path, trained):
    texts = tmp_path / "texts.txt"
    texts.write_text("a red apple\n", encoding="utf-8")
    on_demo = ("--model", "tiny-t5", "--stream", "demo", "--out", tmp_path / "out")
    again = ("--config", trained / "model.json", "--out", trained)
    refused = {
        ("run", "--strem", "demo"): "--strem",
        ("run", "--method", "n-lor", *on_demo): "'n-lor'",
        ("run", "--method", "n-lor", "--dry-run", *on_demo): "'n-lor'",
        ("run", "--method", "n-lora", "--set", "rnk=3", *on_demo): "'rnk'",
        ("run", "--method", "n-lora", "--set", "rank=-1", *on_demo): "'rank'",
        ("run", "--config", tmp_path / "none.yaml"): "none.yaml",
        ("compare", "--methods", "n-lora:rnk=3", *on_demo): "'rnk'",
        ("predict", trained, tmp_path / "none.txt"): "none.txt",
        ("predict", tmp_path / "none", texts): "holds no model",
        ("predict", trained, texts, "--task", "nosuch"): "'nosuch'",
        ("export", tmp_path / "none", tmp_path / "out"): "holds no model",
        ("serve", tmp_path / "none", "--port", 0): "holds no model",
        ("export", trained, texts): "is there already",
        ("run", *again, "--seed", "7"): "different configuration (seed 0, not 7)",
        ("compare", "--methods", "n-lora", *on_demo[:-1], trained): "not a comparison's folder",
        ("table", trained): "is a model directory and no ledger",
        ("study", "row", tmp_path / "none"): "none/model.json does not exist",
        ("study", "rescale", tmp_path / "none", "--out", tmp_path / "l"): "does not exist",
        ("learn", trained, "--task", tmp_path / "none.yaml"): "none.yaml",
        ("analyze", tmp_path / "none"): "none",
        ("explain", tmp_path / "none"): "holds no model",
        ("explain", trained, "--kinds", "trian"): "'trian'",
    }
    found, errors = modules_after(*refused)
    for line, reason in zip(errors.splitlines(), refused.values(), strict=True):
        assert reason in line
    for command, (status, *imported) in list(found.items())[1:]:
        assert status == 2, command
        assert not SLOW.intersection(imported), command


def test_answers_need_no_trainer(tmp_path, trained):
    texts = tmp_path / "texts.txt"
    texts.write_text("a red apple\n", encoding="utf-8")
    found, errors = modules_after(("predict", trained, texts))
    [(status, *imported)] = list(found.values())[1:]
    assert status == 0
    assert "torch" in imported
    left_out = {"transformers.trainer", "nlora.training", "sklearn", "datasets", "tensorflow"}
    assert not left_out.intersection(imported)
    for noise in ("warn", "it/s", "%|"):  # of the libraries: warnings and progress bars
        assert noise not in errors.lower()
