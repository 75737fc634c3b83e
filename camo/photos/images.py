"""Files <-> tensors: upright RGB pixels in, the same format and metadata out, and the bytes of a real JPEG.

Everything here works on the CPU; nothing here knows a network.
"""

import contextlib
import io
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from camo import CamoError
from camo.photos.files import atomic_write, reason

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif", ".hif"})
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")  # of every Pillow; a submission to the task may hold these alone
with contextlib.suppress(ImportError):  # the extra "heic"
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()  # else Pillow loads its rarer formats only once a file needs them
READABLE = (*FORMATS, "GIF", *(name for name in ("AVIF", "HEIF") if name in Image.SAVE))
BRANDS = {"AVIF": {b"avif", b"avis"}, "HEIF": {b"heic", b"heix", b"heim", b"heis", b"mif1"}}  # after "ftyp" at the start of a file
SEQUENCE_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1"}
NEEDS = {"AVIF": "AVIF needs Pillow 11.3 or newer: pip install -U pillow", "HEIF": "HEIC needs the package pillow-heif: pip install pillow-heif"}

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]

UPRIGHT = {  # EXIF orientation -> the operation that turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DESCRIPTION_TAGS = (  # what a TIFF's tags say about the photo; all others describe how its pixels are stored
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
    ExifTags.Base.XMLPacket,
)
SAVE_OPTIONS = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95, "exact": True},  # lossy like most WebP files; alpha, and colour under it, are kept
    "TIFF": {"compression": "raw"},  # Pillow's compressing writer cannot hold EXIF
    # Three sample photos come back with 45.9 to 47.3 dB from this AVIF, 46.3 to 48.7 dB from this HEIC, 44.7 to 49.3 dB from the JPEG above.
    "AVIF": {"quality": 95, "subsampling": "4:4:4", "advanced": {"alpha:lossless": "1"}},
    "HEIF": {"quality": 75, "subsampling": "4:4:4"},
}
GREYSCALE_MODES = {"1", "L", "LA"}
SAME_COLOUR = 3  # of 255: profiles that call themselves sRGB differ by so much
ALPHA_FORMATS = {"PNG", "WEBP", "TIFF", "AVIF", "HEIF"}
WIDE_PRIMARIES, HDR_TRANSFERS = {9, 11, 12}, {16, 18}  # of ITU-T H.273: BT.2020 and two P3; PQ and HLG


@dataclass(frozen=True)
class PhotoFile:
    """Where a photo lies, and where it lay below the folder that was given (its bare name if it was given itself)."""

    path: Path
    relative: Path


@dataclass(frozen=True)
class Photo:
    """A decoded photo with what its file said besides.

    Attributes:
        pixels: (3, H, W) uint8 RGB, upright, on the CPU; sRGB, or grey in the space of ``icc_profile``.
        format: Pillow's name of the format to write, the file's own: JPEG, PNG, WEBP, TIFF, BMP, AVIF or HEIF; PNG for a GIF.
        alpha: (H, W) uint8, 255 is opaque; None where the file has no transparency.
        greyscale: whether the file held one grey channel, and is to be written so.
        icc_profile: the embedded colour profile, unchanged; None where there was none or the pixels had to be converted to sRGB.
        exif: the EXIF block, its orientation tag saying upright and else unchanged.
        dpi: horizontal and vertical resolution in dots an inch.
        xmp: the XMP packet, its orientation saying upright and else unchanged; a TIFF's is in ``exif``.
        comment: a JPEG's comment.
    """

    pixels: torch.Tensor
    format: str
    alpha: torch.Tensor | None = None
    greyscale: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    comment: bytes | None = None


def find_photos(paths: Iterable[Path], exclude: Path | None = None) -> list[PhotoFile]:
    """List the files given, whatever their suffix, and below the folders given every file with a photo's suffix, in path order.

    Links to files are followed; links to folders inside a folder are not, so a loop of links ends.

    Args:
        paths: files and folders.
        exclude: a folder whose content is left out, if it lies below one of the folders given.

    Raises:
        CamoError: a path that does not exist, a folder that cannot be read, or one without a photo.
    """
    photos: list[PhotoFile] = []
    for path in paths:
        try:
            if path.is_dir():
                found = sorted(_walk(path, exclude))
                if not found:
                    raise CamoError(f"{str(path)!r}: no photo in this folder ({', '.join(sorted(SUFFIXES))})")
                photos.extend(PhotoFile(file, file.relative_to(path)) for file in found)
            elif os.path.lexists(path):
                photos.append(PhotoFile(path, Path(path.name)))
            else:
                raise CamoError(f"{str(path)!r}: no such file or folder")
        except OSError as error:
            raise CamoError(f"{str(error.filename or path)!r}: cannot be read: {reason(error)}") from error
    return photos


