"""A YAML file as nodes: they know their lines, and keep `no` and `1` as written."""

from pathlib import Path
from typing import Any

import yaml

from nlora.data.rows import read_text
from nlora.errors import NloraError

_DEPTH = 40
"""Of lists and mappings within each other; a stream has three."""


class _TooDeep(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """Stops early: PyYAML's time grows with the square of what is open on one line."""

    _open = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self._open == _DEPTH:
            raise _TooDeep
        self._open += 1
        node = super().compose_node(parent, index)
        self._open -= 1
        return node


def compose(path: Path) -> yaml.Node | None:
    """The document that the file holds, None for an empty one.

    Raises NloraError, with file and line, where it is not YAML or nested too deeply.
    """
    text = read_text(path)
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise NloraError(f"{path}{line}: malformed YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NloraError(f"{path}, line {line}: malformed YAML: {error.reason}") from None
    except _TooDeep:
        raise NloraError(f"{path}: malformed YAML: nested too deeply") from None
