"""From the published files of TRACE and of SAPT to data sets of a data folder.

TRACE publishes `<Task>/{train,eval,test}.json`, arrays of `{"prompt", "answer"}`; SAPT publishes
`<task>/{train,dev,test}.json`, each one object with "Definition" and "Instances". Both become
`<Group>/<Task>/{train,dev,test}.json`, arrays of `{"label", "sentence"}`, and `task.json`.
"""

from __future__ import annotations

import json
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from nlora.data.published import GROUPS, METRICS, SOURCES
from nlora.data.rows import decoded, read_array, read_bytes
from nlora.data.writing import write_rows, writing
from nlora.errors import NloraError, unknown

SPLITS = {"TRACE": ("train", "eval", "test"), "SuperNI": ("train", "dev", "test")}
MAX_FILE = 2**28
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(OSError, RuntimeError, EOFError, ValueError),
)

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Converted:
    """A group's new folder, and of which files how many rows were left out: an empty answer."""

    folder: Path
    dropped: dict[str, int]


def convert(name: str, source: Path, data: Path) -> Converted:
    """Convert the published files of a collection (`trace`, `superni-15`) into a data folder.

    `source` is the publisher's zip or a folder with its files, however deep; where there are
    several sizes of one task (TRACE has 500, 1,000 and 5,000 examples) that of 5,000 is taken.
    The group's new folder in `data` appears by one rename. Rows with an empty text or answer are
    left out.

    Raises NloraError when the name is unknown, the folder is there already, or the source lacks a
    file or holds another than the published layout.
    """
    if name not in SOURCES:
        raise unknown("collection", name, SOURCES)
    group = SOURCES[name]
    target = data.expanduser() / group
    if target.exists():
        raise NloraError(f"{target} exists already; remove it or choose another folder")
    dropped: dict[str, int] = {}
    with _files(source.expanduser(), group) as files, writing(target) as work:
        for task in GROUPS[group]:
            splits, description = _READERS[group](files, task)
            described = description | {"metric": METRICS[task]}
            write_rows(work / task / "task.json", {k: v for k, v in described.items() if v})
            for split, rows in splits.items():
                full = [row for row in rows if row["label"].strip() and row["sentence"].strip()]
                if not full and split != "dev":
                    raise NloraError(f"{source}: no examples in {task}, {split}")
                if len(full) < len(rows):
                    dropped[f"{task}/{split}.json"] = len(rows) - len(full)
                if full:
                    write_rows(work / task / f"{split}.json", full)
    return Converted(target, dropped)


@dataclass(frozen=True, slots=True)
class _Published:
    """A published file: what it is called in errors, and where it has been unpacked to."""

    title: Path
    path: Path

    def text(self) -> str:
        return decoded(read_bytes(self.path), self.title)


Files = dict[tuple[str, str], _Published]


def _trace(files: Files, task: str) -> tuple[dict[str, list[Row]], dict[str, str]]:
    found = {}
    for ours, split in zip(("train", "dev", "test"), SPLITS["TRACE"], strict=True):
        file = files.get((task, split))
        rows = read_array(file.title, file.text()) if file else None
        pairs = []
        for i, row in enumerate(rows.values if rows else ()):
            assert rows is not None
            pairs.append((_text(row, "prompt", rows.place(i)), _text(row, "answer", rows.place(i))))
        found[ours] = pairs
    prompts = [prompt for pairs in found.values() for prompt, _ in pairs if prompt.strip()]
    head = _common_lines(prompts)
    rows = {
        split: [{"label": answer, "sentence": prompt[len(head) :]} for prompt, answer in pairs]
        for split, pairs in found.items()
    }
    return rows, {"instruction": head.strip()}


def _superni(files: Files, task: str) -> tuple[dict[str, list[Row]], dict[str, str]]:
    found: dict[str, list[Row]] = {}
    definition = ""
    for split in SPLITS["SuperNI"]:
        file = files.get((task, split))
        if file is None:
            found[split] = []
            continue
        path, content = file.title, _object(file)
        definition = _first(content.get("Definition"), f"{path}: 'Definition'")
        instances = content.get("Instances")
        if not isinstance(instances, list):
            raise NloraError(f"{path}: no list 'Instances'")
        found[split] = [
            {
                "label": _first(_value(row, "output", place), f"{place}: 'output'"),
                "sentence": "Input: " + _text(row, "input", place),
            }
            for place, row in ((f"{path}, instance {i + 1}", r) for i, r in enumerate(instances))
        ]
    instruction = f"Definition: {definition}\n\nNow complete the following example -"
    return found, {"instruction": instruction}


