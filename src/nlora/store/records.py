"""`stage.json`: what is known of one committed stage, sealed by its own hash."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from nlora.checksum import sha256
from nlora.errors import NloraError
from nlora.store.atomic import draft_text, indented
from nlora.store.manifests import LISTED, Manifest, listed
from nlora.store.reading import Finite, Kind, Measured, check, read_json
from nlora.store.record_values import check_values

FORMAT = 3
"""From 2 on a record has its hash, from 3 on a manifest in place of a list of all updates."""
SEAL = "sha256"
VALUES = "state.json"
"""What a method remembers but for its tensors (`store.state`)."""
_NEEDED = ("index", "name", "manifest", "accuracy", "files")
"""What every record has."""


class Part(Kind):
    """How the tests that one stage of a task brought were answered, per cent."""

    rows: int
    accuracy: Finite
    among_labels: Finite | None = None


class Offsets(Kind):
    """How the scores of a task's labels are corrected before the best is the answer
    (`evaluation.matching`)."""

    offsets: dict[str, Measured]
    """What is added, by label."""
    scale: float = Field(1.0, gt=0, le=1e100, allow_inf_nan=False)
    """What the scores are multiplied by before."""


class StageRecord(Kind):
    """`stage.json`: all that is known of one committed stage."""

    model_config = ConfigDict(extra="ignore")

    format: int = FORMAT
    index: int = Field(ge=0)
    """0 for the zero-shot evaluation, then 1, 2, …"""
    name: str
    tasks: list[dict] = Field(default_factory=list)
    fingerprints: dict[str, str] = Field(default_factory=dict)
    """Of the data of each task trained or tested here."""
    sources: dict[str, dict] = Field(default_factory=dict)
    """How to read it again, by task, where it is in files; a copy for others leaves it out."""
    seed: int = 0
    manifest: Manifest = Field(default_factory=Manifest)
    """Which updates, in order, make up the model after this stage."""
    budget: dict[str, Any] = Field(default_factory=dict)
    """Limits, learning rate, epochs and the like of this stage; rows used and there, by task."""
    examples: int = 0
    steps: int = 0
    trainable_parameters: int = 0
    accuracy: dict[str, Finite] = Field(default_factory=dict)
    """Per cent by task, of the model as it was after this stage."""
    among_labels: dict[str, float] = Field(default_factory=dict)
    """Likewise where the answer is the most likely of the task's labels, whatever greedy decoding
    says, by task that has labels."""
    off_list: dict[str, float] = Field(default_factory=dict)
    """Per cent of answers that are none of the task's labels, by task that has labels."""
    matched: dict[str, Offsets] = Field(default_factory=dict)
    """By earlier task, the correction that this stage put in force with its update."""
    kl: dict[str, Finite] = Field(default_factory=dict)
    """By task, how far the stage moved the model: the mean KL(before ‖ after) in nats at answers,
    where it was measured."""
    tested: dict[str, int] = Field(default_factory=dict)
    parts: dict[str, dict[str, Part]] = Field(default_factory=dict)
    """Of each task with several stages, by the folder of the stage that brought the tests."""
    by_label: dict[str, Any] = Field(default_factory=dict)
    """By task and label: precision, recall, support, and what its examples were answered with."""
    notes: dict[str, Any] = Field(default_factory=dict)
    """What the method and its adapter recorded, such as the measured weight of a penalty."""
    finished: str = ""
    """When it was committed, in UTC (ISO 8601); earlier versions did not say."""
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_bytes: int = 0
    versions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every other file of the stage."""

    @property
    def folder(self) -> str:
        """The name of the stage's folder: number and name, in characters fit for a file."""
        return stage_folder(self.index, self.name)


class TestRow(Kind):
    """A line of `test.jsonl`."""

    task: str
    text: str
    label: str


class AnswerRow(Kind):
    """A line of `predictions.jsonl`."""

    task: str
    correct: bool


class StepRow(Kind):
    """A line of `losses.jsonl`: numbers by name."""

    __pydantic_extra__: dict[str, float]


