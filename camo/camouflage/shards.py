"""WebDataset shards: tar files in which files of one name and several suffixes, one after the other, are a sample.

Ray's own writer gives shards names by chance, so that a photo that is done twice would be in two of them, and nothing tells what is done already.
Here each shard becomes one shard of the same name or, if its pixels are too many to be in memory at once, several parts. Which photos are in which
part depends on the shard alone, so a part that is there already need not be done again, and one that is done twice is the same file.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from camo.photos.find import has_suffix
from camo.photos.images import size_of

MOST_PIXELS = 256_000_000  # bytes of the decoded photos in one part: 430 photos of 512x384 px
SUFFIXES = frozenset({".tar"})


@dataclass(frozen=True)
class Member:
    """A file in a shard.

    Attributes:
        name: with its folders.
        mode: its permissions.
        modified: in seconds since the epoch.
        start: where its content begins in the shard, in bytes.
        size: of its content, in bytes.
        content: the content, where it has been read and is not a photo's.
    """

    name: str
    mode: int
    modified: float
    start: int
    size: int
    content: bytes | None = None

    @property
    def key(self) -> str:
        """What the files of one sample share: the name up to the first dot behind the last slash."""
        folder, _, name = self.name.rpartition("/")
        return f"{folder}/{name.partition('.')[0]}"

    @property
    def is_photo(self) -> bool:
        """Whether it is to be camouflaged; other files of a sample are carried along."""
        return has_suffix(PurePosixPath(self.name).name)


def members(file: IO[bytes]) -> list[Member]:
    """All files in a shard. Raises ValueError where it is damaged: tarfile itself would take what cannot be read for the end."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            found = [Member(info.name, info.mode, info.mtime, info.offset_data, info.size) for info in archive if info.isreg()]
            end = archive.offset
    except tarfile.TarError as error:
        raise ValueError(f"no tar file, or a damaged one ({error})") from error
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError("the tar file is damaged or truncated")
    return found


def parts(file: IO[bytes]) -> list[list[Member]]:
    """The members of a shard, divided so that samples stay whole and the photos of a part have at most ``MOST_PIXELS``. Raises ValueError."""
    divided: list[list[Member]] = [[]]
    held = 0
    for sample in _samples(members(file)):
        size = sum(_decoded_size(read(file, member)) for member in sample if member.is_photo)
        if divided[-1] and held + size > MOST_PIXELS:
            divided.append([])
            held = 0
        divided[-1] += sample
        held += size
    return divided


def read(file: IO[bytes], member: Member) -> bytes:
    """A member's content."""
    file.seek(member.start)
    return file.read(member.size)


def written(contents: list[tuple[Member, bytes]]) -> bytes:
    """The tar file that holds these, in order, each with its name, permissions and time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, content in contents:
            info = tarfile.TarInfo(member.name)
            info.mode, info.mtime, info.size = member.mode, member.modified, len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def part_name(shard: str, number: int, count: int) -> str:
    """The name of a shard's part; that of the shard where it is the only one."""
    return shard if count == 1 else f"{shard.removesuffix('.tar')}-{number:05}-of-{count:05}.tar"


def parts_there(names: set[str]) -> dict[str, dict[int, set[int]]]:
    """Which parts of which shards are among the names in a folder: by shard and by the number of its parts, the numbers of those that are there."""
    found: dict[str, dict[int, set[int]]] = {}
    for name in names:
        found.setdefault(name, {}).setdefault(1, set()).add(0)
        if match := re.fullmatch(r"(.+)-(\d{5})-of-(\d{5})\.tar", name):
            found.setdefault(f"{match[1]}.tar", {}).setdefault(int(match[3]), set()).add(int(match[2]))
    return found


def _samples(found: list[Member]) -> Iterator[list[Member]]:
    sample: list[Member] = []
    for member in found:
        if sample and member.key != sample[0].key:
            yield sample
            sample = []
        sample.append(member)
    if sample:
        yield sample


def _decoded_size(content: bytes) -> int:
    """Bytes of the pixels that a photo has by its header; 0 where that cannot be read: the decoder will report it."""
    try:
        width, height = size_of(content)
    except Exception:  # on damaged files Pillow raises almost anything
        return 0
    return 3 * width * height
