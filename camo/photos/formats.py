"""The formats: which can be read and written here, how a file is known by its first bytes, and what each can hold."""

import contextlib
import io
import threading
from collections.abc import Callable
from typing import IO

from PIL import Image, ImageFile

SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "AVIF": ".avif", "HEIF": ".heic"}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")  # of every Pillow; a submission to the task may hold these alone
with contextlib.suppress(ImportError):  # the extra "heic"
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()  # else Pillow loads its rarer formats only once a file needs them
READABLE = (*FORMATS, "GIF", *(name for name in ("AVIF", "HEIF") if name in Image.SAVE))
NEEDS = {"AVIF": "AVIF needs Pillow 11.3 or newer: pip install -U pillow", "HEIF": "HEIC needs the package pillow-heif: pip install pillow-heif"}

ALPHA_FORMATS = {"PNG", "WEBP", "TIFF", "AVIF", "HEIF"}
HOLDS = {  # what a file of each format can say, by the names of the attributes of ``Photo``
    "JPEG": {"exif", "xmp", "icc_profile", "iptc", "resources", "dpi", "aspect", "comments"},
    "PNG": {"exif", "xmp", "icc_profile", "iptc", "resources", "dpi", "aspect", "comments", "text"},
    "WEBP": {"exif", "xmp", "icc_profile", "dpi", "aspect"},  # both in EXIF
    "TIFF": {"exif", "xmp", "icc_profile", "iptc", "resources", "dpi", "aspect"},
    "BMP": {"dpi"},
    "AVIF": {"exif", "xmp", "icc_profile", "dpi", "aspect"},
    "HEIF": {"exif", "xmp", "icc_profile", "dpi", "aspect"},
}

SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
}
RAW_SIGNATURES = {b"FUJIFILMCCD-RAW": "RAF", b"IIU\0": "RW2", b"IIRO": "ORF", b"IIRS": "ORF", b"MMOR": "ORF", b"FOVb": "X3F", b"\0MRM": "MRW"}
BRANDS = {"AVIF": {b"avif", b"avis"}, "HEIF": {b"heic", b"heix", b"heim", b"heis", b"mif1"}}  # after "ftyp" at the start of a file
SEQUENCE_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}
HEAD = 512  # bytes by which a file is known
UNKNOWN = "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"


def identify(content: bytes) -> str:
    """Pillow's name of the format that a file's first bytes show. Raises ValueError for a raw file, a sequence, and what is no picture."""
    head = content[:16]
    for signature, name in RAW_SIGNATURES.items():
        if head.startswith(signature):
            raise ValueError(f"a raw file ({name}); develop it into a JPEG or TIFF first")
    if head[4:8] == b"ftyp":
        return _by_brand(content)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    for signature, name in SIGNATURES.items():
        if head.startswith(signature):
            return name
    raise ValueError(UNKNOWN)


def _by_brand(content: bytes) -> str:
    major = content[8:12]
    compatible = {content[at : at + 4] for at in range(16, min(int.from_bytes(content[:4]), 256), 4)}
    if major in SEQUENCE_BRANDS:  # pillow-heif would show its cover alone
        raise ValueError("an image sequence; animated and multi-page files are not supported")
    if major == b"crx ":
        raise ValueError("a raw file (CR3); develop it into a JPEG or TIFF first")
    name = next((name for name, brands in BRANDS.items() if major in brands), None)
    if name == "HEIF" and major == b"mif1" and b"avif" in compatible:
        name = "AVIF"
    if name is None:
        raise ValueError(UNKNOWN)
    if name not in READABLE:
        raise ValueError(NEEDS[name])
    return name


def opened(content: bytes | IO[bytes], file_format: str) -> ImageFile.ImageFile:
    """Pillow's picture of a file of a known format, its pixels not yet decoded.

    Not ``Image.open``, which has a limit of its own on the size.
    """
    factory: Callable[..., ImageFile.ImageFile] = Image.OPEN[file_format][0]
    return factory(io.BytesIO(content) if isinstance(content, bytes) else content, "")


class Unlimited:
    """``with UNLIMITED:`` lifts the limit on the size that some of Pillow's functions have, and lets it be as it was afterwards.

    It holds for the whole process; several threads can be within the block.
    """

    def __init__(self) -> None:
        self.lock, self.depth, self.limit = threading.Lock(), 0, Image.MAX_IMAGE_PIXELS

    def __enter__(self) -> None:
        with self.lock:
            if not self.depth:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.depth += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.depth -= 1
            if not self.depth:
                Image.MAX_IMAGE_PIXELS = self.limit


UNLIMITED = Unlimited()
