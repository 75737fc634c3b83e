"""What a photo says besides its pixels, taken away or fitted to another format."""

import re
import struct
from dataclasses import replace

from PIL import ExifTags, Image

from camo import CamoError
from camo.photos.images import ALPHA_FORMATS, NEEDS, READABLE, Photo

SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "AVIF": ".avif", "HEIF": ".heic"}
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value of each EXIF type


def without_metadata(photo: Photo) -> Photo:
    """The photo with its pixels, alpha and colour profile alone; without the profile its colours would be other ones."""
    return replace(photo, exif=None, dpi=None, xmp=None, comment=None)


def without_location(photo: Photo) -> Photo:
    """The photo without EXIF's GPS directory, and without XMP and comment altogether: those may name the place in many ways.

    The bytes of the directory are overwritten, not only unlinked. EXIF that cannot be parsed is dropped. A maker's own notes are left alone.
    """
    exif = photo.exif
    if exif:
        try:
            exif = _without_tags(exif, (ExifTags.IFD.GPSInfo, ExifTags.Base.XMLPacket))
        except (struct.error, AttributeError, KeyError, IndexError):  # damaged: what cannot be read cannot be known to be clean
            exif = None
    return replace(photo, exif=exif, xmp=None, comment=None)


def as_format(photo: Photo, file_format: str) -> Photo:
    """The photo to be written as JPEG, PNG, WEBP, TIFF, BMP, AVIF or HEIF.

    Raises CamoError where that would lose its transparency, its EXIF is too damaged to be fitted, or a package is needed that is not there.
    """
    if file_format not in READABLE:
        raise CamoError(NEEDS[file_format])
    if photo.alpha is not None and file_format not in ALPHA_FORMATS:
        if (photo.alpha < 255).any():
            raise CamoError(f"is partly transparent, which {file_format} cannot hold")
        photo = replace(photo, alpha=None)
    try:
        if photo.xmp and file_format == "TIFF":
            tags = Image.Exif()
            tags.load(photo.exif or b"")
            tags[ExifTags.Base.XMLPacket] = photo.xmp
            photo = replace(photo, exif=tags.tobytes(), xmp=None)
        if photo.exif and file_format == "AVIF":  # of a tag of orientation Pillow makes a new block, and maker notes do not survive that
            photo = replace(photo, exif=_without_tags(photo.exif, (ExifTags.Base.Orientation,)))
    except Exception as error:  # Pillow raises almost anything on damaged EXIF
        raise CamoError(f"has damaged EXIF, which {file_format} cannot hold; --strip-metadata leaves it out") from error
    return replace(photo, format=file_format)


def _without_tags(exif: bytes, tags: tuple[int, ...]) -> bytes:
    """The EXIF block without these tags of its first directory; everything else stays where it is, so that no offset changes."""
    block = bytearray(exif)
    start = re.match(rb"(?:Exif\0\0){0,2}", exif).end()
    order = "<" if exif.startswith(b"II", start) else ">"
    directory = start + struct.unpack_from(order + "I", exif, start + 4)[0]
    for tag in tags:
        (count,) = struct.unpack_from(order + "H", block, directory)
        end = directory + 2 + 12 * count + 4  # after the entries comes the offset of the next directory
        entries = range(directory + 2, end - 4, 12)
        for entry in [entry for entry in entries if struct.unpack_from(order + "H", block, entry)[0] == tag]:
            if tag == ExifTags.IFD.GPSInfo:
                _wipe_directory(block, start, start + struct.unpack_from(order + "I", block, entry + 8)[0], order)
            else:
                _wipe_value(block, start, entry, order)
            block[entry:end] = block[entry + 12 : end] + bytes(12)
            struct.pack_into(order + "H", block, directory, count - 1)
    return bytes(block)


def _wipe_directory(block: bytearray, start: int, directory: int, order: str) -> None:
    (count,) = struct.unpack_from(order + "H", block, directory)
    end = directory + 2 + 12 * count + 4
    for entry in range(directory + 2, end - 4, 12):
        _wipe_value(block, start, entry, order)
    block[directory:end] = bytes(len(block[directory:end]))


def _wipe_value(block: bytearray, start: int, entry: int, order: str) -> None:
    """Overwrite what an entry's offset leads to, if its value does not fit into the entry."""
    _, kind, number, offset = struct.unpack_from(order + "HHII", block, entry)
    size = number * SIZES[kind]
    if size > 4:
        block[start + offset : start + offset + size] = bytes(len(block[start + offset : start + offset + size]))
