"""Where a collection lies: a folder that all machines of a cluster see, or a part of an object store.

Both have the same methods. Names are relative to the place, with slashes. Object stores are reached through pyarrow.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import IO

from pyarrow.fs import FileSelector, FileSystem, FileType

from camo import CamoError
from camo.camouflage.plan import Job
from camo.photos.files import atomic_write, reason
from camo.photos.find import has_suffix, is_wanted, output_suffix, walk

SCHEMES = ("s3", "gs", "abfs", "abfss")  # Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage


@dataclass(frozen=True)
class Folder:
    """A folder. Files in it appear whole or not at all, by renaming.

    Attributes:
        path: absolute.
        parts: a folder on the same disk for files that are not finished; None for places that are only read.
    """

    path: Path
    parts: Path | None = None

    def __str__(self) -> str:
        return str(self.path)

    def at(self, name: str) -> Path:
        """A file, as jobs name it."""
        return self.path / name

    def exists(self) -> bool:
        """Whether the folder is there."""
        return self.path.is_dir()

    def walk(self, suffixes: Collection[str], exclude: Folder | Store) -> Iterator[tuple[str, list[str]]]:
        """Every folder that holds files with one of the suffixes, and their sorted names, but for what lies in ``exclude``."""
        files = walk(self.path, exclude.path if isinstance(exclude, Folder) else None, suffixes)
        for parent, found in groupby(files, lambda file: file.parent):
            relative = parent.relative_to(self.path).as_posix()
            yield "" if relative == "." else relative, sorted(file.name for file in found)

    def names(self, folder: str) -> set[str]:
        """The names of all that lies directly in one of its folders; none where that does not exist."""
        try:
            return set(os.listdir(self.path / folder))  # noqa: PTH208 (names alone, a million at a time)
        except FileNotFoundError:
            return set()

    def fetched(self, job: Job) -> Job:
        """The job as it is: its file will be read where it is decoded."""
        return job

    def suffix(self, name: str) -> str:
        """The suffix of the file that is written in a photo's own format."""
        return output_suffix(self.path / name)

    def open(self, name: str) -> IO[bytes]:
        """A file to read at any place. Raises OSError."""
        return (self.path / name).open("rb")

    def put(self, name: str, content: bytes) -> None:
        """Write a file, in place of one that is there. Raises CamoError."""
        with atomic_write(self.path / name, overwrite=True, parts=self.parts) as part:
            part.write_bytes(content)

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.path / name).is_file()

    def remove(self, name: str) -> None:
        """Remove a file. Raises OSError."""
        (self.path / name).unlink()


