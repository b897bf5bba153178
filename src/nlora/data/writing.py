"""The files of data sets, in a folder that is there whole or not at all."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nlora.errors import NloraError


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A folder that gets the target's name when all is written, or is removed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield work
            work.chmod(0o755)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        place = error.filename or target
        raise NloraError(f"cannot write {place}: {error.strerror}") from None


def write_rows(path: Path, value: object) -> None:
    """Write a file of a data set, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
