"""The chunks of a PNG file (W3C Portable Network Graphics, third edition)."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = {b"tEXt", b"zTXt", b"iTXt"}
PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # what the pixels of the first picture need
SILENT = {b"bKGD", b"hIST", b"sBIT", b"sPLT", b"acTL", b"fcTL", b"fdAT", b"iDOT", b"vpAg", b"orNT", b"oFFs"}  # how pixels are stored or laid out
MAX_TEXT = 2**20  # bytes of one text, unpacked
MAX_PROFILE = 16 * 2**20  # bytes of a colour profile, unpacked
XMP_KEYWORD = b"XML:com.adobe.xmp"
RAW_PROFILE = b"Raw profile type "  # ImageMagick's way to put EXIF, IPTC and XMP into a text


@dataclass
class Png:
    """A PNG file taken apart.

    Attributes:
        header: IHDR's content.
        chunks: (type, content) of each further chunk, in order, but for those of the picture.
        picture: a PNG file of the picture alone.
        frames: of an animation; 1 for a still picture.
        damaged: the types of chunks whose checksum is wrong, without those of the picture.
        after: what follows the end.
    """

    header: bytes = b""
    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    picture: bytes = b""
    frames: int = 1
    damaged: list[bytes] = field(default_factory=list)
    after: bytes = b""

    def first(self, kind: bytes) -> bytes | None:
        """The content of the first chunk of a type."""
        return next((content for name, content in self.chunks if name == kind), None)


def take_apart(content: bytes) -> Png:
    """Find the chunks of a PNG file. Raises ValueError where it does not begin with a header."""
    png, pieces, at, ended = Png(), [SIGNATURE], len(SIGNATURE), False
    while at + 8 <= len(content) and not ended:
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        end = at + 8 + length
        if kind in PICTURE:
            if end + 4 <= len(content):
                pieces.append(content[at : end + 4])
            elif kind == b"IDAT":  # cut off: perhaps all pixels are there
                pieces.append(chunk(kind, content[at + 8 :]))
            ended = kind == b"IEND"
        elif not re.fullmatch(rb"[A-Za-z]{4}", kind):
            break
        elif end + 4 <= len(content):
            body = content[at + 8 : end]
            if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(content[end : end + 4]):
                png.damaged.append(kind)
            else:
                png.chunks.append((kind, body))
        if kind == b"IHDR" and not png.header:
            png.header = content[at + 8 : min(end, len(content))]
        at = end + 4
    if len(png.header) != 13:
        raise ValueError("no header in it")
    if not ended:
        pieces.append(chunk(b"IEND", b""))
    png.after = content[at:] if ended else b""
    png.picture = b"".join(pieces)
    animation = png.first(b"acTL")
    if animation and len(animation) >= 8 and png.first(b"fcTL"):
        png.frames = max(1, int.from_bytes(animation[:4]))
    return png


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return b"".join((len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)))


def joined(png: bytes, additions: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A PNG with chunks put behind its header."""
    end = len(SIGNATURE) + 25
    return b"".join((png[:end], *(chunk(kind, content) for kind, content in additions), memoryview(png)[end:]))


def unpacked(data: bytes, limit: int) -> bytes:
    """Data that zlib packed. Raises ValueError where it is damaged or more than ``limit`` bytes."""
    try:
        worker = zlib.decompressobj()
        content = worker.decompress(data, limit)
        if worker.unconsumed_tail and worker.decompress(worker.unconsumed_tail, 1):
            raise ValueError(f"more than {limit} bytes")
    except zlib.error as error:
        raise ValueError("damaged") from error
    return content


def text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a tEXt, zTXt or iTXt chunk, the text in the bytes that were stored. Raises ValueError where it is damaged or too long."""
    keyword, separator, rest = content.partition(b"\0")
    if not separator:
        return keyword, b""
    if kind == b"zTXt":
        if rest[:1] != b"\0":
            raise ValueError("damaged")
        rest = unpacked(rest[1:], MAX_TEXT)
    elif kind == b"iTXt":
        parts = rest[2:].split(b"\0", 2)
        if len(parts) != 3:
            raise ValueError("damaged")
        rest = unpacked(parts[2], MAX_TEXT) if rest[0] else parts[2]
    if len(rest) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT} bytes")
    return keyword, rest


def international_text(keyword: bytes, value: bytes) -> tuple[bytes, bytes]:
    """An uncompressed iTXt chunk of UTF-8 text."""
    return b"iTXt", keyword + b"\0\0\0\0\0" + value


def raw_profile(value: bytes) -> bytes:
    """The bytes in the text of a raw profile: a name, their number and the bytes in hexadecimal. Raises ValueError where it is damaged."""
    lines = value.split(b"\n", 3)
    if len(lines) != 4:
        raise ValueError("damaged")
    return bytes.fromhex(b"".join(lines[3].split()).decode("ascii"))[: int(lines[2])]


def raw_profile_chunk(name: bytes, content: bytes) -> tuple[bytes, bytes]:
    """A zTXt chunk that carries a raw profile."""
    digits = content.hex()
    rows = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"zTXt", RAW_PROFILE + name + b"\0\0" + zlib.compress(b"\n%b\n%8d\n%b\n" % (name, len(content), rows.encode()))


def comment(value: bytes) -> tuple[bytes, bytes]:
    """A comment as a chunk of text: tEXt if it is ASCII, iTXt if it is UTF-8, else tEXt, whose letters are Latin-1."""
    try:
        value.decode("ascii")
        return b"tEXt", b"Comment\0" + value
    except UnicodeDecodeError:
        pass
    try:
        value.decode("utf-8")
        return international_text(b"Comment", value)
    except UnicodeDecodeError:
        return b"tEXt", b"Comment\0" + value


def profile(icc_profile: bytes) -> bytes:
    """The content of an iCCP chunk."""
    return b"ICC Profile\0\0" + zlib.compress(icc_profile)
