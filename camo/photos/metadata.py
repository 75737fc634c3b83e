"""What a photo says besides its pixels, taken away or fitted to another format."""

from dataclasses import replace
from typing import Any

from PIL import Image

from camo import CamoError
from camo.photos import exif, formats, jpeg_segments, png_chunks, tiff, xmp
from camo.photos.exif import LOCATION_TAGS, Exif
from camo.photos.formats import ALPHA_FORMATS, HOLDS, NEEDS, SUFFIX_OF
from camo.photos.photo import Photo
from camo.photos.tiff_structure import GPS_IFD

__all__ = ["SUFFIX_OF", "as_format", "fitted", "without_location", "without_metadata"]

EXIF_MAX = jpeg_segments.LONGEST  # bytes of a block in a JPEG
NAMES = {
    "exif": "EXIF",
    "xmp": "XMP",
    "icc_profile": "colour profile",
    "iptc": "IPTC",
    "resources": "Photoshop image resources",
    "dpi": "resolution",
    "aspect": "pixel aspect ratio",
    "comments": "comments",
    "text": "PNG text",
}


def without_metadata(photo: Photo) -> Photo:
    """The photo with its pixels, alpha and colours alone: without the profile these would be other ones. The file's time goes too."""
    bare: dict[str, Any] = {"exif": None, "dpi": None, "xmp": None, "comments": (), "iptc": None, "resources": None, "text": (), "aspect": None}
    return replace(photo, **bare, modified=None, left_out=())


def without_location(photo: Photo) -> Photo:
    """The photo without EXIF's GPS directory and GeoTIFF's tags, and without XMP, IPTC, comments and texts altogether: those may name the place in
    many ways.

    The bytes of the directory are overwritten, not only unlinked. EXIF that is damaged there is dropped. A maker's own notes are left alone.
    """
    block = photo.exif
    if block:
        try:
            block = _without_location(Exif(block))
        except (ValueError, IndexError):  # what cannot be read cannot be known to be clean
            block = None
    return replace(photo, exif=block, xmp=None, iptc=None, resources=None, comments=(), text=())


def as_format(photo: Photo, file_format: str) -> Photo:
    """The photo to be written as JPEG, PNG, WEBP, TIFF, BMP, AVIF or HEIF; what that cannot hold is added to ``left_out``.

    Raises CamoError where that would lose its transparency, or a package is needed that is not there.
    """
    if file_format not in formats.READABLE:
        raise CamoError(NEEDS[file_format])
    if photo.alpha is not None and file_format not in ALPHA_FORMATS:
        if (photo.alpha < 255).any():
            raise CamoError(f"is partly transparent, which {file_format} cannot hold")
        photo = replace(photo, alpha=None)
    return fitted(photo, file_format, photo.mode, photo.modified)


def fitted(photo: Photo, file_format: str, mode: int | None, modified: int | None) -> Photo:
    """The photo with what a file of a format can hold; the rest is added to ``left_out``."""
    holds, left_out, changes = HOLDS[file_format], list(photo.left_out), {}
    block = photo.exif
    if block and "exif" in holds:
        block, missing = _fitted_exif(block, file_format)
        left_out += missing
    stated = _resolution(block)
    if photo.dpi is None and photo.aspect is None and stated and stated[2] in {2, 3} and file_format in {"TIFF", "BMP"}:
        changes["dpi"] = exif.inches(stated)
    if file_format in {"WEBP", "AVIF", "HEIF"}:  # which have no other place for it
        block = _with_resolution(block, photo, stated, file_format)
    packet = photo.xmp
    if packet and file_format == "JPEG" and len(packet) + len(jpeg_segments.XMP) > jpeg_segments.LONGEST and xmp.divided(packet) is None:
        left_out.append(f"XMP of {len(packet)} bytes")
        packet = None
    comments, text = photo.comments, photo.text
    if file_format == "JPEG" and text:  # the one text that a JPEG has a place for
        moved = [chunk for chunk in text if chunk[0] != b"tIME" and _keyword(chunk) == b"Comment"]
        comments, text = (*comments, *(_value(chunk) for chunk in moved)), tuple(chunk for chunk in text if chunk not in moved)
    values: dict[str, Any] = {"exif": block, "xmp": packet, "comments": comments, "text": text}
    for name in NAMES:
        value = values.get(name, getattr(photo, name))
        if name not in holds and value:
            left_out.append(_named(name, value))
            value = () if isinstance(value, tuple) and name in {"comments", "text"} else None
        values[name] = value
    values |= changes
    return replace(photo, **values, format=file_format, mode=mode, modified=modified, left_out=tuple(dict.fromkeys(left_out)))


