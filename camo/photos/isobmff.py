"""The boxes of an AVIF or HEIC file (ISO/IEC 14496-12, 23008-12), as far as metadata and colours are concerned."""

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from camo.photos.colour import HDR_MESSAGE, HDR_TRANSFERS, WIDE_PRIMARIES

PICTURE = {b"ftyp", b"meta", b"mdat", b"free", b"skip", b"wide", b"uuid"}  # boxes of the main level


@dataclass(frozen=True)
class Item:
    """One item of a file.

    Attributes:
        kind: four characters: Exif, mime, hvc1, av01, grid ...
        kind_at: where in the file they stand.
        content_type: of a mime item.
        content: None where it lies elsewhere or is cut off.
    """

    kind: bytes
    kind_at: int
    content_type: bytes
    content: bytes | None


def boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end of the content) of each box in a range."""
    while start + 8 <= end:
        size, kind, header = int.from_bytes(content[start : start + 4]), content[start + 4 : start + 8], 8
        if size == 1:
            size, header = int.from_bytes(content[start + 8 : start + 16]), 16
        if size == 0:
            size = end - start
        if size < header or start + size > end:
            return
        yield kind, start + header, start + size
        start += size


def items(content: bytes) -> list[Item]:
    """The items that the file's first "meta" box lists. What is damaged is left out."""
    try:
        meta = next((start, end) for kind, start, end in boxes(content, 0, len(content)) if kind == b"meta")
        inner = {kind: (start, end) for kind, start, end in boxes(content, meta[0] + 4, meta[1])}
        places = _places(content, *inner[b"iloc"], inner.get(b"idat", (0, 0))[0]) if b"iloc" in inner else {}
        return [Item(kind, at, mime, places.get(number)) for number, kind, at, mime in _entries(content, *inner[b"iinf"])]
    except (StopIteration, KeyError, struct.error, IndexError):
        return []


def _entries(content: bytes, start: int, end: int) -> Iterator[tuple[int, bytes, int, bytes]]:
    """(number, kind, where the kind stands, content type) of each item in an iinf box."""
    for kind, at, stop in boxes(content, start + (6 if content[start] == 0 else 8), end):
        version = content[at]
        if kind != b"infe" or version < 2:
            continue
        wide = 2 if version == 2 else 4
        number = int.from_bytes(content[at + 4 : at + 4 + wide])
        kind_at = at + 4 + wide + 2
        after_name = content[kind_at + 4 : stop].partition(b"\0")[2]
        yield number, content[kind_at : kind_at + 4], kind_at, after_name.partition(b"\0")[0]


def _places(content: bytes, start: int, end: int, data: int) -> dict[int, bytes | None]:
    """The content of each item, by an iloc box; ``data`` is where that of the idat box begins."""
    version, sizes = content[start], struct.unpack_from(">BB", content, start + 4)
    offset_size, length_size, base_size, index_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15 if version else 0
    wide, at, result = (2 if version < 2 else 4), start + 6, {}

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > end:
            raise IndexError
        return int.from_bytes(content[at - size : at])

    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)  # of the file that it lies in: 0 is this one
        base, pieces = number(base_size), []
        for _ in range(number(2)):
            number(index_size)
            first = base + number(offset_size) + (data if method == 1 else 0)
            length = number(length_size)
            pieces.append(content[first : first + length] if method < 2 and first + length <= len(content) else None)
        result[item] = None if None in pieces else b"".join(piece for piece in pieces if piece is not None)
    return result


def exif(found: list[Item]) -> list[bytes]:
    """The EXIF blocks, each beginning with its TIFF header."""
    blocks = [item.content for item in found if item.kind == b"Exif" and item.content and len(item.content) > 8]
    return [block[min(4 + int.from_bytes(block[:4]), len(block)) :] for block in blocks]


def xmp(found: list[Item]) -> list[bytes]:
    """The XMP packets."""
    return [item.content for item in found if item.kind == b"mime" and item.content_type == b"application/rdf+xml" and item.content]


def without_metadata(content: bytes, found: list[Item]) -> bytes:
    """The file with its metadata items renamed, so that no decoder stumbles over what they hold."""
    data = bytearray(content)
    for item in found:
        if item.kind in {b"Exif", b"mime"}:
            data[item.kind_at : item.kind_at + 4] = b"skip"
    return bytes(data)


def further(content: bytes) -> list[str]:
    """The names of what lies beside the picture: boxes of the main level that it does not need, and bytes behind the last one."""
    names, found = [], list(itertools.takewhile(lambda box: box[0].isalnum(), boxes(content, 0, len(content))))
    for kind, _, _ in found:
        if kind in {b"mpvd", b"moov"}:
            names.append("motion-photo video")
        elif kind not in PICTURE:
            names.append(f"box {kind.decode('latin-1')!r}")
    rest = content[max((end for _, _, end in found), default=0) :].strip(b"\0")
    return names + ([f"{len(rest)} bytes behind the picture"] if rest else [])


def check_colours(content: bytes) -> None:
    """Refuse a file whose colours, by the first of its nclx boxes, are not those of sRGB: decoders hand them out as if they were."""
    colours = re.search(rb"colrnclx(..)(..)", content, re.DOTALL)
    if colours and (int.from_bytes(colours[1]) in WIDE_PRIMARIES or int.from_bytes(colours[2]) in HDR_TRANSFERS):
        raise ValueError(HDR_MESSAGE)


def av1_storage(content: bytes) -> tuple[int, str]:
    """Bits of a sample and chroma subsampling of an AVIF, by its av1C boxes; an alpha plane, which has no chroma, only if there is no other."""
    bits, subsampling = 8, "4:0:0"
    for found in re.finditer(rb"av1C\x81.(.)", content, re.DOTALL):
        flags = found[1][0]
        bits = max(bits, (12 if flags & 0x20 else 10) if flags & 0x40 else 8)
        if not flags & 0x10:
            subsampling = {0: "4:4:4", 0x08: "4:2:2", 0x0C: "4:2:0"}.get(flags & 0x0C, "4:4:4")
    return bits, subsampling