def read(path: Path) -> Photo:
    """Decode a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC file of one frame, whatever its suffix.

    Deeper pixels become 8-bit ones, palettes are expanded; CMYK and wide-gamut RGB are converted to sRGB through the embedded profile, as
    platforms do with them. A GIF becomes a PNG: 256 colours would not hold a change that nobody sees.
    A JPEG that carries a preview or a gain map besides (as phones write) gives its main picture; animations and other files of several
    frames are refused.

    Raises:
        CamoError: the file cannot be read, holds no such picture, is damaged, or has more than Pillow's limit of 179 Mpx.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CamoError(f"{str(path)!r}: not a file")  # a pipe would block for ever
        if status.st_size == 0:
            raise CamoError(f"{str(path)!r}: the file is empty")
        # Given a path, Pillow maps some TIFFs into memory and then scrambles those that lie on their side; given a file, it reads them.
        with path.open("rb") as file:
            head = file.read(12)
            brand = head[8:] if head[4:8] == b"ftyp" else None
            if brand in SEQUENCE_BRANDS:  # pillow-heif would show its cover alone
                raise CamoError(f"{str(path)!r}: an image sequence; animated and multi-page files are not supported")
            with Image.open(file, formats=READABLE) as picture:
                frames = _frames(picture)
                if frames > 1:
                    raise CamoError(f"{str(path)!r}: {frames} frames; animated and multi-page files are not supported")
                if picture.format in BRANDS and not picture.info.get("icc_profile"):
                    file.seek(0)
                    _check_colours(file.read())
                picture.load()
                return _decode(picture)
    except CamoError:
        raise
    except UnidentifiedImageError:
        raise CamoError(f"{str(path)!r}: {_why_unidentified(brand)}") from None
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything
        raise CamoError(f"{str(path)!r}: cannot be read: {reason(error)}") from error


def write(photo: Photo, path: Path, overwrite: bool = False, content: bytes | None = None) -> None:
    """Write a photo in its own format: JPEG, WebP and AVIF at quality 95, HEIC at 75 (all but WebP 4:4:4), PNG, TIFF and BMP without loss.

    The colour profile, EXIF, XMP, a JPEG's comment, resolution and alpha are kept where the format can hold them. The file appears whole or not
    at all: it is written beside its place, flushed to the disk and then renamed. Missing folders are made. Where the photo has been encoded
    already, ``content`` is what is written.

    Raises:
        CamoError: the file exists and ``overwrite`` is not set, or it cannot be written; nothing is left behind.
    """
    try:
        with atomic_write(path, overwrite) as part:
            part.write_bytes(encode(photo) if content is None else content)
    except EncodeError as error:
        raise CamoError(f"{str(path)!r}: cannot be written: {error}") from error


class EncodeError(CamoError):
    """A photo that its format's encoder refuses."""


def encode(photo: Photo) -> bytes:
    """The bytes of the file that ``write`` writes. Raises EncodeError."""
    metadata = {"icc_profile": photo.icc_profile, "exif": photo.exif, "dpi": photo.dpi, "xmp": photo.xmp, "comment": photo.comment}
    if photo.format == "PNG" and photo.xmp:
        metadata["pnginfo"] = PngImagePlugin.PngInfo()
        metadata["pnginfo"].add_itxt("XML:com.adobe.xmp", photo.xmp)
    options = SAVE_OPTIONS.get(photo.format, {}) | {key: value for key, value in metadata.items() if value is not None}
    buffer = io.BytesIO()
    try:
        picture = _picture(photo)
        if photo.format == "AVIF" and picture.mode == "L":
            options["subsampling"] = "4:0:0"
        if photo.format == "HEIF" and photo.alpha is not None:
            options["quality"] = -1  # without loss, as nothing else keeps alpha
        picture.save(buffer, photo.format, **options)
    except Exception as error:  # Pillow's encoders raise OSError, ValueError, struct.error and more on odd metadata
        raise EncodeError(reason(error)) from error
    return buffer.getvalue()


