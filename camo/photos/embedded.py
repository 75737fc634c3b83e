"""Pictures that hide in other data: their bytes, or base64 (RFC 4648) and hexadecimal digits in a text, as XMP and EXIF have them."""

import base64
import io
import re
from collections.abc import Iterator

from PIL import Image

from camo.photos import isobmff
from camo.photos.jpeg_segments import without_streams

BASE64 = re.compile(r"[A-Za-z0-9+/=_ \t\r\n-]{120,}")
BEGINNINGS = re.compile(r"/9j/|iVBORw0KGgo|UklGR|R0lGOD|AAAA.GZ0eXB|SUkqA|TU0AK")  # in base64: of JPEG, PNG, WebP, GIF, AVIF or HEIC, TIFF
DIGITS = re.compile(r"(?:[0-9A-Fa-f]{2}[ \t\r\n]*){60,}")
SIGNATURES = (b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM")  # too short to be believed
FILES = re.compile(rb"\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|....ftyp(?:avi[fs]|hei[cxms]|mif1)", re.DOTALL)  # JPEG has a search of its own
NEAR = 64  # bytes in which a picture must begin
TRIED = 16  # places in one text: more are no picture, but an attempt to keep us busy


def in_text(text: str) -> bool:
    """Whether a text holds a picture in base64 or in hexadecimal digits."""
    return any(True for _ in _in_text(text))


def in_bytes(content: bytes) -> bool:
    """Whether data hold a picture, as bytes or in a text."""
    return without_pictures(content) != content


def without_pictures(content: bytes | bytearray) -> bytes:
    """The data with each picture in it overwritten by zeros."""
    data = bytearray(without_streams(content))
    for found in FILES.finditer(bytes(data)):
        file = bytes(data[found.start() : _end(data, found.start(), found[0])])
        if _opens(file):
            data[found.start() : found.start() + len(file)] = bytes(len(file))
    for start, end in _in_text(data.decode("latin-1")):
        data[start:end] = bytes(end - start)
    return bytes(data)


def _in_text(text: str) -> Iterator[tuple[int, int]]:
    """Where the pictures in a text begin and end."""
    for found in BASE64.finditer(text):
        starts = [found.start(), *(found.start() + begin.start() for begin in BEGINNINGS.finditer(found[0]))]
        for start in starts[:TRIED]:
            if _opens_decoded(text[start : found.end()]):
                yield start, found.end()
                break
    for found in DIGITS.finditer(text):
        if _begins(bytes.fromhex(found[0])):
            yield found.start(), found.end()


def _opens_decoded(text: str) -> bool:
    letters = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    for skipped in range(4):  # letters before it may belong to a word in front
        part = letters[skipped:]
        try:
            if _begins(base64.b64decode(part + "=" * (-len(part) % 4))):
                return True
        except ValueError:  # one letter more than there can be
            continue
    return False


def _begins(content: bytes) -> bool:
    """Whether a picture begins in the first bytes, whole or not."""
    starts = (content.find(signature, 0, NEAR) for signature in SIGNATURES)
    return bool(FILES.search(content, 0, NEAR)) or any(_opens(content[start:]) for start in starts if start >= 0)


def _opens(content: bytes) -> bool:
    try:
        Image.open(io.BytesIO(content)).close()
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's decoders raise almost anything
        return False
    return True


def _end(data: bytes | bytearray, at: int, signature: bytes) -> int:
    """Where a file ends that begins in other data: a PNG, WebP or GIF, or one of boxes."""
    if signature.startswith(b"RIFF"):
        return at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    if signature[4:8] == b"ftyp":
        known = (end for kind, _, end in isobmff.boxes(bytes(data), at, len(data)) if kind.isalnum())
        return max(known, default=len(data))
    last, length = (b"IEND", 8) if signature.startswith(b"\x89") else (b"\0;", 2)
    end = data.find(last, at)
    return end + length if end >= 0 else len(data)
