"""Directories of tags as TIFF has them, and EXIF, MPF and raw files too (TIFF 6.0; BigTIFF). Nothing here raises on a damaged one: it is read as
far as it goes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Bytes of a value of each type.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
WHOLE = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}  # types of whole numbers, as struct names them
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 1, 2, 3, 4, 5, 7
EXIF_IFD, GPS_IFD, INTEROP_IFD, SUB_IFDS = 34665, 34853, 40965, 330

Value = tuple[int, int, bytes]  # type, number of values, and the values in the byte order of their file


@dataclass(frozen=True)
class Entry:
    """A tag of a directory: its type, the number of its values, where it stands, where its values stand, and how many bytes those are.

    ``size`` is None where the type is unknown or the values lie outside of the file.
    """

    tag: int
    kind: int
    count: int
    at: int
    start: int
    size: int | None


@dataclass(frozen=True)
class Directory:
    """A directory: where it stands, its entries, where the offset of the next one stands, and that offset (0 for none)."""

    at: int
    entries: list[Entry]
    next_at: int
    next: int

    def entry(self, tag: int) -> Entry | None:
        """The first entry of a tag."""
        return next((entry for entry in self.entries if entry.tag == tag), None)


class Structure:
    """Access to the directories in ``content``. Raises ValueError where that has no TIFF header."""

    def __init__(self, content: bytes | bytearray) -> None:
        order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
        if order is None or len(content) < 8:
            raise ValueError("no TIFF header")
        self.content, self.order = content, order
        version = self.unpack("H", 2)
        self.big = version == 43
        if version not in {42, 43}:
            raise ValueError("no TIFF header")
        self.inline, self.entry_size = (8, 20) if self.big else (4, 12)

    def unpack(self, kind: str, at: int) -> int:
        """One whole number; 0 beyond the end."""
        size = struct.calcsize(self.order + kind)
        return struct.unpack_from(self.order + kind, self.content, at)[0] if at >= 0 and at + size <= len(self.content) else 0

    @property
    def first(self) -> int:
        """Where the first directory stands."""
        return self.unpack("Q", 8) if self.big else self.unpack("I", 4)

    def directory(self, at: int) -> Directory:
        """The directory at an offset; an empty one where none can be."""
        pointer, head = ("Q", 8) if self.big else ("I", 2)
        fits = max(0, (len(self.content) - at - head) // self.entry_size) if at > 0 else 0
        count = min(self.unpack("Q" if self.big else "H", at), fits) if at > 0 else 0
        entries = [self._entry(at + head + self.entry_size * index) for index in range(count)]
        next_at = at + head + self.entry_size * count
        return Directory(at, entries, next_at, self.unpack(pointer, next_at) if at > 0 else 0)

    def chain(self, at: int) -> Iterator[Directory]:
        """The directory at an offset and those that follow it, each once."""
        seen: set[int] = set()
        while 0 < at < len(self.content) and at not in seen:
            seen.add(at)
            directory = self.directory(at)
            yield directory
            at = directory.next

    def _entry(self, at: int) -> Entry:
        kind = self.unpack("H", at + 2)
        count = self.unpack("Q" if self.big else "I", at + 4)
        size, start = count * SIZES.get(kind, 0), at + self.entry_size - self.inline
        if size > self.inline:
            start = self.unpack("Q" if self.big else "I", start)
        known = kind in SIZES and start + size <= len(self.content)
        return Entry(self.unpack("H", at), kind, count, at, start, size if known else None)

    def value(self, entry: Entry) -> bytes:
        """The bytes of an entry's values; none where they cannot be."""
        return bytes(self.content[entry.start : entry.start + entry.size]) if entry.size else b""

    def numbers(self, entry: Entry | None) -> tuple[int, ...]:
        """An entry's values, if they are whole numbers; none else."""
        if entry is None or not entry.size or entry.kind not in WHOLE:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{WHOLE[entry.kind]}", self.value(entry))

    def rationals(self, entry: Entry | None) -> tuple[float, ...]:
        """An entry's values, if they are fractions; none else, or where one divides by 0."""
        if entry is None or not entry.size or entry.kind != RATIONAL:
            return ()
        parts = struct.unpack(f"{self.order}{2 * entry.count}I", self.value(entry))
        pairs = list(zip(parts[::2], parts[1::2], strict=True))
        return tuple(top / bottom for top, bottom in pairs) if all(bottom for _, bottom in pairs) else ()


def laid_out(order: str, directory: dict[int, Value], children: dict[int, dict[int, Value]], at: int) -> bytes:
    """A directory that stands at offset ``at``, followed by its values and by the directories that some of its tags point to."""
    tags = sorted({*directory, *children})
    data, heap_at = [struct.pack(order + "H", len(tags))], at + 2 + 12 * len(tags) + 4
    heap: list[bytes] = []
    for tag in tags:
        if tag in children:
            grandchildren = {key: value for key, value in children.items() if key == INTEROP_IFD and tag == EXIF_IFD}
            plain = {key: value for key, value in children[tag].items() if key not in grandchildren}
            value, kind, count = laid_out(order, plain, grandchildren, heap_at), LONG, 1
            data.append(struct.pack(order + "HHII", tag, kind, count, heap_at))
        else:
            kind, count, value = directory[tag]
            if len(value) <= 4:
                data.append(struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0"))
                continue
            data.append(struct.pack(order + "HHII", tag, kind, count, heap_at))
        value += b"\0" * (len(value) % 2)
        heap.append(value)
        heap_at += len(value)
    return b"".join((*data, bytes(4), *heap))
