"""Which families of models work: a tiny random model of each, made from its own configuration.

    python -m benchmarks.families [NAME …] [--again] [--processes 2] [--limit 120]

Every decoder-only and encoder-decoder family that Transformers knows learns two tasks with `n-lora`
and with `inc-lora` and `routing=input`; a run that was stopped after its first task goes on; then
come `predict`, `export` (loaded again) and `analyze`. Each family has a process of its own. What is
in docs/results/families.jsonl already for these versions is not tried again without `--again`, and
with it only what another source of the package was tried with, so that a sweep that was stopped
goes on. The table is written from all of it.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import tempfile
import textwrap
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.tiny_families import make

import nlora

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "families.jsonl"
TABLE = RESULTS.with_suffix(".md")

MOST_USED = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neox",
    "opt",
    "bloom",
    "falcon",
    "mixtral",
    "gpt_oss",
    "t5",
    "mt5",
    "bart",
]

NO_TEXT = {
    "reads or writes sound or pictures, not text alone": [
        "audioflamingo3",
        "glmasr",
        "granite_speech",
        "granite_speech_plus",
        "musicflamingo",
        "nemo_speechlm",
        "omniasr",
        "qwen2_audio",
        "qwen3_asr",
        "seamless_m4t",
        "seamless_m4t_v2",
        "vibevoice_asr",
        "voxtral",
        "voxtral_realtime",
        "whisper",
        "musicgen",
        "musicgen_melody",
        "moshi",
        "moss_transcribe_diarize",
        "trocr",
        "git",
        "got_ocr2",
        "fuyu",
        "mllama",
        "emu3",
        "phi4_multimodal",
    ],
    "is a part of another model: it cannot be loaded by itself": [
        "gemma4_assistant",
        "gemma4_unified_assistant",
        "encoder-decoder",
    ],
}


def families() -> list[str]:
    """The names of all families, those with an encoder last."""
    from transformers.models.auto import modeling_auto as auto

    decoders = list(auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    both = auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    return decoders + [name for name in both if name not in decoders]


class Stopped(Exception):
    """The run was stopped on purpose."""


def check(family: str, folder: Path, row: dict[str, Any]) -> None:
    """Do all with one family; `row` tells how far it came."""
    import torch
    from tests import runs
    from tests.runs import Listener

    from nlora.analysis.adapters import read_adapters
    from nlora.analysis.report import analyse
    from nlora.backbones.catalog import find
    from nlora.backbones.load import load
    from nlora.continual.answering import predict
    from nlora.continual.export import export
    from nlora.continual.learning import run
    from nlora.lowrank.supports import Threshold

    row["step"] = "make"
    model = folder / "model"
    row["parameters"] = make(family, model)
    stream = runs.write_stream(folder, "colour", "animal", train=6, test=3)
    settings = {**runs.FAST, "batch_size": 2}

    class Stops(Listener):
        def start(self, title: str, total: int) -> None:
            super().start(title, total)
            if sum("evaluation" not in each for each in self.titles) == 2:
                raise Stopped

    row["step"] = "run"
    weighed = {**settings, "l1": 1e-4, "l1_unit": "sum"}  # from the first of few steps on
    ours = runs.config(model, stream, weighed, method="n-lora")
    try:
        run(ours, folder / "n-lora", Stops())
    except Stopped:
        row["step"] = "resume"
    else:
        raise AssertionError("the run was not stopped")
    run(ours, folder / "n-lora")
    config = json.loads(
        (folder / "n-lora/stages/001-colour/update/adapter_config.json").read_text()
    )
    row["target_modules"] = config["target_modules"]
    row["step"] = "routing=input"
    routed = runs.config(
        model, stream, {**settings, "consolidation": "none", "routing": "input"}, method="inc-lora"
    )
    run(routed, folder / "routed")
    row["step"] = "predict"
    texts = ["xxx 1", "yyy 2", ""]
    before = [a.answer for a in predict(folder / "n-lora", texts, "colour")]
    predict(folder / "routed", texts)
    row["step"] = "export"
    export(folder / "n-lora", folder / "plain")
    load(find(str(folder / "plain")), torch.float32)
    assert len(before) == len(texts)
    row["step"] = "analyze"
    analyse(read_adapters([str(folder / "n-lora")]), [Threshold.parse("0.1rms")])
    row["step"] = None


def tried(family: str, path: str) -> None:
    """Check a family in this process and write its row."""
    warnings.filterwarnings("ignore")
    row: dict[str, Any] = {"family": family}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NLORA_CACHE"] = folder
        try:
            check(family, Path(folder), row)
            row["works"] = True
        except BaseException as error:
            needs = row["step"] == "make" and isinstance(error, ImportError)
            row["works"] = None if needs else False
            row["reason"] = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            row["trace"] = traceback.format_exc()
    row["seconds"] = round(time.perf_counter() - started, 1)
    Path(path).write_text(json.dumps(row), encoding="utf-8")


def measure(family: str, limit: float) -> dict[str, Any]:
    """The row of a family, checked in a process of its own for at most `limit` seconds."""
    for reason, names in NO_TEXT.items():
        if family in names:
            return {"family": family, "works": None, "reason": reason}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        process = multiprocessing.get_context("fork").Process(
            target=tried, args=(family, str(path))
        )
        process.start()
        process.join(limit)
        if process.is_alive():
            process.kill()
            process.join()
            return {"family": family, "works": False, "reason": f"not done in {limit:.0f} s"}
        if not path.is_file():
            reason = f"the process ended with status {process.exitcode}"
            return {"family": family, "works": False, "reason": reason}
        return json.loads(path.read_text(encoding="utf-8"))


def source_digest() -> str:
    """The first 12 hex digits of a hash of every file of the package's source."""
    found = hashlib.sha256()
    for path in sorted(Path(nlora.__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def write(rows: dict[str, dict[str, Any]], versions: dict[str, str]) -> None:
    """The rows as JSON lines and as a table."""
    order = sorted(rows)
    lines = [json.dumps({k: v for k, v in rows[n].items() if k != "trace"}) for n in order]
    RESULTS.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    asked = [n for n in order if rows[n]["works"] is not None]
    works = [n for n in asked if rows[n]["works"]]
    used = sum(n in works for n in MOST_USED)
    untried = [name for name in families() if name not in rows]
    head = f"""# Families of models

Written by `python -m benchmarks.families`, which says what is tried, with Transformers
{versions["transformers"]} and PEFT {versions["peft"]}, on random models of few thousand parameters.

{len(works)} of {len(asked)} families that read and write text work
({100 * len(works) / max(len(asked), 1):.1f} %), {used} of the {len(MOST_USED)} most used:
{", ".join(MOST_USED)}.
{len(order) - len(asked)} more are no language models of texts alone.

{"Not tried yet: " + ", ".join(untried) + "." if untried else ""}

| family | works | adapted matrices, or the reason |
| --- | --- | --- |
"""
    table = []
    for name in order:
        row = rows[name]
        word = {True: "yes", False: "no", None: "not for text"}[row["works"]]
        targets = row.get("target_modules", [])
        targets = [targets] if isinstance(targets, str) else targets
        last = ", ".join(f"`{t}`" for t in targets) if row["works"] else row["reason"]
        if row.get("step"):
            last = f"at {row['step']}: {last}"
        table.append(f"| {name} | {word} | {last.replace('|', chr(92) + '|')} |\n")
    TABLE.write_text(head + "".join(table), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--again", action="store_true", help="also what is in the table already")
    parser.add_argument("--failed", action="store_true", help="again what failed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120, help="seconds a family may take")
    parser.add_argument("--traces", type=Path, help="a file for the tracebacks of failures")
    asked = parser.parse_args()

    import peft
    import tests.tiny  # noqa: F401
    import transformers

    transformers.utils.logging.set_verbosity_error()
    versions = {"transformers": transformers.__version__, "peft": peft.__version__}
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    rows = {row["family"]: row for row in map(json.loads, text.splitlines())}

    source = source_digest()

    def wanted(name: str) -> bool:
        if asked.again:
            return rows.get(name, {}).get("source") != source
        new = name not in rows or rows[name].get("versions", versions) != versions
        return new or (asked.failed and rows[name]["works"] is False)

    every = asked.names or [*MOST_USED, *(n for n in families() if n not in MOST_USED)]
    names = [name for name in every if asked.names or wanted(name)]
    with ThreadPoolExecutor(asked.processes) as pool:
        for row in pool.map(lambda name: measure(name, asked.limit), names):
            rows[row["family"]] = {**row, "versions": versions, "source": source}
            if asked.traces and "trace" in row:
                with asked.traces.open("a", encoding="utf-8") as file:
                    file.write(f"=== {row['family']}\n{row['trace']}\n")
            said = "works" if row["works"] else row["reason"]
            print(row["family"], row.get("step") or "", said, flush=True)
            write(rows, versions)


if __name__ == "__main__":
    main()
