"""The chunks of a WebP file (RFC 9649)."""

import struct
from dataclasses import dataclass, field

PICTURE = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}  # what the pixels need, besides VP8X
METADATA_FLAGS = 0x20 | 0x08 | 0x04  # of VP8X: a profile, EXIF and XMP are there


@dataclass
class WebP:
    """A WebP file taken apart.

    Attributes:
        chunks: (type, content) of each chunk that says something besides the picture, in order.
        picture: a WebP file of the picture alone.
        lossless: whether its pixels are stored without loss.
        damaged: the types of such chunks that are cut off.
        after: what follows the end.
    """

    chunks: list[tuple[bytes, bytes]] = field(default_factory=list)
    picture: bytes = b""
    lossless: bool = False
    damaged: list[bytes] = field(default_factory=list)
    after: bytes = b""

    def first(self, kind: bytes) -> bytes | None:
        """The content of the first chunk of a type."""
        return next((content for name, content in self.chunks if name == kind), None)


def take_apart(content: bytes) -> WebP:
    """Find the chunks of a WebP file. Whether its picture makes sense is for a decoder to say."""
    webp, pieces, at = WebP(), [], 12
    end = min(len(content), 8 + int.from_bytes(content[4:8], "little"))
    while at + 8 <= end:
        kind, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
        body = content[at + 8 : min(at + 8 + length, end)]
        if kind == b"VP8X" and body:
            pieces.append(content[at : at + 8] + bytes((body[0] & ~METADATA_FLAGS,)) + body[1:])
        elif kind in PICTURE:
            webp.lossless = webp.lossless or kind == b"VP8L"
            pieces.append(content[at : at + 8] + body + b"\0" * (len(body) % 2))
        elif len(body) < length:
            webp.damaged.append(kind)
        else:
            webp.chunks.append((kind, body))
        at += 8 + length + length % 2
    body = b"WEBP" + b"".join(pieces)
    webp.picture = b"RIFF" + struct.pack("<I", len(body)) + body
    webp.after = content[end:]
    return webp
