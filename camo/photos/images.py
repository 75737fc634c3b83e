"""Files <-> tensors: the public face of this folder. Upright RGB pixels in, the same format and metadata out, and the bytes of a real JPEG.

Everything here works on the CPU; nothing here knows a network.
"""

import io
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
    "read_content",
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
        return read_content(path.read_bytes(), str(path), max_pixels, stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime_ns)
    except OSError as error:
        raise CamoError(f"{str(path)!r}: cannot be read: {reason(error)}") from error


def read_content(content: bytes, name: str, max_pixels: int = MAX_PIXELS, mode: int | None = None, modified: int | None = None) -> Photo:
    """Decode what a file holds, as ``read`` does.

    Args:
        content: the file's bytes.
        name: what errors call it.
        max_pixels: the most pixels that a photo may have.
        mode: the file's permissions.
        modified: when it was changed, in nanoseconds since the epoch.

    Raises:
        CamoError: as ``read``.
    """
    try:
        if not content:
            raise CamoError(f"{name!r}: the file is empty")
        photo = photo_of(content, max_pixels)
        return fitted(photo, photo.format, mode, modified)
    except CamoError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything
        text = reason(error)
        told = text if text == UNKNOWN or text in NEEDS.values() else f"cannot be read: {text}"
        raise CamoError(f"{name!r}: {told}") from error


def size_of(source: Path | bytes) -> tuple[int, int]:
    """Width and height (px) of the stored pixels, by the header of a file or of its content. Raises what Pillow raises where it cannot be read."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file, UNLIMITED:
        name = identify(file.read(HEAD))
        file.seek(0)
        return opened(file, name).size


def write(photo: Photo, path: Path, overwrite: bool = False, content: bytes | None = None, parts: Path | None = None) -> None:
    """Write a photo in its own format: JPEG, WebP and AVIF at quality 95, HEIC at 75, PNG, TIFF and BMP without loss, as a WebP that was so.

    JPEG is written 4:4:4, AVIF and HEIC with the chroma subsampling that the source had. What ``Photo`` says is kept where the format can hold it;
    ``camo.photos.metadata.as_format`` tells what it cannot. The file has the permissions and the time of the source, appears whole or not at all: it
    is written beside its place, flushed to the disk and then renamed. Missing folders are made. Where the photo has been encoded already,
    ``content`` is what is written. With ``parts``, a folder on the same disk, the unfinished file lies there.

    Raises:
        CamoError: the file exists and ``overwrite`` is not set, or it cannot be written; nothing is left behind.
    """
    try:
        with atomic_write(path, overwrite, photo.mode, photo.modified, parts) as part:
            part.write_bytes(encode(photo) if content is None else content)
    except EncodeError as error:
        raise CamoError(f"{str(path)!r}: cannot be written: {error}") from error


def decode(content: bytes) -> torch.Tensor:
    """The pixels of an encoded photo, (3, H, W) uint8 RGB, as ``read`` gives them."""
    return pixels_of(content)