def decode(content: bytes) -> torch.Tensor:
    """The pixels of an encoded photo, (3, H, W) uint8 RGB, as ``read`` gives them."""
    with Image.open(io.BytesIO(content), formats=READABLE) as picture:
        return _from_pillow(picture.convert("RGB"))


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """8-bit pixels as values: (..., 3, H, W) uint8 -> the same shape in float32, in [0, 1], on the same device."""
    return pixels.to(torch.float32) / 255


def to_uint8(image: torch.Tensor) -> torch.Tensor:
    """Values as 8-bit pixels: (..., 3, H, W) float -> uint8 on the same device; clamped to [0, 1] and rounded to the nearest step."""
    return image.detach().to(torch.float32).clamp(0, 1).mul_(255).round_().to(torch.uint8)


def jpeg_bytes(pixels: torch.Tensor, quality: int, subsampling: Subsampling = "4:2:0") -> bytes:
    """Encode one picture, (3, H, W) uint8 RGB, as the JPEG file that Pillow (libjpeg) writes at this quality, 1..100."""
    buffer = io.BytesIO()
    _to_pillow(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def jpeg_roundtrip(image: torch.Tensor, quality: int, subsampling: Subsampling = "4:2:0") -> torch.Tensor:
    """What is left of each picture after 8-bit rounding and a real JPEG file.

    Args:
        image: (B, 3, H, W) float RGB in [0, 1], any device.
        quality: Pillow's JPEG quality, 1..100.
        subsampling: chroma subsampling; Pillow's own default is 4:2:0.

    Returns:
        (B, 3, H, W) in ``image``'s dtype and on its device, at multiples of 1/255 in [0, 1]; carries no gradient.
    """
    decoded = torch.empty(image.shape, dtype=torch.uint8)
    for pixels, result in zip(to_uint8(image).cpu(), decoded, strict=True):
        result.copy_(_from_pillow(Image.open(io.BytesIO(jpeg_bytes(pixels, quality, subsampling)))))
    return to_float(decoded).to(image)


def _walk(folder: Path, exclude: Path | None) -> Iterator[Path]:
    """Yield every file below a folder that has a photo's suffix, dangling links too: they are told of when they are read."""

    def fail(error: OSError) -> None:
        raise error

    excluded = os.path.realpath(exclude) if exclude else None  # Path.resolve would raise on a loop of links
    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        folders[:] = [name for name in folders if os.path.realpath(here / name) != excluded]
        yield from (here / name for name in files if Path(name).suffix.lower() in SUFFIXES)


def _why_unidentified(brand: bytes | None) -> str:
    """Say why Pillow does not know a file of this brand, or of none."""
    name = next((name for name, brands in BRANDS.items() if brand in brands), None)
    if name is None:
        return "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"
    return "cannot be read: damaged, or of an unsupported kind" if name in READABLE else NEEDS[name]


def _frames(picture: Image.Image) -> int:
    """Count the frames a viewer would show: a JPEG's embedded previews and gain maps are none."""
    if picture.format != "MPO":
        return getattr(picture, "n_frames", 1)
    kinds = [entry["Attribute"]["MPType"] for entry in picture.mpinfo[0xB002]]
    return 1 + sum(kind.startswith("Multi-Frame Image") for kind in kinds[1:])


def _check_colours(content: bytes) -> None:
    """Refuse an AVIF or HEIC whose colours, by the first of its nclx boxes, are not those of sRGB: Pillow hands them out as if they were."""
    colours = re.search(rb"colrnclx(..)(..)", content, re.DOTALL)
    if colours and (int.from_bytes(colours[1]) in WIDE_PRIMARIES or int.from_bytes(colours[2]) in HDR_TRANSFERS):
        raise ValueError("high dynamic range, or a wide gamut without an ICC profile, is not supported")


def _decode(picture: Image.Image) -> Photo:
    """Turn an open picture, its pixels loaded, into a photo."""
    file_format = {"MPO": "JPEG", "GIF": "PNG"}.get(picture.format, picture.format)
    icc_profile, dpi = picture.info.get("icc_profile"), _dpi(picture)
    comment = picture.info.get("comment") if file_format == "JPEG" else None
    xmp = picture.info.get("xmp") if file_format != "TIFF" else None
    xmp = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[2-8]", rb"\g<1>1", xmp) if xmp else None
    if file_format == "AVIF":  # its container alone says how it lies, which Pillow puts into EXIF; where that says nothing, it would ask XMP
        picture.info.pop("xmp", None)
    orientation, exif = 1, None
    with contextlib.suppress(Exception):  # EXIF that cannot be parsed makes no photo unreadable; it is not carried on
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        exif = _upright_exif(picture)
    if orientation in UPRIGHT:
        picture = picture.transpose(UPRIGHT[orientation])
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if picture.mode in {"I", "F"}:  # their range is defined nowhere
        raise ValueError("32-bit pixels are not supported")
    if picture.mode == "CMYK":
        picture, icc_profile = _cmyk_to_srgb(picture, icc_profile), None
    greyscale = picture.mode in GREYSCALE_MODES
    alpha = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = torch.from_numpy(np.array(picture.getchannel("A")))
    picture = picture.convert("RGB")
    if icc_profile and not greyscale:
        picture, icc_profile = _wide_to_srgb(picture, icc_profile)
    pixels = _from_pillow(picture)
    return Photo(pixels, file_format, alpha, greyscale, icc_profile or None, exif or None, dpi, xmp, comment)


def _picture(photo: Photo) -> Image.Image:
    """Turn a photo into the Pillow picture to save: RGB or L, with A where the photo and the format have it."""
    picture = _to_pillow(photo.pixels)
    if photo.greyscale:
        picture = picture.convert("L")
    if photo.alpha is not None and photo.format in ALPHA_FORMATS:
        picture.putalpha(Image.fromarray(photo.alpha.numpy()))
    return picture


def _from_pillow(picture: Image.Image) -> torch.Tensor:
    """Turn an RGB Pillow picture into (3, H, W) uint8."""
    return torch.from_numpy(np.array(np.asarray(picture).transpose(2, 0, 1), order="C"))


def _to_pillow(pixels: torch.Tensor) -> Image.Image:
    """Turn (3, H, W) uint8 into an RGB Pillow picture."""
    return Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy().transpose(1, 2, 0)))


