"""Files that appear whole or not at all."""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from camo import CamoError

PARTS = ".camo-*.part"  # names of what is not finished


@contextlib.contextmanager
def atomic_write(
    path: Path, overwrite: bool = False, mode: int | None = None, modified: int | None = None, parts: Path | None = None
) -> Iterator[Path]:
    """Give a path beside ``path``, or in the folder ``parts`` on the same disk, to write a file to; when the block ends, that file is flushed to the
    disk and renamed to ``path``.

    With ``mode`` it gets these permissions, and nobody else can read it before; with ``modified``, nanoseconds since the epoch, this time.

    A block that is left by an exception, Ctrl-C included, leaves nothing behind. Missing folders are made.

    Raises:
        CamoError: ``path`` exists and ``overwrite`` is not set (told before the block, and again should it have appeared meanwhile), is no
            regular file, or cannot be written.
    """
    part = unfinished(parts or path.parent)
    try:
        _check_place(path, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode is not None:
            part.touch(0o600)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if mode is not None:
            part.chmod(mode)
        if modified is not None:
            os.utime(part, ns=(modified, modified))
        _check_place(path, overwrite)
        part.replace(path)
    except BrokenPipeError:  # of the standard output, which is no fault of this file
        raise
    except OSError as error:
        raise CamoError(f"{str(path)!r}: cannot be written: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):  # it is there only if something went wrong
            part.unlink()


def unfinished(folder: Path) -> Path:
    """A new hidden name in a folder, for what this process has not finished; ``remove_stale`` knows it once the process has ended."""
    return folder / f".camo-{_host()}-{os.getpid()}-{uuid.uuid4().hex}.part"


def remove_stale(folder: Path, deep: bool = True) -> None:
    """Remove, in a folder and (``deep``) below it, what processes of this machine had not finished when they were killed.

    Those that still run keep theirs.
    """
    for part in folder.rglob(PARTS) if deep else folder.glob(PARTS):
        owner = re.fullmatch(rf"\.camo-{re.escape(_host())}-(\d+)-[0-9a-f]{{32}}\.part", part.name)
        if owner and int(owner[1]) != os.getpid() and not _runs(int(owner[1])):
            with contextlib.suppress(OSError):
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def reason(error: Exception) -> str:
    """Return an error's text in one line; its class where it has none."""
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())


def sha256(path: Path) -> str:
    """Return the SHA-256 hash of a file's content in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def as_camo_error(subject: object, *errors: type[Exception]) -> Iterator[None]:
    """Turn the given errors, raised in the block, into a CamoError of one line that begins with the subject."""
    try:
        yield
    except errors as error:
        raise CamoError(f"{subject}: {reason(error)}") from error


def _host() -> str:
    return re.sub(r"\W", "-", socket.gethostname())[:64]


def _runs(process: int) -> bool:
    return psutil.pid_exists(process)  # os.kill(process, 0), the usual way, would send a Ctrl-C on Windows


def _check_place(path: Path, overwrite: bool) -> None:
    """Refuse what must not be replaced: anything without ``overwrite``; folders, devices and dangling links always."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise CamoError(f"{str(path)!r}: exists already; --overwrite replaces it")
    if not path.is_file():
        raise CamoError(f"{str(path)!r}: cannot be written: not a regular file")
