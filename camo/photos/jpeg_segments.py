"""The segments of a JPEG file (ITU-T T.81, annex B; JFIF: ITU-T T.871; Exif: CIPA DC-008; MPF: CIPA DC-007; XMP: ISO 16684-1, Adobe part 3)."""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

SOI, EOI, SOS, COM = 0xD8, 0xD9, 0xDA, 0xFE
APP0, APP1, APP2, APP12, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xEC, 0xED, 0xEE
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
LONGEST = 65533  # bytes of content in one segment

JFIF, JFXX, EXIF, ICC, MPF, ISO_GAIN_MAP = b"JFIF\0", b"JFXX\0", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"
XMP, EXTENDED_XMP, PHOTOSHOP = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0", b"Photoshop 3.0\0"
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)  # within a scan: all but stuffed bytes and restarts


@dataclass
class Jpeg:
    """A JPEG file taken apart.

    Attributes:
        segments: (marker, content) of each APPn and COM segment, in order.
        picture: what a decoder needs, up to and with the end marker: the file without those segments, but for JFIF's and Adobe's own.
        after: what follows the end marker: second pictures, a video, padding.
        ended: whether the end marker was there; where it was not, ``picture`` has one all the same.
        precision: bits of a sample.
        subsampling: of the chroma: 4:4:4, 4:2:2 or 4:2:0, whichever is nearest; None where there is none.
        complete: whether each component was sent in full, by what the scans announce.
    """

    segments: list[tuple[int, bytes]] = field(default_factory=list)
    picture: bytes = b""
    after: bytes = b""
    ended: bool = True
    precision: int = 8
    subsampling: str | None = None
    complete: bool = False

    def contents(self, marker: int, prefix: bytes) -> list[bytes]:
        """What follows ``prefix`` in each segment of this kind."""
        return [content[len(prefix) :] for kind, content in self.segments if kind == marker and content.startswith(prefix)]


def take_apart(content: bytes) -> Jpeg:
    """Find the segments of a JPEG file. Raises ValueError where there is no frame or no scan in it."""
    jpeg, pieces, at = Jpeg(), [b"\xff\xd8"], 2
    components: set[int] = set()
    left: dict[int, list[int]] = {}  # of each component: for each of its 64 coefficients, how many low bits are still to come
    scans = 0
    while True:
        marker, start, end = _next_segment(content, at)
        if marker is None or marker == EOI:
            break
        body = content[start:end]
        if marker == COM or APP0 <= marker <= 0xEF:
            jpeg.segments.append((marker, body))
            if (marker == APP14 and body.startswith(b"Adobe")) or (marker == APP0 and body.startswith(JFIF)):  # they say which colours these are
                pieces.append(_segment(marker, body[:12] if marker == APP14 else body[:12] + b"\0\0"))
        else:
            pieces.append(_segment(marker, body))
        if marker in FRAMES and len(body) >= 6:
            jpeg.precision, components = body[0], {body[6 + 3 * index] for index in range(body[5]) if 6 + 3 * index < len(body)}
            jpeg.subsampling = _subsampling(body)
        if marker == SOS:
            scans += 1
            _note_scan(body, left)
            found = MARKER.search(content, end)
            at = found.start() if found else len(content)
            pieces.append(content[end:at] if found else content[end:at].rstrip(b"\xff"))  # half a marker
        else:
            at = end
    if not components or not scans:
        raise ValueError("no picture in it")
    jpeg.ended = marker == EOI
    jpeg.after = content[start:] if jpeg.ended else b""
    pieces.append(b"\xff\xd9")
    jpeg.picture = b"".join(pieces)
    jpeg.complete = all(name in left and not any(left[name]) for name in components)
    return jpeg


def _next_segment(content: bytes, at: int) -> tuple[int | None, int, int]:
    """The next marker with a length, or EOI: (marker, start, end of its content); (None, ...) at the end of the file. Rubbish between is skipped."""
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 2 > len(content):
            return None, len(content), len(content)
        marker = content[at + 1]
        if marker == EOI:
            return EOI, at + 2, at + 2
        if marker in {0x00, 0xFF} or marker in BARE:
            at += 2 if marker != 0xFF else 1
            continue
        if at + 4 > len(content):
            return None, len(content), len(content)
        end = at + 2 + max(2, int.from_bytes(content[at + 2 : at + 4]))
        return marker, at + 4, end


def _subsampling(frame: bytes) -> str | None:
    """The chroma subsampling, by the sampling factors of a frame's first two components (T.81, B.2.2)."""
    if frame[5] < 3 or len(frame) < 11:
        return None
    across, down = ((frame[7] >> 4) > (frame[10] >> 4), (frame[7] & 15) > (frame[10] & 15))
    return "4:4:4" if not across else "4:2:0" if down else "4:2:2"


