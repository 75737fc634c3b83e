"""From a photo to the bytes of a file: Pillow encodes the picture, and what is said besides is put in here."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from camo.photos import exif, image_resources, jpeg_segments, png_chunks, tiff, xmp
from camo.photos.exif import Exif
from camo.photos.files import reason
from camo.photos.formats import ALPHA_FORMATS
from camo.photos.photo import EncodeError, Photo
from camo.photos.pixels import to_array, to_pillow
from camo.photos.tiff_structure import BYTE, UNDEFINED, Value

SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95, "exact": True},  # alpha, and colour under it, are kept
    # Three sample photos come back with 45.9 to 47.3 dB from this AVIF, 46.3 to 48.7 dB from this HEIC, 44.7 to 49.3 dB from the JPEG above.
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "advanced": {"alpha:lossless": "1"}},
    "HEIF": {"quality": 75, "subsampling": "4:4:4"},
}


def encode(photo: Photo) -> bytes:
    """The bytes of the file that ``write`` writes. Raises EncodeError."""
    try:
        return ENCODERS[photo.format](photo)
    except Exception as error:  # Pillow's encoders raise OSError, ValueError, struct.error and more on odd metadata
        raise EncodeError(reason(error)) from error


def _saved(photo: Photo, **options: Any) -> bytes:
    """The file as Pillow writes it."""
    buffer = io.BytesIO()
    _picture(photo).save(buffer, photo.format, **SAVE_OPTIONS.get(photo.format, {}) | options)
    return buffer.getvalue()


def _picture(photo: Photo) -> Image.Image:
    """The Pillow picture to save: RGB or L, with A where the photo and the format have it."""
    picture = to_pillow(photo.pixels)
    if photo.greyscale:
        picture = picture.convert("L")
    if photo.alpha is not None and photo.format in ALPHA_FORMATS:
        picture.putalpha(Image.fromarray(photo.alpha.numpy()))
    return picture


def _jpeg(photo: Photo) -> bytes:
    content = bytearray(_saved(photo))
    struct.pack_into(">BHH", content, 13, *_density(photo))  # behind SOI, the marker, length, name and version of JFIF's segment
    additions = []
    if photo.exif:
        additions.append(jpeg_segments.one_segment(jpeg_segments.APP1, photo.exif))
    if photo.xmp:
        additions += _jpeg_xmp(photo.xmp)
    if photo.iptc or photo.resources:
        resources = image_resources.with_iptc(photo.resources, photo.iptc)
        additions += jpeg_segments.segments(jpeg_segments.APP13, jpeg_segments.PHOTOSHOP, resources)
    if photo.icc_profile:
        additions += jpeg_segments.icc_segments(photo.icc_profile)
    additions += [jpeg_segments.one_segment(jpeg_segments.COM, comment) for comment in photo.comments]
    return jpeg_segments.joined(bytes(content), additions)


def _jpeg_xmp(packet: bytes) -> list[bytes]:
    if len(packet) + len(jpeg_segments.XMP) <= jpeg_segments.LONGEST:
        return [jpeg_segments.one_segment(jpeg_segments.APP1, jpeg_segments.XMP + packet)]
    parts = xmp.divided(packet)
    if parts is None:
        raise ValueError(f"an XMP packet of {len(packet)} bytes is too long for a JPEG")
    main, extended, guid = parts
    return [jpeg_segments.one_segment(jpeg_segments.APP1, jpeg_segments.XMP + main), *jpeg_segments.extended_xmp_segments(extended, guid)]


def _density(photo: Photo) -> tuple[int, int, int]:
    """JFIF's unit and density: whole dots an inch, whole dots a centimetre if the resolution comes from those, or the pixels' aspect."""
    if photo.dpi is None:
        across, down = photo.aspect or (1, 1)
        scale = 1 if max(across, down) <= 65535 and across == int(across) and down == int(down) else 1000 / max(across, down)
        return 0, max(1, round(across * scale)), max(1, round(down * scale))
    inches, centimetres = photo.dpi, tuple(value / 2.54 for value in photo.dpi)
    metric = _whole(centimetres) and not _whole(inches)
    return (2, *(round(value) for value in centimetres)) if metric else (1, *(round(value) for value in inches))  # type: ignore[return-value]


def _whole(values: tuple[float, ...]) -> bool:
    return all(abs(value - round(value)) < 1e-3 for value in values)


def _png(photo: Photo) -> bytes:
    chunks = []
    if photo.icc_profile:
        chunks.append((b"iCCP", png_chunks.profile(photo.icc_profile)))
    elif photo.intent is not None:
        chunks.append((b"sRGB", bytes((photo.intent,))))
    if photo.dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", *(int(value / 0.0254 + 0.5) for value in photo.dpi), 1)))
    elif photo.aspect:
        scale = 1 if all(value == int(value) for value in photo.aspect) else 10_000
        chunks.append((b"pHYs", struct.pack(">IIB", *(round(value * scale) for value in photo.aspect), 0)))
    if photo.exif:
        chunks.append((b"eXIf", photo.exif.removeprefix(exif.PREFIX)))
    if photo.xmp:
        chunks.append(png_chunks.international_text(png_chunks.XMP_KEYWORD, photo.xmp))
    if photo.iptc or photo.resources:
        chunks.append(png_chunks.raw_profile_chunk(b"iptc", image_resources.with_iptc(photo.resources, photo.iptc)))
    chunks += [png_chunks.comment(comment) for comment in photo.comments]
    return png_chunks.joined(_saved(photo), [*chunks, *photo.text])


def _webp(photo: Photo) -> bytes:
    options = {"exif": photo.exif, "xmp": photo.xmp, "icc_profile": photo.icc_profile}
    return _saved(photo, **{key: value for key, value in options.items() if value}, lossless=photo.lossless)


def _tiff(photo: Photo) -> bytes:
    pixels = np.asarray(to_pillow(photo.pixels).convert("L"))[..., None] if photo.greyscale else to_array(photo.pixels)
    if photo.alpha is not None:
        pixels = np.concatenate((pixels, photo.alpha.numpy()[..., None]), -1)
    tags: dict[int, Value] = {}
    if size := photo.dpi or photo.aspect:
        tags |= tiff.resolution_tags(tiff.order_of(photo.exif), *size, 2 if photo.dpi else 1)
    if photo.xmp:
        tags[exif.XMP_TAG] = tiff.data(BYTE, photo.xmp)
    if photo.iptc:
        tags[exif.IPTC_TAG] = tiff.data(UNDEFINED, photo.iptc)
    if photo.resources:
        tags[exif.PHOTOSHOP_TAG] = tiff.data(BYTE, image_resources.with_iptc(photo.resources, photo.iptc))
    if photo.icc_profile:
        tags[exif.ICC_TAG] = tiff.data(UNDEFINED, photo.icc_profile)
    return tiff.file_of(pixels, photo.exif, tags)


def _bmp(photo: Photo) -> bytes:
    return _saved(photo, dpi=photo.dpi or (0, 0))  # else Pillow would state 96


def _avif(photo: Photo) -> bytes:
    options: dict[str, Any] = {"xmp": photo.xmp, "icc_profile": photo.icc_profile}
    if photo.exif:  # of a tag of orientation Pillow makes a new block, and makers' notes do not survive that
        block = Exif(photo.exif)
        block.remove(exif.ORIENTATION)
        options["exif"] = bytes(block)
    if photo.greyscale and photo.alpha is None:
        options["subsampling"] = "4:0:0"
    elif photo.subsampling in {"4:4:4", "4:2:2", "4:2:0"}:
        options["subsampling"] = photo.subsampling
    return _saved(photo, **{key: value for key, value in options.items() if value})


def _heif(photo: Photo) -> bytes:
    options: dict[str, Any] = {"exif": photo.exif, "icc_profile": photo.icc_profile}
    if photo.xmp:  # under its own name it would have a say in how the picture lies
        options["metadata"] = [{"type": "mime", "content_type": "application/rdf+xml", "data": photo.xmp}]
    if photo.subsampling in {"4:4:4", "4:2:2", "4:2:0"}:
        options["subsampling"] = photo.subsampling
    if photo.alpha is not None:
        options["quality"] = -1  # without loss, as nothing else keeps alpha
    if photo.aspect and not photo.dpi:
        options["pixel_aspect_ratio"] = tuple(round(value) for value in photo.aspect)
    return _saved(photo, **{key: value for key, value in options.items() if value})


ENCODERS = {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp, "TIFF": _tiff, "BMP": _bmp, "AVIF": _avif, "HEIF": _heif}
