"""What writes files, without a model: prepared in a folder, then done; for tests of crashes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from nlora.backbones.downloads import Download, ensure
from nlora.continual.copying import copy
from nlora.continual.taking_back import bring_back, prune, rollback
from nlora.report import ledger
from nlora.store.atomic import draft_text, new_folder, write_text
from nlora.store.directory import ModelDirectory, StageRecord
from nlora.store.locks import held
from nlora.store.manifests import Manifest
from nlora.store.pending import Version
from tests.faults import visible

RESULTS = {
    **{"tasks": ["task"], "stages": ["task"], "zero_shot": None, "accuracy_matrix": [[50.0]]},
    **dict.fromkeys(("average_accuracy", "learning_accuracy", "forgetting")),
    **dict.fromkeys(("backward_transfer", "forward_transfer")),
    **{"seconds": 2.5, "peak_memory_bytes": 10},
}
"""What `results.json` must hold."""


class Operation(NamedTuple):
    """What is there before, and what is done, both in a folder."""

    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    seen: Callable[[Path], dict[str, bytes]] = visible
    """What a reader sees."""
    at_once: bool = False
    """Whether a reader sees what was before or what is after, and never another step."""


def _nothing(folder: Path) -> None:
    pass


def _begin(folder: Path) -> None:
    directory = ModelDirectory(folder / "run")
    with directory.locked():
        directory.write_config({"model": "m"})


def _commit(folder: Path, index: int = 1) -> None:
    directory = ModelDirectory(folder / "run")

    def write(draft: Path) -> None:
        draft_text(draft / "losses.jsonl", '{"step": 1}\n')
        (draft / "update").mkdir()
        draft_text(draft / "update" / "weights", "1 2 3")

    with directory.locked():
        if all(record.index != index for record in directory.stages()):
            updates = [f"{i:03d}-task" for i in range(1, index + 1)]
            record = StageRecord(index=index, name="task", manifest=Manifest(adds=updates))
            directory.commit(record, write)
        directory.write_results({**RESULTS, "average_accuracy": 50.0 + index})


def _begun(folder: Path) -> None:
    _begin(folder)
    _commit(folder)


def _second(folder: Path) -> None:
    _commit(folder, 2)


def _kept_aside(folder: Path) -> None:
    directory = ModelDirectory(folder / "run")

    def write(draft: Path) -> None:
        (draft / "update").mkdir()
        draft_text(draft / "update" / "weights", "1 2 3")

    with directory.locked():
        manifest = Manifest(adds=["002-task"])
        if directory.pending.record() is None and len(directory.stages()) == 1:
            versions = {
                name: Version(StageRecord(index=2, name="task", manifest=manifest), write)
                for name in ("as-trained", "repaired")
            }
            directory.pending.keep(versions)


def _pending(folder: Path) -> None:
    _begun(folder)
    _kept_aside(folder)


def _accepted(folder: Path, version: str = "as-trained") -> None:
    directory = ModelDirectory(folder / "run")
    with directory.locked():
        if directory.pending.record() is not None:
            directory.pending.accept(version)
        directory.write_results({"average_accuracy": 50.0 + len(directory.stages())})


def _repaired(folder: Path) -> None:
    _accepted(folder, "repaired")


def _discarded(folder: Path) -> None:
    directory = ModelDirectory(folder / "run")
    with directory.locked():
        directory.pending.remove()


def _row(folder: Path) -> None:
    ledger.write(folder / "ledger.jsonl", {"cell": 1, "error": "no luck"})


def _another_row(folder: Path) -> None:
    ledger.write(folder / "ledger.jsonl", {"cell": 2, "seconds": 1.0})


def _better_row(folder: Path) -> None:
    ledger.write(folder / "ledger.jsonl", {"cell": 1, "seconds": 1.0})


def _export(folder: Path) -> None:
    out = folder / "new" / "plain"
    with held(out):
        if out.exists():
            return
        with new_folder(out, out.with_name(".plain.partial")) as draft:
            draft_text(draft / "config.json", "{}")
            draft_text(draft / "model.safetensors", "weights")


def _answers(folder: Path) -> None:
    write_text(folder / "answers.jsonl", '{"answer": "yes"}\n')


def _fetch(folder: Path) -> None:
    def write(draft: Path, say: Callable[[str], None]) -> None:
        draft_text(draft / "config.json", "{}")
        draft_text(draft / "model.safetensors", "weights")

    class Here(Download):
        @property
        def path(self) -> Path:
            return folder / "cache" / self.folder

    ensure(Here("hub", "tiny", "Tiny", "abc", write), lambda line: None)


def _damaged(folder: Path) -> None:
    _fetch(folder)
    (folder / "cache" / "tiny" / "model.safetensors").write_text("half")


def _three_stages(folder: Path) -> None:
    directory = ModelDirectory(folder / "run")
    with directory.locked():
        directory.write_config({"model": "m", "method": "inc-lora"})
    for index in (1, 2, 3):
        _commit(folder, index)


def _as_read(folder: Path) -> dict[str, bytes]:
    """A model directory as nlora reads it."""
    directory = ModelDirectory(folder / "run")
    stages = [record.folder for record in directory.stages()]
    undone = [[one.path.name, *one.stages] for one in directory.undone.rollbacks()]
    values = {"stages": stages, "undone": undone, "results": directory.results()}
    return {name: json.dumps(value).encode() for name, value in values.items()}


def _roll_back(folder: Path) -> None:
    with patch("nlora.continual.taking_back.now", lambda: "2026-01-01T00:00:00+00:00"):
        rollback(folder / "run", "1")


def _bring_back(folder: Path) -> None:
    directory = ModelDirectory(folder / "run")
    if len(directory.stages()) == 1:
        bring_back(folder / "run")
    with directory.locked():  # who comes next finishes what was begun
        pass


def _rolled_back(folder: Path) -> None:
    _three_stages(folder)
    _roll_back(folder)


def _prune(folder: Path) -> None:
    prune(folder / "run")


def _one_stage(folder: Path) -> None:
    _begun(folder)
    ModelDirectory(folder / "run").write_config({"model": "m", "method": "inc-lora"})


def _archive(folder: Path) -> None:
    if not (folder / "copy.tar").exists():
        copy(folder / "run", folder / "copy.tar")


OPERATIONS: dict[str, Operation] = {
    "a directory is begun": Operation(_nothing, _begin),
    "the first stage and its results": Operation(_begin, _commit),
    "another stage and its results": Operation(_begun, _second),
    "a stage that the guard refuses": Operation(_begun, _kept_aside),
    "a refused stage accepted": Operation(_pending, _accepted),
    "a refused stage accepted as repaired": Operation(_pending, _repaired),
    "a refused stage discarded": Operation(_pending, _discarded),
    "the first row of a ledger": Operation(_nothing, _row),
    "another row of a ledger": Operation(_row, _another_row),
    "a row in place of a failed one": Operation(_row, _better_row),
    "an export": Operation(_nothing, _export),
    "answers into a file": Operation(_nothing, _answers),
    "a download": Operation(_nothing, _fetch),
    "a download in place of a damaged one": Operation(_damaged, _fetch),
    "two stages are taken back": Operation(_three_stages, _roll_back, _as_read, True),
    "two stages are brought back": Operation(_rolled_back, _bring_back, _as_read, True),
    "a copy in an archive": Operation(_one_stage, _archive, at_once=True),
    "what was taken back is removed": Operation(_rolled_back, _prune, at_once=True),
}