def _note_scan(header: bytes, left: dict[int, list[int]]) -> None:
    """Note what a scan brings (T.81, B.2.3): its components, and which bits of which coefficients."""
    if not header or len(header) < 1 + 2 * header[0] + 3:
        return
    first, last, bits = header[1 + 2 * header[0] :][:3]
    for index in range(header[0]):
        coefficients = left.setdefault(header[1 + 2 * index], [1] * 64)
        coefficients[first : min(last, 63) + 1] = [bits & 15] * (min(last, 63) + 1 - first)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def segments(marker: int, prefix: bytes, content: bytes) -> Iterator[bytes]:
    """Segments of one kind that carry ``content``, as many as it takes, each with the prefix."""
    room = LONGEST - len(prefix)
    for at in range(0, len(content) or 1, room):
        yield _segment(marker, prefix + content[at : at + room])


def one_segment(marker: int, content: bytes) -> bytes:
    """One segment. Raises ValueError where it is too long."""
    if len(content) > LONGEST:
        raise ValueError(f"{len(content)} bytes are too long for one segment of a JPEG")
    return _segment(marker, content)


def icc_segments(profile: bytes) -> Iterator[bytes]:
    """The segments of a colour profile (ICC.1, annex B.4). Raises ValueError where it is too long."""
    room = LONGEST - len(ICC) - 2
    count = -(-len(profile) // room)
    if count > 255:
        raise ValueError(f"a colour profile of {len(profile)} bytes is too long for a JPEG")
    for index in range(count):
        yield _segment(APP2, ICC + bytes((index + 1, count)) + profile[index * room : (index + 1) * room])


def icc_profile(jpeg: Jpeg) -> bytes | None:
    """The colour profile put together; None where there is none or a part is missing."""
    parts = {chunk[0]: chunk[2:] for chunk in jpeg.contents(APP2, ICC) if len(chunk) > 2}
    counts = {chunk[1] for chunk in jpeg.contents(APP2, ICC) if len(chunk) > 2}
    if len(counts) != 1 or set(parts) != set(range(1, max(counts) + 1)):
        return None
    return b"".join(parts[index] for index in sorted(parts))


def extended_xmp(jpeg: Jpeg, guid: str) -> bytes | None:
    """The extended XMP packet of this GUID put together; None where a part is missing."""
    parts, length = {}, 0
    for content in jpeg.contents(APP1, EXTENDED_XMP):
        if len(content) > 40 and content[:32].upper() == guid.encode("ascii", "replace").upper():
            length, at = struct.unpack_from(">II", content, 32)
            parts[at] = content[40:]
    packet = b"".join(parts[at] for at in sorted(parts))
    return packet if parts and len(packet) == length else None


def extended_xmp_segments(packet: bytes, guid: str) -> Iterator[bytes]:
    """The segments of an extended XMP packet."""
    room = LONGEST - len(EXTENDED_XMP) - 40
    for at in range(0, len(packet), room):
        yield _segment(APP1, EXTENDED_XMP + guid.encode() + struct.pack(">II", len(packet), at) + packet[at : at + room])


def stream_end(content: bytes | bytearray, at: int) -> int | None:
    """Where the JPEG stream ends that begins at ``at`` in other data; None if none begins there."""
    known, position = False, at + 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == EOI:
            return position + 2
        if marker == 0xFF:
            position += 1
            continue
        if not 0xC0 <= marker <= 0xFE or marker in BARE:
            break
        known = known or marker in FRAMES or marker in {0xDB, 0xC4, 0xDD, COM} or APP0 <= marker <= 0xEF
        if marker == SOS:
            end = content.find(b"\xff\xd9", position)
            return end + 2 if end >= 0 else len(content)
        length = int.from_bytes(content[position + 2 : position + 4])
        if length < 2:
            break
        position += 2 + length
    if not known:
        return None
    end = content.find(b"\xff\xd9", min(position, len(content)))
    return end + 2 if end >= 0 else len(content)


def without_streams(content: bytes | bytearray) -> bytes:
    """The data with each JPEG stream in it overwritten by zeros."""
    data, at = bytearray(content), 0
    while (at := data.find(b"\xff\xd8\xff", at)) >= 0:
        end = stream_end(data, at)
        if end is None:
            at += 2
        else:
            data[at:end] = bytes(end - at)
    return bytes(data)


def joined(jpeg: bytes, additions: Iterable[bytes]) -> bytes:
    """A JPEG that Pillow wrote, which begins with SOI and APP0, with segments put behind those two."""
    end = 4 + int.from_bytes(jpeg[4:6])
    return b"".join((jpeg[:end], *additions, memoryview(jpeg)[end:]))
