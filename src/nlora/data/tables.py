"""The rows of Parquet and Arrow files, of folders saved by `datasets`, and of `hf://` names.

`pyarrow` and `datasets` come with the extra `data`. No script of a data set is run, and nothing is
unpickled: `datasets` reads neither any more.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlora.data.compression import AT_LEAST, TIMES
from nlora.data.hub import hub_reachable, only_cached
from nlora.data.rows import Rows, check_names
from nlora.errors import NloraError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

HUB = "hf://"
_HUB_NAME = re.compile(
    r"hf://(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@#]+))?(@(?P<revision>[^#]+))?(#(?P<split>.+))?"
)
SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "validation", "dev", "valid"),
    "dev": ("validation", "dev", "valid", "val"),
}
"""What a data set of several splits calls each of ours; the first that it has is taken."""


def read_parquet(path: Path, data: bytes) -> Rows:
    """The rows of a Parquet file. Raises NloraError when it is damaged."""
    _needs("pyarrow", path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        return _rows(path, file.schema_arrow, file.iter_batches(), len(data), "Parquet")
    except (pa.ArrowException, OSError) as error:
        raise NloraError(f"{path}: damaged Parquet file ({_in_one_line(error)})") from None


def read_arrow(path: Path, data: bytes) -> Rows:
    """The rows of an Arrow file or stream. Raises NloraError when it is damaged."""
    _needs("pyarrow", path)
    import pyarrow as pa

    try:
        if data.startswith(b"ARROW1"):
            file = pa.ipc.open_file(pa.BufferReader(data))
            batches = (file.get_batch(i) for i in range(file.num_record_batches))
            return _rows(path, file.schema, batches, len(data), "Arrow")
        stream = pa.ipc.open_stream(pa.BufferReader(data))
        return _rows(path, stream.schema, stream, len(data), "Arrow")
    except (pa.ArrowException, OSError) as error:
        raise NloraError(f"{path}: damaged Arrow file ({_in_one_line(error)})") from None


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` has written this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved(source: Path | str, split: str, answers: bool = True) -> Rows:
    """The rows of one of our splits of a saved folder or of an `hf://` name, as `read_dataset`.

    Raises NloraError when there is no such split, or the data set cannot be read.
    """
    return read_dataset(_opened(source), f"{source}", split, answers)


def read_dataset(found: Any, title: str, split: str, answers: bool = True) -> Rows:
    """The rows of a `Dataset`, or of one of our splits of a dictionary of them.

    Of several that may be it the first is taken; if `answers`, the first that has labels.
    Raises NloraError when there is no such split.
    """
    if isinstance(found, dict):
        there = _named(found, split)
        if not there:
            raise NloraError(f"{title}: {unknown('split', SPLIT_NAMES[split][0], list(found))}")
        name = (split_in(found, split) if answers else None) or there[0]
        found, title = found[name], f"{title}, {name}"
    table: pa.Table = found.with_format("arrow")[:]
    rows = _rows(title, table.schema, table.to_batches(), table.nbytes, "a saved data set")
    names = {
        column: tuple(feature.names)
        for column, feature in found.features.items()
        if type(feature).__name__ == "ClassLabel"
    }
    return Rows(rows.path, rows.values, rows.place, rows.format, names)


def split_of(source: Path | str, split: str) -> str | None:
    """As `split_in`, of a saved folder or an `hf://` name."""
    return split_in(_opened(source), split)


def split_in(found: Any, split: str) -> str | None:
    """What of this data set is this split of ours, with labels; None if it is one alone, or has
    none."""
    if not isinstance(found, dict):
        return None
    return next((name for name in _named(found, split) if _has_labels(found[name])), None)


def _named(found: Mapping[str, Any], split: str) -> list[str]:
    return [name for name in SPLIT_NAMES[split] if name in found]


def _has_labels(part: Any) -> bool:
    # The test splits of benchmarks with a server (GLUE) have -1 for every label.
    columns = [c for c, kind in part.features.items() if type(kind).__name__ == "ClassLabel"]
    return all(any(value != -1 for value in part[column]) for column in columns)


def _opened(source: Path | str) -> Any:
    """As `_load`; what the Hub has is fetched once, and a folder may be another one by now."""
    return _open(source) if isinstance(source, str) else _load(source)


def _load(source: Path | str) -> Any:
    """A `Dataset`, or a dictionary of them by split, without a copy of the rows in memory."""
    _needs("datasets", source)
    import datasets

    datasets.disable_progress_bars()
    try:
        if isinstance(source, Path):
            return datasets.load_from_disk(str(source))
        parts = _HUB_NAME.fullmatch(source)
        if parts is None:
            raise NloraError(
                f"{source}: must be hf://OWNER/NAME, with :CONFIG, @REVISION and #SPLIT as needed"
            )
        name = parts["name"]
        here = Path(name).exists()  # `datasets` takes a folder of that name first
        with (
            nullcontext() if here or hub_reachable(name, "README.md", "dataset") else only_cached()
        ):
            return datasets.load_dataset(
                name, parts["config"], split=parts["split"], revision=parts["revision"]
            )
    except NloraError:
        raise
    except Exception as error:  # of the network, the Hub, pyarrow, or a bad name
        raise NloraError(f"{source}: cannot be read: {_in_one_line(error)}") from None


_open = lru_cache(maxsize=8)(_load)


def _rows(
    path: Path | str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], size: int, kind: str
) -> Rows:
    """The rows of record batches; columns that hold no text (pictures, vectors) are left out."""
    bound = max(AT_LEAST, TIMES * size)
    columns = [i for i, field in enumerate(schema) if _readable(field.type)]
    names = [schema.names[i] for i in columns]
    check_names(f"{path}", names)
    values: list[object] = []
    total = 0
    for batch in batches:
        total += batch.nbytes + 64 * batch.num_rows  # a column of nothing but nulls has no bytes
        if total > bound:
            raise NloraError(f"{path}: unpacks to more than {bound / 2**30:.1f} GiB")
        cells = [_cells(path, schema.names[i], batch.column(i)) for i in columns]
        values += [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
    return Rows(path, values, lambda i: f"{path}, row {i + 1}", kind, _class_names(schema))


def _cells(path: Path | str, name: str, column: pa.Array) -> list[Any]:
    """The values of a column. Raises NloraError where it holds what cannot be read."""
    try:
        return _as_written(column)
    except UnicodeDecodeError:
        raise NloraError(f"{path}: column '{name}' holds texts that are not UTF-8") from None
    except (ValueError, OverflowError) as error:  # as of times out of Python's range
        raise NloraError(f"{path}: column '{name}' cannot be read: {_in_one_line(error)}") from None


def _readable(kind: pa.DataType) -> bool:
    """Whether a column holds something to read; of a structure, whether one of its fields does."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return not types.is_primitive(kind.value_type) and _readable(kind.value_type)
    if types.is_struct(kind):
        return any(_readable(field.type) for field in kind)
    if isinstance(kind, pa.BaseExtensionType):
        return False
    binary = types.is_binary(kind) or types.is_large_binary(kind)
    return not binary and not types.is_fixed_size_binary(kind)


