"""EXIF (CIPA DC-008, Exif 3.0): one parser, for reading the orientation and for mending what has become untrue.

A block is changed in place: no value moves, so that makers' notes, whose inner offsets nobody but their maker knows, stay as they are.
"""

import struct
from collections.abc import Iterable

from PIL import ExifTags

from camo.photos.embedded import without_pictures
from camo.photos.facts import Facts
from camo.photos.tiff_structure import (
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    LONG,
    RATIONAL,
    SHORT,
    SIZES,
    SUB_IFDS,
    WHOLE,
    Directory,
    Entry,
    Structure,
    Value,
    laid_out,
)
from camo.photos.turning import turned_area

PREFIX = b"Exif\0\0"  # what a JPEG's segment begins with; every ``Photo.exif`` does
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 274, 282, 283, 296
XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG, ICC_TAG = 700, 33723, 34377, 34675
COLOUR_SPACE, FOCAL_X, FOCAL_Y, SUBJECT_AREA, SUBJECT_LOCATION, MAKER_NOTE = 0xA001, 0xA20E, 0xA20F, 0x9214, 0xA214, 0x927C
WIDTHS, HEIGHTS = {256, 0xA002, 0x1001}, {257, 0xA003, 0x1002}  # of the picture, in the main, the Exif and the interoperability directory
# What a photo can say of its samples besides the colour space: their white, primaries and curve; how many bits; how many of which kind.
COLOURS, DEPTH, CHANNELS = (318, 319, 301), (258,), (262, 277)
PICTURE_OFFSETS = {273: 279, 324: 325, 513: 514}  # where strips, tiles and a JPEG stream lie; how long they are
LOCATION_TAGS = (GPS_IFD, 33550, 33922, 34264, 34735, 34736, 34737, 42112)  # and those of GeoTIFF


