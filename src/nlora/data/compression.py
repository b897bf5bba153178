"""Unpacking of compressed files, told by their first bytes, within a bound."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nlora.errors import NloraError

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
AT_LEAST, TIMES = 1 << 30, 50
"""A file may unpack to a GiB, or to so many times its size if that is more: prose packs 3 to 10
times, repetitive JSON 20 to 30, and what packs a thousand times is no text."""
# Small pieces, so that one of them cannot unpack to more than some 100 MB.
_PIECE = 4096


def unpacked(data: bytes, path: Path) -> bytes:
    """The bytes of a .gz, .zst, .bz2 or .xz file unpacked; others as they are.

    Raises NloraError when the file is damaged, ends too early or unpacks to more than it may.
    """
    for magics, name, opened in _KINDS:
        if data.startswith(magics):
            return _unpack(data, path, name, opened)
    return data


def _unpack(data: bytes, path: Path, name: str, opened: Callable[[], Any]) -> bytes:
    bound = max(AT_LEAST, TIMES * len(data))
    parts: list[bytes] = []
    size, stream = 0, opened()
    try:
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            while piece:
                if stream.eof:  # a file may hold several streams, one after another
                    if not piece.strip(b"\0"):
                        break
                    stream = opened()
                parts.append(stream.decompress(piece))
                size += len(parts[-1])
                if size > bound:
                    raise NloraError(
                        f"{path}: unpacks to more than {bound / 2**30:.1f} GiB, {TIMES} times its "
                        "size; unpack it yourself if it is what you expect"
                    )
                piece = stream.unused_data if stream.eof else b""
    except NloraError:
        raise
    except Exception as error:  # each library has its own
        raise NloraError(f"{path}: damaged {name} file ({error})") from None
    if not stream.eof:
        raise NloraError(f"{path}: the {name} file ends too early; was it cut?")
    return b"".join(parts)


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise NloraError("a .zst file needs zstandard: pip install 'nlora[data]'") from None
    # stream_reader would give a file that was cut as a shorter one.
    return zstandard.ZstdDecompressor().decompressobj()


# A zstd file may begin with a frame of somebody's notes, which the library skips.
_ZSTD = (b"\x28\xb5\x2f\xfd", *(bytes([byte]) + b"\x2a\x4d\x18" for byte in range(0x50, 0x60)))
_KINDS: tuple[tuple[tuple[bytes, ...], str, Callable[[], Any]], ...] = (
    ((b"\x1f\x8b",), "gzip", lambda: zlib.decompressobj(31)),
    (_ZSTD, "zstd", _zstd),
    ((b"BZh",), "bzip2", bz2.BZ2Decompressor),
    ((b"\xfd7zXZ\0",), "xz", lzma.LZMADecompressor),
)
