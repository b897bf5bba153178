"""The benchmark's layout, `<Group>/<Dataset>/{train,dev,test,labels}.json`, by data set name.

A folder may have `task.json` instead of `labels.json`: an object with "instruction" and "metric",
both optional. Its answers are free text, and any name may be its group's.
"""

import json
from collections import Counter
from pathlib import Path

from nlora.data.examples import check_labels, to_examples
from nlora.data.prompts import INSTRUCTIONS
from nlora.data.published import FOLDERS
from nlora.data.rows import Report, read_array, read_text, stop
from nlora.data.task import Example, Task, TaskData
from nlora.errors import NloraError, unknown

DATASETS: dict[str, str] = {
    "dbpedia": "TC/dbpedia",
    "amazon": "SC/amazon",
    "yahoo": "TC/yahoo",
    "agnews": "TC/agnews",
    "mnli": "NLI/MNLI",
    "cb": "NLI/CB",
    "wic": "WiC/WiC",
    "copa": "COPA/COPA",
    "qqp": "QQP/QQP",
    "boolqa": "BoolQA/BoolQA",
    "rte": "NLI/RTE",
    "imdb": "SC/IMDB",
    "yelp": "SC/yelp",
    "sst-2": "SC/SST-2",
    "multirc": "MultiRC/MultiRC",
}
"""The 15 data sets of Table 7, and the folder that each has in the published benchmark."""

SPLITS = ("train", "dev", "test")

_ALIASES = {"ag": "agnews"}
# MNLI marks a pair on which its annotators did not agree; the published files still hold some.
_NO_GOLD_LABEL = {"mnli": ("-",)}


def canonical(name: str) -> str:
    """The name by which a data set is known: lower case, without alias.

    >>> canonical("SST-2"), canonical("ag")
    ('sst-2', 'agnews')
    """
    name = name.strip().lower()
    return _ALIASES.get(name, name)


def find_datasets(data: Path) -> dict[str, list[Path]]:
    """The folders of a data folder that hold a data set, by canonical name, sorted.

    A name has several folders where two groups use the same one. Raises NloraError when `data` is
    no folder or cannot be read.
    """
    if not data.is_dir():
        raise NloraError(
            f"no such data folder: {data}; `nlora data download` fetches the benchmark"
        )
    try:
        folders = sorted(path for path in data.glob("*/*") if _holds_dataset(path))
    except OSError as error:
        raise NloraError(f"cannot read {error.filename}: {error.strerror}") from None
    found: dict[str, list[Path]] = {}
    for folder in folders:
        found.setdefault(canonical(folder.name), []).append(folder)
    return found


def load_task(data: Path, name: str) -> TaskData:
    """The data set of this name (any case), with its splits; `dev` is empty where there is none.

    Raises NloraError, with file and line, for all that is wrong with the folder or its files.
    """
    name = canonical(name)
    found = find_datasets(data)
    if name not in found:
        if place := (DATASETS | FOLDERS).get(name):
            raise NloraError(f"data set '{name}' is not in {data}: no folder {place}")
        if not found:
            raise NloraError(f"no data sets in {data}: no folder <Group>/<Dataset> with train.json")
        raise unknown("data set", name, found)
    if len(found[name]) > 1:
        raise NloraError(ambiguous(name, found[name]))
    folder = found[name][0]
    task = read_task(name, folder)
    splits = {split: read_split(folder, split, task) for split in SPLITS}
    return TaskData(task, splits["train"], splits["test"], splits["dev"])


def ambiguous(name: str, folders: list[Path]) -> str:
    """The problem that two groups use one name."""
    return f"several folders are data set '{name}': {', '.join(map(str, folders))}; rename one"


def read_task(name: str, folder: Path) -> Task:
    """The task of a data set's folder, as `task.json` or group and `labels.json` describe it.

    Raises NloraError, with the file, for what is wrong with these.
    """
    own = folder / "task.json"
    if own.is_file():
        said = _described(own)
        return Task(
            name,
            instruction=said.get("instruction"),
            group=folder.parent.name,
            dataset=folder.name,
            metric=said.get("metric"),
        )
    return Task(
        name,
        instruction=read_instruction(folder),
        labels=read_labels(folder),
        group=folder.parent.name,
        dataset=folder.name,
    )


def _described(path: Path) -> dict[str, str]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise NloraError(f"{path}: malformed JSON: {error}") from None
    known = ("instruction", "metric")
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise NloraError(f"{path}: must be a JSON object with texts: {', '.join(known)}")
    for key in value:
        if key not in known:
            raise NloraError(f"{path}: {unknown('key', key, known)}")
    return value


def read_instruction(folder: Path) -> str | None:
    """The instruction of the data set's group. Raises NloraError when the group is unknown."""
    group = folder.parent.name
    if group not in INSTRUCTIONS:
        raise NloraError(
            f"{folder}: no instruction is known for group '{group}' (known are: "
            f"{', '.join(sorted(INSTRUCTIONS))}); give the task's own in a YAML stream"
        )
    return INSTRUCTIONS[group]


def read_labels(folder: Path) -> tuple[str, ...]:
    """The data set's labels, in the order of `labels.json`. Raises NloraError with the file."""
    path = folder / "labels.json"
    return check_labels(read_array(path).values, str(path))


def read_split(
    folder: Path,
    split: str,
    task: Task,
    report: Report = stop,
    left_out: Counter[str] | None = None,
) -> tuple[Example, ...]:
    """The examples of one split; a missing `dev` is an empty one.

    Rows whose label means that they have none are left out, and counted in `left_out`. Bad examples
    go to `report`, with file and line. Raises NloraError when the file is missing or is not a JSON
    array.
    """
    path = folder / f"{split}.json"
    if split == "dev" and not path.exists():
        return ()
    ignored = _NO_GOLD_LABEL.get(task.name, ())
    return to_examples(read_array(path), task, ("sentence",), report, ignored, left_out)


def _holds_dataset(folder: Path) -> bool:
    return any((folder / f"{part}.json").is_file() for part in (*SPLITS, "labels"))