def tracked(step: Mapping[str, float]) -> dict[str, float]:
    """A line of `losses.jsonl` under the names that trackers and pages have for it.

    >>> tracked({"step": 1, "epoch": 0.5, "learning_rate": 0.1, "gradient_norm": 2.0, "task": 3.0})
    {'learning_rate': 0.1, 'gradient_norm': 2.0, 'loss/task': 3.0}
    """
    plain = {k for k in step if k == "learning_rate" or k.endswith("gradient_norm")}
    return {
        k if k in plain else f"loss/{k}": v for k, v in step.items() if k not in ("step", "epoch")
    }


def now() -> str:
    """The time, as records have it: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=1 << 16)  # asked of every record of a directory, again and again
def stage_folder(index: int, name: str) -> str:
    """A stage's number and name, in characters fit for a file.

    >>> stage_folder(1, "../sst 2")
    '001-..-sst-2'
    """
    return f"{index:03d}-{re.sub(r'[^A-Za-z0-9._+-]+', '-', name)}"


def sealed(record: StageRecord) -> str:
    """The text of `stage.json`, with a hash of all else in it."""
    return sealed_text(record.model_dump() | {"format": FORMAT})  # also what is of an older one


def sealed_text(values: dict[str, Any]) -> str:
    """The text of a JSON file, with a hash of all else in it."""
    written = json.loads(json.dumps(values))  # as it is read again
    return indented({**written, SEAL: seal(written)})


def unsealed(values: dict[str, Any], path: Path, form: int) -> dict[str, Any]:
    """Values without their hash, which those of format 1 do not have.

    Raises NloraError if it is not theirs.
    """
    if form > 1 and values.get(SEAL) != seal(values):
        raise NloraError(f"{path} was changed or damaged: its hash is not the recorded one")
    return {name: value for name, value in values.items() if name != SEAL}


def fill(folder: Path, record: StageRecord, write: Callable[[Path], None]) -> None:
    """Fill the folder of a stage: what `write` puts there, and the record with the hashes of it."""
    write(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    record.files = {p.relative_to(folder).as_posix(): sha256(p) for p in files}
    draft_text(folder / "stage.json", sealed(record))


def seal(values: dict[str, Any]) -> str:
    """The SHA-256 of a record without its own hash, however it is laid out."""
    rest = {name: value for name, value in values.items() if name != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_record(path: Path) -> StageRecord:
    """A stage's record. Raises NloraError, with file and key, for what is none or was changed.

    Records of format 1 have no hash, and are taken as they are.
    """
    values = read_json(path)
    form = values.get("format", FORMAT)
    if isinstance(form, int) and form > FORMAT:
        raise NloraError(
            f"{path} is of format {form}, which a later version of nlora writes; this one reads "
            f"up to {FORMAT}"
        )
    today = listed(values, path) if form in LISTED else values
    for name in _NEEDED:
        if name not in today:
            raise NloraError(f"{path}: '{name}' is missing; the file was changed or damaged")
    record = check(StageRecord, today, path)
    check_values(record, path)
    unsealed(values, path, record.format)
    if wrong := misnamed(record, path.parent.name):
        raise NloraError(f"{path} {wrong}")
    return record


def misnamed(record: StageRecord, folder: str) -> str | None:
    """What of a record's names cannot be: that of its folder, or a file outside of it."""
    if record.folder.lstrip("0") != folder.lstrip("0"):
        return f"is the record of stage {record.folder}, which is another one"
    for name in record.files:
        if name[:1] in ("", "/") or "\\" in name or not {".", ".."}.isdisjoint(name.split("/")):
            return f"has 'files' that names {name!r}, a path outside it"
    return None


def committed(records: Iterable[StageRecord]) -> dict[str, str]:
    """When each stage was committed, by folder: another model has others, or other times."""
    return {record.folder: record.finished for record in records}


def taken_out(records: Iterable[StageRecord]) -> set[str]:
    """The stages whose updates a later one has taken out of the model."""
    return {name for r in records for name in r.notes.get("taken_out", {}).get("stages", [])}


def standing(records: Sequence[StageRecord]) -> list[StageRecord]:
    """The stages that were accepted, and that no later one has taken out of the model."""
    out = taken_out(records)
    return [r for r in records if r.folder not in out and "rejected" not in r.notes]
