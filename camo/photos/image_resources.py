"""Photoshop's image resources (Adobe Photoshop File Formats Specification) and IPTC records in them (IPTC-IIM 4.2)."""

import struct
from collections.abc import Iterable, Iterator

from camo.photos.embedded import without_pictures

IPTC, IPTC_DIGEST, RESOLUTION = 1028, 1061, 1005
PREVIEWS = range(200, 203)  # data sets of record 2: a preview and what kind of file it is
SECOND_IPTC = "a second block of IPTC"
COPIES = {1033, 1036, 1039, 1058, 1059, 1060}  # thumbnails, colour profile, EXIF and XMP: of these the file has its own
PATHS = range(2000, 2999)  # in parts of the picture as it was stored


def take_apart(content: bytes) -> list[tuple[int, bytes, bytes]]:
    """(number, name, content) of each resource, as far as they can be read."""
    found, at = [], 0
    while content[at : at + 4] in {b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR"} and at + 12 <= len(content):
        number, length = struct.unpack_from(">HB", content, at + 4)
        name = content[at + 7 : at + 7 + length]
        at += 6 + (length + 2) // 2 * 2
        size = int.from_bytes(content[at : at + 4])
        if at + 4 + size > len(content):
            break
        found.append((number, name, content[at + 4 : at + 4 + size]))
        at += 4 + size + size % 2
    return found


def joined(resources: Iterable[tuple[int, bytes, bytes]]) -> bytes:
    """The block of resources."""
    pieces = []
    for number, name, content in resources:
        title = bytes((len(name),)) + name
        title += b"\0" * (len(title) % 2)
        pieces.append(b"8BIM" + struct.pack(">H", number) + title + struct.pack(">I", len(content)) + content + b"\0" * (len(content) % 2))
    return b"".join(pieces)


def mended(content: bytes, orientation: int) -> tuple[bytes | None, bytes | None, list[str]]:
    """IPTC, the other resources without pictures and without copies of what a file has besides, and the names of what was left out.

    Resolutions are exchanged where the picture was turned on its side; paths in a turned picture are left out.
    """
    iptc: bytes | None = None
    kept: list[tuple[int, bytes, bytes]] = []
    left_out: list[str] = []
    for number, name, data in take_apart(content):
        if number == IPTC:
            left_out += [SECOND_IPTC] if iptc and data != iptc else []
            iptc = iptc or data or None
        elif number in PATHS and orientation > 1:
            left_out.append("Photoshop paths")
        elif number == RESOLUTION and orientation >= 5 and len(data) == 16:
            kept.append((number, name, data[8:] + data[:8]))
        elif number not in COPIES:
            kept.append((number, name, without_pictures(data)))
    others = [resource for resource in kept if resource[0] != IPTC_DIGEST]
    return iptc, joined(kept) if others else None, list(dict.fromkeys(left_out))


def with_iptc(resources: bytes | None, iptc: bytes | None) -> bytes:
    """The block of resources with IPTC in it."""
    return (joined([(IPTC, b"", iptc)]) if iptc else b"") + (resources or b"")


def iptc_of_tiff(value: bytes) -> bytes:
    """IPTC as TIFF's tag 33723 holds it: padded, and in the wrong byte order where a writer took it for whole numbers."""
    if value[:1] != b"\x1c" and len(value) % 4 == 0 and value[3:4] == b"\x1c":
        value = b"".join(value[at : at + 4][::-1] for at in range(0, len(value), 4))
    end = max((end for _, end in _records(value)), default=0)
    return value[:end] if not value[end:].strip(b"\0") else value


def without_previews(iptc: bytes) -> bytes:
    """The records without the preview that IPTC can hold, and with any other picture in them overwritten."""
    previews = [(start, end) for start, end in _records(iptc) if iptc[start + 1] == 2 and iptc[start + 2] in PREVIEWS]
    for start, end in reversed(previews):
        iptc = iptc[:start] + iptc[end:]
    return without_pictures(iptc)


def _records(value: bytes) -> Iterator[tuple[int, int]]:
    """Where each data set begins and ends."""
    at = 0
    while value[at : at + 1] == b"\x1c" and at + 5 <= len(value):
        length, size = int.from_bytes(value[at + 3 : at + 5]), 0
        if length & 0x8000:  # the length of the length
            size = length & 0x7FFF
            length = int.from_bytes(value[at + 5 : at + 5 + size])
        start, at = at, at + 5 + size + length
        yield start, at