@dataclass(frozen=True)
class Store:
    """What lies below one prefix of an object store. Objects appear whole or not at all: each is written in one put.

    Attributes:
        uri: the address without settings, a password or a slash at its end.
        filesystem: pyarrow's.
        root: the prefix as ``filesystem`` names it.
    """

    uri: str
    filesystem: FileSystem
    root: str

    def __str__(self) -> str:
        return self.uri

    def at(self, name: str) -> str:
        """An object, as jobs and faults name it."""
        return f"{self.uri}/{name}"

    def exists(self) -> bool:
        """Whether anything lies there. Raises OSError where the store cannot be reached."""
        return self.filesystem.get_file_info(self.root).type == FileType.Directory

    def walk(self, suffixes: Collection[str], exclude: Folder | Store) -> Iterator[tuple[str, list[str]]]:
        """Every prefix that holds objects with one of the suffixes, and their sorted names, but for what lies in ``exclude``."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            files, folders = self._listed(folder)
            below = [replace(self, root=_below(self.root, _below(folder, name))) for name in sorted(folders, reverse=True) if is_wanted(name)]
            waiting += [place.root.removeprefix(f"{self.root}/") for place in below if not inside(place, exclude)]
            if found := sorted(name for name in files if has_suffix(name, suffixes)):
                yield folder, found

    def names(self, folder: str) -> set[str]:
        """The names of all objects directly below one of its prefixes."""
        return set(self._listed(folder)[0])

    def _listed(self, folder: str) -> tuple[list[str], list[str]]:
        """The names of objects and of prefixes directly below one."""
        found = self.filesystem.get_file_info(FileSelector(_below(self.root, folder), allow_not_found=True))
        names = {kind: [info.base_name for info in found if info.type == kind] for kind in (FileType.File, FileType.Directory)}
        return names[FileType.File], names[FileType.Directory]

    def fetched(self, job: Job) -> Job:
        """The job with its object's content. Raises CamoError."""
        try:
            return replace(job, content=self.read(self.name(job.source)))
        except OSError as error:
            raise CamoError(f"{job.source!r}: cannot be read: {reason(error)}") from error

    def name(self, address: Path | str) -> str:
        """What ``at`` made the address of."""
        return str(address).removeprefix(f"{self.uri}/")

    def suffix(self, name: str) -> str:
        """The suffix of the object that is written in a photo's own format, by its name alone."""
        suffix = Path(name).suffix
        return ".png" if suffix.lower() == ".gif" else suffix

    def open(self, name: str) -> IO[bytes]:
        """A copy of an object on this machine, to read at any place. Raises OSError."""
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        with self.filesystem.open_input_stream(_below(self.root, name)) as stream:
            shutil.copyfileobj(stream, copy, 2**24)
        copy.seek(0)
        return copy

    def read(self, name: str) -> bytes:
        """An object's content. Raises OSError."""
        with self.filesystem.open_input_stream(_below(self.root, name)) as stream:
            return stream.read()

    def put(self, name: str, content: bytes) -> None:
        """Write an object, in place of one that is there. Raises CamoError."""
        try:
            with self.filesystem.open_output_stream(_below(self.root, name)) as stream:
                stream.write(content)
        except OSError as error:
            raise CamoError(f"{self.at(name)!r}: cannot be written: {reason(error)}") from error

    def has(self, name: str) -> bool:
        """Whether an object is there. Raises OSError."""
        return self.filesystem.get_file_info(_below(self.root, name)).type == FileType.File

    def remove(self, name: str) -> None:
        """Remove an object. Raises OSError."""
        self.filesystem.delete_file(_below(self.root, name))


def place(text: str) -> Folder | Store:
    """The place that a command line names: a path, or an address with ``://`` as pyarrow reads it. Raises CamoError."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        return Folder(Path(os.path.abspath(text)))  # noqa: PTH100 (a link in it is kept)
    if scheme not in SCHEMES:
        raise CamoError(f"{text!r}: object stores are named {', '.join(f'{known}://' for known in SCHEMES)}; folders by their path")
    try:
        one_put = "&allow_delayed_open=true" if "?" in text else "?allow_delayed_open=true"  # up to 5 MB; more is a multipart upload
        filesystem, root = FileSystem.from_uri(text + one_put if scheme == "s3" else text)
    except (OSError, ValueError, NotImplementedError) as error:
        raise CamoError(f"{text!r}: cannot be used: {reason(error)}") from error
    if not root:
        raise CamoError(f"{text!r}: names no bucket")
    root = root.rstrip("/")
    address = re.sub(r"//[^/@]*:[^/@]*@", "//", text.partition("?")[0].rstrip("/"))
    return Store(f"{scheme}://{root}" if scheme in {"s3", "gs"} else address, filesystem, root)


def inside(one: Folder | Store, other: Folder | Store) -> bool:
    """Whether a place is another one or lies in it."""
    if isinstance(one, Folder) and isinstance(other, Folder):
        return Path(os.path.realpath(one.path)).is_relative_to(os.path.realpath(other.path))
    if isinstance(one, Store) and isinstance(other, Store):
        return one.filesystem.equals(other.filesystem) and f"{one.root}/".startswith(f"{other.root}/")
    return False


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}".strip("/")
