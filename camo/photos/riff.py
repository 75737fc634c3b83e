"""The chunks of a WebP file (RFC 9649)."""

from collections.abc import Iterator

SILENT = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF", b"XMP ", b"ANIM", b"ANMF"}


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each chunk; what is cut off is left out."""
    at, end = 12, end_of(content)
    while at + 8 <= end:
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        yield content[at : at + 4], content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def end_of(content: bytes) -> int:
    """Where the file ends by its own words; other data may follow."""
    return min(len(content), 8 + int.from_bytes(content[4:8], "little"))
