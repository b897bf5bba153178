"""A folder as one file (tar), written without names of this machine, and read without trust."""

import lzma
import os
import tarfile
import zlib
from pathlib import Path

from nlora.errors import NloraError
from nlora.store.atomic import check_place, naming

ENDINGS = (".tar", ".tar.gz", ".tgz")
_NOT_WRITTEN = (".zip", ".gz", ".xz", ".bz2", ".zst", ".txz", ".tbz", ".tbz2", ".7z", ".rar")
"""What other archives and compressed files end with."""
_LONG_AGO = 315_532_800
"""1980, as in zip archives without dates."""
MEMBERS = 100_000
"""More files than this are no model directory."""


def names_archive(path: Path) -> bool:
    """Whether a path is to be an archive: it ends like one."""
    return path.name.lower().endswith(ENDINGS)


def check_ending(path: Path) -> None:
    """Raise NloraError for the name of an archive of a kind that is not written."""
    if path.name.lower().endswith(_NOT_WRITTEN) and not names_archive(path):
        raise NloraError(
            f"{path}: such archives are not written; end the name with {', '.join(ENDINGS[:-1])} "
            f"or {ENDINGS[-1]}, or give a folder another name"
        )


def is_archive(path: Path) -> bool:
    """Whether a file is a tar archive, compressed or not."""
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False


def pack(folder: Path, archive: Path, compressed: bool) -> None:
    """Write the folder, under its own name, into an archive."""
    with naming(archive), archive.open("xb") as file:
        with tarfile.open(fileobj=file, mode="w:gz" if compressed else "w") as tar:
            for path in sorted(folder.rglob("*")):
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                tar.add(path, name, recursive=False, filter=_nobodys)
        file.flush()
        os.fsync(file.fileno())


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The member without the name of who packed it, or when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = _LONG_AGO
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of somebody else into a folder that is there.

    Only files and folders inside it are (`tarfile`'s data filter). Raises NloraError for anything
    else, and OSError where there is no room.
    """
    try:
        with tarfile.open(archive) as tar:
            members, total = [], 0
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise NloraError(f"{archive}: {member.name!r} is neither a file nor a folder")
                members.append(member)
                total += member.size
                if len(members) > MEMBERS:
                    raise NloraError(f"{archive} holds more than {MEMBERS} files")
            check_place(folder / "room", total)
            tar.extractall(folder, members, filter="data")
    except tarfile.FilterError as error:
        raise NloraError(f"{archive}: a path in it leads out of it ({error})") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk; that of a damaged file has no number
        raise NloraError(f"{archive} is damaged: {error}") from error
