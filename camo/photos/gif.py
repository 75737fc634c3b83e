"""The blocks of a GIF file (GIF89a, CompuServe 1990; XMP in it: Adobe's XMP specification, part 3)."""

from dataclasses import dataclass, field

COMMENT, APPLICATION, CONTROL = 0xFE, 0xFF, 0xF9  # labels of extensions
XMP, ICC, SILENT = b"XMP DataXMP", b"ICCRGBG1012", (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # applications; how often an animation is repeated
TRAILER = 258  # bytes behind an XMP packet, by which readers that take it for a chain of blocks find its end


@dataclass
class Gif:
    """What a GIF file says besides its picture; ``left_out`` names other extensions, ``after`` follows the end."""

    comments: list[bytes] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    icc_profile: bytes | None = None
    left_out: list[str] = field(default_factory=list)
    after: bytes = b""


def take_apart(content: bytes) -> Gif:
    """Find the extensions of a GIF file, as far as they can be read."""
    gif, at = Gif(), 13 + _table(content, 10)
    while at + 1 < len(content):
        if content[at] == 0x21:
            start = at + 2
            blocks, at = _blocks(content, start)
            _note_extension(gif, content[start - 1], blocks, content[start:at])
        elif content[at] == 0x2C:  # a picture: its place, its table, and its data behind one number
            _, at = _blocks(content, at + 11 + _table(content, at + 9))
        else:
            break
    gif.after = content[at + 1 :] if content[at : at + 1] == b"\x3b" else b""
    return gif


def _note_extension(gif: Gif, label: int, blocks: list[bytes], whole: bytes) -> None:
    name = blocks[0] if blocks else b""
    if label == COMMENT and any(blocks):
        gif.comments.append(b"".join(blocks))
    elif label == APPLICATION and name == XMP:
        gif.xmp.append(whole[1 + len(XMP) : -TRAILER])
    elif label == APPLICATION and name == ICC:
        gif.icc_profile = gif.icc_profile or b"".join(blocks[1:])
    elif label not in {COMMENT, CONTROL} and name not in SILENT:
        gif.left_out.append(f"GIF extension {(name[:11].decode('latin-1') if label == APPLICATION else label)!r}")


def _table(content: bytes, flags_at: int) -> int:
    """Bytes of the table of colours that a byte of flags announces."""
    flags = content[flags_at] if flags_at < len(content) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks(content: bytes, at: int) -> tuple[list[bytes], int]:
    """A chain of blocks, each behind its length, and where it ends."""
    blocks = []
    while at < len(content) and content[at]:
        blocks.append(content[at + 1 : at + 1 + content[at]])
        at += 1 + content[at]
    return blocks, at + 1
