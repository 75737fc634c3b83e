"""Files <-> tensors: the public face of this folder. Upright RGB pixels in, the same format and metadata out, and the bytes of a real JPEG.

Everything here works on the CPU; nothing here knows a network.
"""

import stat
from pathlib import Path

import torch

from camo import CamoError
from camo.photos import MAX_PIXELS
from camo.photos.decode import photo_of, pixels_of
from camo.photos.encode import encode
from camo.photos.files import atomic_write, reason
from camo.photos.find import SUFFIXES, PhotoFile, find_photos, output_suffix
from camo.photos.formats import FORMATS, HEAD, NEEDS, READABLE, UNKNOWN, UNLIMITED, identify, opened
from camo.photos.metadata import fitted
from camo.photos.photo import EncodeError, Photo
from camo.photos.pixels import jpeg_bytes, jpeg_roundtrip, to_float, to_uint8

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "READABLE",
    "SUFFIXES",
    "EncodeError",
    "Photo",
    "PhotoFile",
    "decode",
    "encode",
    "find_photos",
    "jpeg_bytes",
    "jpeg_roundtrip",
    "output_suffix",
    "read",
    "size_of",
    "to_float",
    "to_uint8",
    "write",
]


def read(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC file of one frame, whatever its suffix.

    Deeper pixels become 8-bit ones, palettes are expanded; CMYK, wide-gamut RGB and PNGs of another gamma are converted to sRGB, as viewers show
    them. A GIF becomes a PNG: 256 colours would not hold a change that nobody sees.
    A JPEG that carries a preview or a gain map besides (as phones write), or a TIFF with a page of a thumbnail or a mask, gives its main picture;
    raw files, animations and other files of several frames are refused. What was left out is named in ``Photo.left_out``. Smaller copies of the
    picture, thumbnails and previews, are always left out and not named.

    Args:
        path: the file.
        max_pixels: the most pixels that a photo may have.

    Raises:
        CamoError: the file cannot be read, holds no such picture, is damaged, or has more than ``max_pixels``.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CamoError(f"{str(path)!r}: not a file")  # a pipe would block for ever
        if status.st_size == 0:
            raise CamoError(f"{str(path)!r}: the file is empty")
        photo = photo_of(path.read_bytes(), max_pixels)
        return fitted(photo, photo.format, stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns)
    except CamoError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything
        text = reason(error)
        told = text if text == UNKNOWN or text in NEEDS.values() else f"cannot be read: {text}"
        raise CamoError(f"{str(path)!r}: {told}") from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height (px) of the stored pixels, by the file's header. Raises whatever Pillow's decoders raise where it cannot be read."""
    with path.open("rb") as file, UNLIMITED:
        name = identify(file.read(HEAD))
        file.seek(0)
        return opened(file, name).size


def write(photo: Photo, path: Path, overwrite: bool = False, content: bytes | None = None) -> None:
    """Write a photo in its own format: JPEG, WebP and AVIF at quality 95, HEIC at 75, PNG, TIFF and BMP without loss, as a WebP that was so.

    JPEG is written 4:4:4, AVIF and HEIC with the chroma subsampling that the source had. What ``Photo`` says is kept where the format can hold it;
    ``camo.photos.metadata.as_format`` tells what it cannot. The file has the permissions and the time of the source, appears whole or not at all: it
    is written beside its place, flushed to the disk and then renamed. Missing folders are made. Where the photo has been encoded already,
    ``content`` is what is written.

    Raises:
        CamoError: the file exists and ``overwrite`` is not set, or it cannot be written; nothing is left behind.
    """
    try:
        with atomic_write(path, overwrite, photo.mode, photo.modified) as part:
            part.write_bytes(encode(photo) if content is None else content)
    except EncodeError as error:
        raise CamoError(f"{str(path)!r}: cannot be written: {error}") from error


def decode(content: bytes) -> torch.Tensor:
    """The pixels of an encoded photo, (3, H, W) uint8 RGB, as ``read`` gives them."""
    return pixels_of(content)