def _without_location(block: Exif) -> bytes:
    structure = block.structure
    directories = [structure.directory(structure.first)]
    if pointer := structure.numbers(directories[0].entry(GPS_IFD)):
        directories.append(structure.directory(pointer[0]))
    elif directories[0].entry(GPS_IFD):
        raise ValueError("no place to look for the location")
    for directory in directories:
        if not directory.entries or structure.unpack("H", directory.at) != len(directory.entries):
            raise ValueError("a directory is cut off")
    if any(entry.size is None for entry in directories[-1].entries if len(directories) > 1):
        raise ValueError("a value of the location lies elsewhere")
    block.remove(*LOCATION_TAGS, exif.XMP_TAG, exif.IPTC_TAG, exif.PHOTOSHOP_TAG)
    return bytes(block)


def _fitted_exif(block: bytes, file_format: str) -> tuple[bytes | None, list[str]]:
    """The block as a file of a format can hold it, and the names of what it cannot."""
    if file_format == "JPEG" and len(block) > EXIF_MAX:
        try:
            return exif.shortened(Exif(block), EXIF_MAX)
        except ValueError:
            return None, ["damaged EXIF"]
    if file_format == "TIFF":
        try:
            return block, ["damaged parts of EXIF"] * Exif(block).remove_damaged()
        except ValueError:
            return None, ["damaged EXIF"]
    if file_format == "AVIF":
        try:
            parsed = Exif(block)
        except ValueError:
            return None, ["damaged EXIF"]
        if _readable_by_pillow(block):  # which looks into it as it writes it
            return block, []
        block = exif.built(parsed.structure.order, *parsed.values())
        return (block, ["damaged parts of EXIF"]) if _readable_by_pillow(block) else (None, ["damaged EXIF"])
    return block, []


def _readable_by_pillow(block: bytes) -> bool:
    try:
        tags = Image.Exif()
        tags.load(block)
    except Exception:  # Pillow raises almost anything on damaged EXIF
        return False
    return True


def _resolution(block: bytes | None) -> tuple[float, float, int] | None:
    try:
        return Exif(block).resolution if block else None
    except ValueError:
        return None


def _with_resolution(block: bytes | None, photo: Photo, stated: tuple[float, float, int] | None, file_format: str) -> bytes | None:
    """The block with the resolution or the pixels' aspect in it, unless it states one."""
    size, unit = (photo.dpi, 2) if photo.dpi else (photo.aspect if file_format != "HEIF" else None, 1)
    if stated or not size:
        return block
    try:
        whole = Exif(block) if block else exif.empty()
    except ValueError:
        return block
    return bytes(whole.with_tags(tiff.resolution_tags(whole.structure.order, *size, unit)))


def _keyword(chunk: tuple[bytes, bytes]) -> bytes:
    return chunk[1].partition(b"\0")[0]


def _value(chunk: tuple[bytes, bytes]) -> bytes:
    return png_chunks.text(*chunk)[1]


def _named(name: str, value: Any) -> str:
    """What is left out, in words; texts by their keywords."""
    if name != "text":
        return NAMES[name]
    words = [repr(_keyword(chunk).decode("latin-1"))[1:-1] if chunk[0] != b"tIME" else "time" for chunk in value]
    return f"PNG text ({', '.join(dict.fromkeys(words))})"