class Exif:
    """A block that can be read and changed. ``bytes(exif)`` gives it, beginning with ``Exif\\0\\0``.

    Args:
        block: as a file holds it, with that beginning or without.

    Raises ValueError where it has no TIFF header.
    """

    def __init__(self, block: bytes) -> None:
        while block.startswith(PREFIX):
            block = block[len(PREFIX) :]
        self.data = bytearray(block)
        self.structure = Structure(self.data)
        if self.structure.big:
            raise ValueError("no TIFF header of EXIF")

    def __bytes__(self) -> bytes:
        return PREFIX + bytes(self.data)

    def directories(self) -> dict[str, Directory]:
        """The main directory and those of Exif, GPS and interoperability, as far as they are there."""
        found = {"main": self.structure.directory(self.structure.first)}
        for name, parent, tag in (("exif", "main", EXIF_IFD), ("gps", "main", GPS_IFD), ("interop", "exif", INTEROP_IFD)):
            offsets = self.structure.numbers(found[parent].entry(tag)) if parent in found else ()
            if offsets and offsets[0] not in {directory.at for directory in found.values()}:
                found[name] = self.structure.directory(offsets[0])
        return {name: directory for name, directory in found.items() if directory.entries}

    def entry(self, name: str, tag: int) -> Entry | None:
        """The first entry of a tag in one of the ``directories``."""
        directory = self.directories().get(name)
        return directory.entry(tag) if directory else None

    @property
    def orientation(self) -> int:
        """How the stored pixels lie, 1 to 8; 1 where nothing sensible says so."""
        numbers = self.structure.numbers(self.entry("main", ORIENTATION))
        return numbers[0] if numbers and 1 <= numbers[0] <= 8 else 1

    @property
    def resolution(self) -> tuple[float, float, int] | None:
        """Horizontal and vertical pixels a unit, and the unit: 1 none, 2 inch, 3 centimetre."""
        horizontal, vertical = (self.structure.rationals(self.entry("main", tag)) for tag in (X_RESOLUTION, Y_RESOLUTION))
        unit = self.structure.numbers(self.entry("main", RESOLUTION_UNIT))
        return (horizontal[0], vertical[0], unit[0] if unit else 2) if horizontal and vertical else None

    def say_upright(self) -> None:
        """Set the orientation to 1, wherever one is stated."""
        for directory in self.directories().values():
            for entry in directory.entries:
                if entry.tag == ORIENTATION and entry.size and entry.kind in WHOLE:
                    struct.pack_into(self.structure.order + "HIHxx", self.data, entry.at + 2, SHORT, 1, 1)  # as the standard has it

    def turn(self, facts: Facts) -> None:
        """Follow pixels that were turned upright: resolutions and the subject's place."""
        directories = self.directories()
        if facts.on_its_side:
            for name, first, second in (("main", X_RESOLUTION, Y_RESOLUTION), ("exif", FOCAL_X, FOCAL_Y)):
                entries = [directories[name].entry(tag) for tag in (first, second)] if name in directories else []
                pair = [entry for entry in entries if entry and entry.kind == RATIONAL and entry.size == 8]
                values = [self.structure.value(entry) for entry in pair]
                for entry, value in zip(pair, reversed(values), strict=True) if len(pair) == 2 else ():
                    self.data[entry.start : entry.start + 8] = value
        for tag in (SUBJECT_AREA, SUBJECT_LOCATION):
            place = directories["exif"].entry(tag) if "exif" in directories else None
            numbers = self.structure.numbers(place)
            if place and place.kind == SHORT and len(numbers) >= 2:
                whole = turned_area(facts.turned, numbers, facts.width, facts.height)
                struct.pack_into(f"{self.structure.order}{len(whole)}H", self.data, place.start, *whole)

    def agree(self, facts: Facts) -> None:
        """State the picture's size where a size is stated, and sRGB, if the pixels were converted to it, where another space is."""
        self.remove(*COLOURS if facts.srgb else (), *DEPTH if facts.rounded or facts.cmyk else (), *CHANNELS if facts.cmyk else ())
        for name, directory in self.directories().items():
            for entry in directory.entries:
                if name != "gps" and entry.count == 1 and entry.kind in {SHORT, LONG}:
                    if entry.tag in WIDTHS | HEIGHTS:
                        self._set(entry, facts.width if entry.tag in WIDTHS else facts.height)
                    elif facts.srgb and entry.tag == COLOUR_SPACE:
                        self._set(entry, 1)
                if facts.srgb and name == "interop" and entry.tag == 1 and self.structure.value(entry).startswith(b"R03"):
                    self.data[entry.start : entry.start + 3] = b"R98"

    def remove_pictures(self) -> None:
        """Overwrite every other picture in the block: thumbnails in further directories, strips, and whole files wherever they lie."""
        main, known = self.structure.directory(self.structure.first), {directory.at for directory in self.directories().values()}
        starts = [main.next, *self.structure.numbers(main.entry(SUB_IFDS))]
        for directory in [directory for start in starts for directory in self.structure.chain(start)]:
            if directory.at not in known and _plausible(directory):
                self._wipe_picture(directory)
                self.data[directory.at : directory.next_at + 4] = bytes(len(self.data[directory.at : directory.next_at + 4]))
        self.data[main.next_at : main.next_at + 4] = bytes(len(self.data[main.next_at : main.next_at + 4]))
        self._wipe_picture(main)
        self.remove(SUB_IFDS, *PICTURE_OFFSETS, *PICTURE_OFFSETS.values())
        self.data[:] = without_pictures(self.data)
        self._trim()

    def take(self, tag: int) -> bytes | None:
        """Remove a tag of the main directory and return its values."""
        entry = self.entry("main", tag)
        value = self.structure.value(entry) if entry else None
        self.remove(tag)
        return value or None

    def remove(self, *tags: int) -> None:
        """Remove tags of the main directory and overwrite what they lead to, directories too."""
        for tag in tags:
            while (main := self.structure.directory(self.structure.first)).entry(tag):
                entry = main.entry(tag)
                assert entry is not None
                if tag in {EXIF_IFD, GPS_IFD}:
                    for offset in self.structure.numbers(entry)[:1]:
                        self._wipe_directory(self.structure.directory(offset))
                self._wipe(entry)
                end = min(main.next_at + 4, len(self.data))
                self.data[entry.at : end] = self.data[entry.at + 12 : end] + bytes(12)
                struct.pack_into(self.structure.order + "H", self.data, main.at, len(main.entries) - 1)

    def remove_damaged(self) -> bool:
        """Remove what no reader can make sense of from the main directory; whether there was any."""
        damaged = {entry.tag for entry in self.structure.directory(self.structure.first).entries if entry.size is None}
        self.remove(*damaged)
        return bool(damaged)

    def values(self) -> tuple[dict[int, Value], dict[int, dict[int, Value]]]:
        """The main directory's values, and those of the directories that it and Exif's point to, by the tag that does; what is damaged left out."""
        pointers = {"exif": EXIF_IFD, "gps": GPS_IFD, "interop": INTEROP_IFD}
        found = {name: self._values(directory.entries) for name, directory in self.directories().items()}
        main = {tag: value for tag, value in found.pop("main", {}).items() if tag not in pointers.values()}
        children = {pointers[name]: {tag: value for tag, value in values.items() if tag != INTEROP_IFD} for name, values in found.items()}
        return main, {tag: values for tag, values in children.items() if values}

    def with_tags(self, tags: dict[int, Value]) -> "Exif":
        """The block with further tags in its main directory, which moves to the end; all other values stay where they are."""
        main = self.structure.directory(self.structure.first)
        entries = {entry.tag: bytes(self.data[entry.at : entry.at + 12]) for entry in reversed(main.entries)}
        data = bytearray(self.data)
        data[main.at : main.next_at + 4] = bytes(len(data[main.at : main.next_at + 4]))
        data += bytes(len(data) % 2)
        for tag, (kind, count, value) in tags.items():
            head = struct.pack(self.structure.order + "HHI", tag, kind, count)
            if len(value) > 4:
                entries[tag] = head + struct.pack(self.structure.order + "I", len(data))
                data += value + bytes(len(value) % 2)
            else:
                entries[tag] = head + value.ljust(4, b"\0")
        struct.pack_into(self.structure.order + "I", data, 4, len(data))
        data += struct.pack(self.structure.order + "H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
        return Exif(bytes(data))

    def _values(self, entries: Iterable[Entry]) -> dict[int, Value]:
        return {entry.tag: (entry.kind, entry.count, self.structure.value(entry)) for entry in reversed(list(entries)) if entry.size}

    def _set(self, entry: Entry, number: int) -> None:
        """Set an entry's first value, a whole number; a SHORT too short for it becomes a LONG, for which an entry has room."""
        if entry.kind == SHORT and number > 65535 and entry.count == 1:
            struct.pack_into(self.structure.order + "HII", self.data, entry.at + 2, LONG, 1, number)
        else:
            struct.pack_into(self.structure.order + WHOLE[entry.kind], self.data, entry.start, number)

    def _wipe(self, entry: Entry) -> None:
        """Overwrite values that do not stand in the entry itself, as far as they are in the block."""
        if entry.start != entry.at + 8:
            first, end = max(entry.start, 8), entry.start + entry.count * SIZES.get(entry.kind, 0)
            self.data[first:end] = bytes(len(self.data[first:end]))

    def _wipe_directory(self, directory: Directory) -> None:
        for entry in directory.entries:
            self._wipe(entry)
        end = directory.next_at + 4
        self.data[directory.at : end] = bytes(len(self.data[directory.at : end]))

    def _wipe_picture(self, directory: Directory) -> None:
        """Overwrite the strips, tiles or JPEG stream that a directory points to, unless they would lie on top of a directory."""
        tables = [range(directory.at, directory.next_at + 4) for directory in self.directories().values()]
        for offset_tag, length_tag in PICTURE_OFFSETS.items():
            offsets, lengths = (self.structure.numbers(directory.entry(tag)) for tag in (offset_tag, length_tag))
            for offset, length in zip(offsets, lengths, strict=False):
                if offset >= 8 and not any(offset < table.stop and table.start < offset + length for table in tables):
                    self.data[offset : offset + length] = bytes(len(self.data[offset : offset + length]))

    def _trim(self) -> None:
        """Cut off zeros behind all that the directories know of."""
        used = 8
        for directory in self.directories().values():
            used = max(used, directory.next_at + 4, *(entry.start + (entry.size or 0) for entry in directory.entries))
        while len(self.data) > used and not self.data[-1]:
            del self.data[-1]


def _plausible(directory: Directory) -> bool:
    """Whether a directory is one, and not what a damaged offset leads to."""
    return 0 < len(directory.entries) < 200 and all(entry.kind in SIZES for entry in directory.entries)


def built(order: str, main: dict[int, Value], children: dict[int, dict[int, Value]]) -> bytes:
    """A block laid out anew; its values are in the byte order that ``order`` names: "<" or ">"."""
    header = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return PREFIX + header + laid_out(order, main, children, 8)


def shortened(exif: Exif, longest: int) -> tuple[bytes, list[str]]:
    """The block laid out anew without its largest values, so that it has at most ``longest`` bytes; and the names of those left out."""
    main, children = exif.values()
    left_out = []
    while len(block := built(exif.structure.order, main, children)) > longest:
        directory, tag = max(((values, tag) for values in (main, *children.values()) for tag in values), key=lambda place: len(place[0][place[1]][2]))
        left_out.append(f"EXIF {name_of(tag)} of {len(directory.pop(tag)[2])} bytes")
    return block, left_out


def name_of(tag: int) -> str:
    """A tag's name in the standard; its number where it has none."""
    return ExifTags.TAGS.get(tag, f"tag {tag}")


def empty() -> Exif:
    """A block without a tag."""
    return Exif(built("<", {}, {}))


def inches(resolution: tuple[float, float, int]) -> tuple[float, float]:
    """A resolution whose unit is 2 or 3, in dots an inch."""
    factor = 2.54 if resolution[2] == 3 else 1
    return resolution[0] * factor, resolution[1] * factor