def _cmyk_to_srgb(picture: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert CMYK to sRGB through the embedded profile, or by the plain formula where there is none that works."""
    if icc_profile:
        try:
            return ImageCms.profileToProfile(picture, io.BytesIO(icc_profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            pass
    return picture.convert("RGB")


def _wide_to_srgb(picture: Image.Image, icc_profile: bytes) -> tuple[Image.Image, bytes | None]:
    """Convert RGB of another colour space to sRGB, and drop its profile; where that is sRGB, or makes no sense, both stay as they are."""
    try:
        transform = ImageCms.buildTransform(io.BytesIO(icc_profile), ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except ImageCms.PyCMSError:
        return picture, icc_profile
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    samples = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    changes = np.asarray(samples).astype(int) - np.asarray(ImageCms.applyTransform(samples, transform))
    if abs(changes).max() <= SAME_COLOUR:
        return picture, icc_profile
    return ImageCms.applyTransform(picture, transform), None


def _dpi(picture: Image.Image) -> tuple[float, float] | None:
    """Return the resolution the file states, or None where it is absent or cannot be one."""
    dpi = picture.info.get("dpi")
    if dpi is None:
        return None
    horizontal, vertical = (float(value) for value in dpi)
    return (horizontal, vertical) if min(horizontal, vertical) > 1 and max(horizontal, vertical) <= 65535 else None


def _upright_exif(picture: Image.Image) -> bytes | None:
    """Return the EXIF block with its orientation tag, if any, saying upright; else byte for byte as the file has it.

    Pillow's own rewriting would lose maker notes and whatever it cannot parse, so only the tag's value is changed.
    """
    exif = picture.info.get("exif")
    if exif is None:
        return _exif_of_tags(picture.getexif())
    upright = bytearray(exif)
    start = re.match(rb"(?:Exif\0\0){0,2}", exif).end()
    order = "<" if exif.startswith(b"II", start) else ">"
    directory = start + struct.unpack_from(order + "I", exif, start + 4)[0]
    (count,) = struct.unpack_from(order + "H", exif, directory)
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", exif, entry)
        if tag == ExifTags.Base.Orientation:
            struct.pack_into(order + {3: "H2x", 4: "I"}[kind], upright, entry + 8, 1)  # SHORT or LONG
    return bytes(upright)


def _exif_of_tags(tags: Image.Exif) -> bytes | None:
    """Build an EXIF block from a TIFF's tags, without those that describe how its pixels are stored."""
    exif = Image.Exif()
    for tag in DESCRIPTION_TAGS:
        if tag in tags:
            exif[tag] = tags[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        if content := tags.get_ifd(directory):
            exif[directory] = content
    return exif.tobytes() if len(exif) else None
