"""Streams by name: the paper's six orders and those of other papers, the demo, data sets, and a
user's own YAML file."""

import os
from dataclasses import replace
from pathlib import Path

from nlora.data import published
from nlora.data.benchmark import DATASETS, canonical, find_datasets, load_task
from nlora.data.files import read_stream
from nlora.data.formats import YAML, is_rows
from nlora.data.task import TaskData
from nlora.errors import NloraError, Several, option, unknown

ORDERS: dict[str, tuple[str, ...]] = {
    name: tuple(tasks.split())
    for name, tasks in {
        "order-1": "dbpedia amazon yahoo agnews",
        "order-2": "dbpedia amazon agnews yahoo",
        "order-3": "yahoo amazon agnews dbpedia",
        "order-4": "mnli cb wic copa qqp boolqa rte imdb yelp amazon sst-2 dbpedia agnews multirc "
        "yahoo",
        "order-5": "multirc boolqa wic mnli cb copa qqp rte imdb sst-2 dbpedia agnews yelp amazon "
        "yahoo",
        "order-6": "yelp amazon mnli cb copa qqp rte imdb sst-2 dbpedia agnews yahoo multirc "
        "boolqa wic",
    }.items()
}
"""Table 7 of the paper."""

STREAMS: dict[str, tuple[str, ...]] = ORDERS | published.ORDERS
"""All streams that are read from a data folder."""

KNOWN: dict[str, str] = DATASETS | published.FOLDERS
"""All data sets that have a name, and the folder of each in a data folder."""

DEMO = "demo"


def stream_names() -> list[str]:
    """The streams that have a name: the demo, the six orders, and those of other papers."""
    return [DEMO, *STREAMS]


def check_task(name: str, data: Path | None) -> None:
    """Raise NloraError, with what a task may be, for a name that is none of a data set or stream.

    Data sets are those that have a name, and those of the folder `data`; near names are those of
    files beside, too.
    """
    found = KNOWN if data is None else KNOWN | find_datasets(data)
    if "," in name or name.strip().lower() in stream_names() or canonical(name) in found:
        return
    path = Path(os.path.expanduser(name))
    beside = [str(file) for file in path.parent.glob("*") if is_rows(str(file))]
    listed = "`nlora streams` lists the data sets that have a name"
    near = unknown("task", name, [*found, *beside], listed)
    raise NloraError(
        f"{near} (a file of rows is named with its ending, as in reviews.csv, .jsonl or .parquet; "
        "a task of your own by a YAML file, as in task.yaml)"
    )


def load_stream(stream: str, data: Path | None) -> list[TaskData]:
    """The tasks of a stream, in order.

    `stream` is one of `stream_names()`, a data set, several of them separated by commas, or a YAML
    file (see `nlora.data.files`). `data` is the benchmark's folder; the demo and YAML files do not
    need it. Raises NloraError for an unknown name, a data set that is named twice, and all that is
    wrong with the files.
    """
    name = stream.strip().lower()
    if name == DEMO:
        from nlora.data.demo import demo_stream

        return demo_stream()
    path = Path(os.path.expanduser(stream))
    known = name in STREAMS or canonical(name) in KNOWN
    if not known and (path.suffix.lower() in YAML or os.path.isfile(path)):
        try:
            return read_stream(path)
        except NloraError as error:
            if path.suffix.lower() in YAML or isinstance(error, Several):
                raise
            raise NloraError(
                f"{stream} is no stream, which is a name, data sets with commas between, or a YAML "
                f"list of tasks: {error}"
            ) from error
    names = STREAMS.get(name) or tuple(canonical(part) for part in stream.split(","))
    twice = [part for i, part in enumerate(names) if part in names[:i]]
    if twice:
        raise NloraError(f"stream '{stream}' has data set '{twice[0]}' twice")
    found = KNOWN if data is None else KNOWN | find_datasets(data)
    for part in names:
        if part not in found:
            if len(names) == 1:
                raise unknown("stream", stream, [*stream_names(), *found])
            raise unknown("data set", part, found)
    if data is None:
        other = any(part in published.FOLDERS for part in names)
        what = "files of another paper (`nlora data convert`)" if other else "the benchmark"
        raise NloraError(
            f"stream '{stream}' reads {what}: give {option('data')} or set NLORA_DATA"
            + ("" if other else " (`nlora data download` fetches it)")
        )
    place = os.path.abspath(data)
    return [
        replace(load_task(data, part), origin={"dataset": part, "data": place}) for part in names
    ]
