"""Errors that are the user's to mend: how names, settings and what is near them are told."""

import difflib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


class NloraError(Exception):
    """What was wrong, where, and what to do, in one or two lines.

    The command line prints it and exits with status 2; a traceback is a bug.
    """


_ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "the disk or a limit (ulimit -f) does not allow larger files",
    errno.EIO: "the disk fails; check it, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
}
_PATHS = {
    *(errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR),
    errno.ENAMETOOLONG,
}
"""Errors of a path that somebody named."""


def of_disk(error: OSError) -> str | None:
    """Where, what and what to do, in one line, of an error of a disk or a path; else None.

    What names no file was printed: all that is written to a file is named (`store.atomic`).

    >>> of_disk(OSError(28, "No space left on device", "runs/a"))
    'runs/a: No space left on device; make room there'
    >>> of_disk(OSError(28, "No space left on device"))
    'the output: No space left on device; make room there'
    """
    if error.errno not in _ADVICE and error.errno not in _PATHS:
        return None
    advice = _ADVICE.get(error.errno)
    return f"{error.filename or 'the output'}: {error.strerror}" + (f"; {advice}" if advice else "")


def of_memory(error: BaseException) -> str | None:
    """What to do where memory was not enough, in one line; None for another error.

    PyTorch tells that of the main memory by a RuntimeError.

    >>> of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"))[:19]
    'memory is not enoug'
    """
    said = " ".join(str(error).split())
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not (known or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in said)):
        return None
    return (
        f"memory is not enough ({shown(said)}): set a larger accumulation, "
        "gradient_checkpointing=true, a smaller max_length or eval_tokens, or share the model out "
        "(sharding=fsdp)"
    )


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    return (str(error).strip().splitlines() or [repr(error)])[0]


def shown(value: object, most: int = 80) -> str:
    """A value for a message, which a stranger may have made thousands of characters long.

    >>> shown("a" * 100, 20)
    "'aaaaaaaa…aaaaaaaaa'"
    """
    text = repr(value)
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-(most - 1 - half) :]}"


def unknown(
    kind: str, name: object, known: Iterable[str], otherwise: str | None = None
) -> NloraError:
    """The error for a name that does not exist, with the nearest ones that do.

    Where none is near, all are listed, or `otherwise` is said.

    >>> print(unknown("method", "nlora", ["n-lora", "o-lora", "mtl"]))
    unknown method 'nlora'; did you mean 'n-lora' or 'o-lora'?
    >>> print(unknown("stream", "x", ["order-1", "demo"]))
    unknown stream 'x'; known are: demo, order-1
    """
    names, name = sorted(set(known)), name if isinstance(name, str) else repr(name)
    hint = meant(near(name, names)) or otherwise or "known are: " + ", ".join(names)
    said = f"'{name}'" if len(name) <= 200 else shown(name)
    return NloraError(f"unknown {kind} {said}; {hint}")


def near(name: str, known: Iterable[str], least: float = 0.6) -> list[str]:
    """Up to three of the known names that are like a misspelt one, the nearest first.

    `least` is how alike they are at least, 1 for equal ones; case, and _ for -, count for nothing.

    >>> near("smolm2_135M", ["tiny-t5", "smollm2-135m"])
    ['smollm2-135m']
    """
    folded = {_folded(one): one for one in known}
    return [folded[n] for n in difflib.get_close_matches(_folded(name), folded, 3, least)]


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def meant(names: Sequence[str]) -> str:
    """The question whether one of the near names is meant; nothing where there is none.

    >>> meant(["n-lora", "o-lora"]), meant([])
    ("did you mean 'n-lora' or 'o-lora'?", '')
    """
    return "did you mean " + " or ".join(f"'{name}'" for name in names) + "?" if names else ""


_COMMAND = ContextVar("whether the command line runs", default=False)


@contextmanager
def as_commands() -> Iterator[None]:
    """Meanwhile what is to be given is named as the command line does, not as a script."""
    token = _COMMAND.set(True)
    try:
        yield
    finally:
        _COMMAND.reset(token)


def option(name: str, value: object = None) -> str:
    """An argument as a script gives it; as the command line does where that runs.

    >>> option("max_lost"), option("dtype", "float32"), option("adapter", True)
    ('max_lost', "dtype='float32'", 'adapter=True')
    >>> with as_commands():
    ...     option("max_lost"), option("dtype", "float32"), option("adapter", True)
    ('--max-lost', '--dtype float32', '--adapter')
    """
    if not _COMMAND.get():
        return name if value is None else f"{name}={value!r}"
    flag = f"--{name.replace('_', '-')}"
    return flag if value is None or value is True else f"{flag} {value}"


def setting(name: str, value: float | None = None) -> str:
    """A setting as `option` names an argument; without a value some other one is meant.

    >>> setting("epochs", 2), setting("epochs")
    ("settings={'epochs': 2}", "settings={'epochs': …}")
    >>> with as_commands():
    ...     setting("learning_rate", 5e-05)
    '--set learning_rate=5e-05'
    """
    given = "…" if value is None else f"{value:g}"
    return f"--set {name}={given}" if _COMMAND.get() else f"settings={{{name!r}: {given}}}"


class Several(NloraError):
    """More than one thing that was wrong, each of `faults` in one line."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        listed = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{len(self.faults)} things are wrong:{listed}")


class Faults:
    """Collects what is wrong, so that all of it is said at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def attempt(self, call: Callable[[], T]) -> T | None:
        """What the call returns; None, and the error is kept, where it raises a NloraError."""
        try:
            return call()
        except NloraError as error:
            self.found += error.faults if isinstance(error, Several) else [str(error)]
            return None

    def check(self) -> None:
        """Raise NloraError if anything was wrong."""
        faults = list(dict.fromkeys(self.found))
        if len(faults) == 1:
            raise NloraError(faults[0])
        if faults:
            raise Several(faults)