def _as_written(column: pa.Array) -> list[Any]:
    """The values of a column with numbers as text, as the other readers give them."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_temporal(kind):
        return column.cast(pa.string()).to_pylist()
    values = column.to_pylist()
    if pa.types.is_floating(kind):
        short = kind.to_pandas_dtype()  # 0.1 of 32 bits is 0.1, not 0.10000000149011612
        write = repr if pa.types.is_float64(kind) else lambda value: str(short(value))
        return [None if v is None or math.isnan(v) else write(v) for v in values]
    if pa.types.is_nested(kind):
        return [_only_readable(value, kind) for value in values]
    return values


def _only_readable(value: Any, kind: pa.DataType) -> Any:
    """A value without the fields in it that hold no text, such as the tokens of a chat's turn."""
    import pyarrow as pa

    types = pa.types
    if value is None:
        return None
    if types.is_struct(kind):
        return {f.name: _only_readable(value[f.name], f.type) for f in kind if _readable(f.type)}
    if types.is_list(kind) or types.is_large_list(kind):
        return [_only_readable(inner, kind.value_type) for inner in value]
    return value


def _class_names(schema: pa.Schema) -> Mapping[str, tuple[str, ...]]:
    """The names of numeric labels, which `datasets` writes into a schema's metadata as JSON."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(str(name) for name in feature["names"])
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _needs(library: str, source: Path | str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise NloraError(f"{source} needs {library}: pip install 'nlora[data]'")


def _in_one_line(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...") or type(error).__name__