_READERS: dict[str, Callable[[Files, str], tuple[dict[str, list[Row]], dict[str, str]]]] = {
    "TRACE": _trace,
    "SuperNI": _superni,
}


def _common_lines(texts: list[str]) -> str:
    """The whole lines that all texts begin with, at least one line of each left over."""
    first, last = min(texts, default=""), max(texts, default="")
    same = [
        a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    ]
    head = "".join(same)
    head = head[: head.rfind("\n") + 1]
    while head and any(text.strip() and not text[len(head) :].strip() for text in texts):
        head = head[: head.rfind("\n", 0, -1) + 1]
    return head


def _value(row: object, key: str, place: str) -> Any:
    if not isinstance(row, dict) or key not in row:
        raise NloraError(f"{place}: no '{key}'; not the published layout")
    return row[key]


def _text(row: object, key: str, place: str) -> str:
    value = _value(row, key, place)
    if not isinstance(value, str):
        raise NloraError(f"{place}: '{key}' must be text")
    return _whole(value, f"{place}: '{key}'")


def _first(value: object, where: str) -> str:
    """The text, or the first of a list of texts: an instance may have several right answers."""
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, str):
        raise NloraError(f"{where} must be text")
    return _whole(value, where).strip()


def _whole(text: str, where: str) -> str:
    """The text. Raises NloraError where it holds what UTF-8 cannot write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NloraError(f"{where} holds half a character") from None
    return text


def _object(file: _Published) -> dict[str, Any]:
    try:
        value = json.loads(file.text())
    except (ValueError, RecursionError) as error:
        raise NloraError(f"{file.title}: malformed JSON: {error}") from None
    if not isinstance(value, dict):
        raise NloraError(f"{file.title}: must be one JSON object with 'Definition' and 'Instances'")
    return value


@contextmanager
def _files(source: Path, group: str) -> Iterator[Files]:
    """The published files by task and split; those of a zip are unpacked for as long."""
    if source.is_dir():
        names = [p.relative_to(source).as_posix() for p in sorted(source.rglob("*.json"))]
        wanted = _wanted(names, group, source)
        yield {key: _Published(source / name, source / name) for key, name in wanted.items()}
        return
    try:
        archive = zipfile.ZipFile(source)
    except FileNotFoundError:
        raise NloraError(f"no such file: {source}") from None
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise NloraError(f"{source}: neither a folder nor a zip ({error})") from None
    with archive, tempfile.TemporaryDirectory() as folder:
        found = {}
        for (task, split), name in _wanted(archive.namelist(), group, source).items():
            path = Path(folder, task, f"{split}.json")
            path.parent.mkdir(exist_ok=True)
            found[task, split] = _Published(source / name, path)
            try:
                with archive.open(name) as member:
                    content = member.read(MAX_FILE + 1)
            except _DAMAGED as error:
                raise NloraError(f"{source}: cannot read {name}: {error}") from None
            if len(content) > MAX_FILE:
                raise NloraError(f"{source}: {name} is longer than {MAX_FILE:,} bytes")
            path.write_bytes(content)
        yield found


def _wanted(names: list[str], group: str, source: Path) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for task in GROUPS[group]:
        for split in SPLITS[group]:
            end = (task, f"{split}.json")
            named = [name for name in names if PurePosixPath(name).parts[-2:] == end]
            if len(named) > 1:
                named = [name for name in named if "_5000/" in name] or named
            if len(named) > 1:
                raise NloraError(f"{source}: holds {named[0]} and {named[1]}; name one's folder")
            if not named and split in ("train", "test"):
                raise NloraError(f"{source}: no {'/'.join(end)} in it")
            if named:
                found[task, split] = named[0]
    return found
