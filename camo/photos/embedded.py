"""Pictures that hide in texts: base64 as XMP has it (RFC 4648), or the bytes themselves."""

import base64
import binascii
import io
import re

from PIL import Image

from camo.photos.jpeg_segments import without_streams

BASE64 = re.compile(r"[A-Za-z0-9+/=_\s-]{120,}")
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
NEAR = 64  # bytes in which a picture must begin


def in_text(text: str) -> bool:
    """Whether a text holds a picture in base64 or in hexadecimal digits."""
    for found in BASE64.findall(text):
        letters = "".join(found.split()).replace("-", "+").replace("_", "/").rstrip("=")
        for skipped in range(4):  # letters before it may belong to a word in front
            part = letters[skipped:]
            try:
                if _opens(base64.b64decode(part[: len(part) // 4 * 4])):
                    return True
            except (binascii.Error, ValueError):
                continue
        if (digits := re.search(r"[0-9A-Fa-f]{100,}", letters)) and _opens(bytes.fromhex(digits[0][: len(digits[0]) // 2 * 2])):
            return True
    return False


def in_bytes(content: bytes) -> bool:
    """Whether a text as it is stored holds a picture."""
    return without_streams(content) != content or in_text(content.decode("latin-1"))


def _opens(content: bytes) -> bool:
    for signature in SIGNATURES:
        at = content.find(signature, 0, NEAR)
        if at >= 0:
            try:
                Image.open(io.BytesIO(content[at:])).close()
            except Image.DecompressionBombError:
                return True
            except Exception:  # Pillow's decoders raise almost anything
                continue
            return True
    return False
