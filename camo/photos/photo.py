"""A decoded photo."""

from dataclasses import dataclass

import torch

from camo import CamoError


@dataclass(frozen=True)
class Photo:
    """A decoded photo with what its file said besides, as it is true of these pixels.

    Attributes:
        pixels: (3, H, W) uint8 RGB, upright, on the CPU; sRGB, or grey in the space of ``icc_profile``.
        format: Pillow's name of the format to write, the file's own: JPEG, PNG, WEBP, TIFF, BMP, AVIF or HEIF; PNG for a GIF.
        alpha: (H, W) uint8, 255 is opaque; None where the file has no transparency.
        greyscale: whether the file held one grey channel, and is to be written so.
        icc_profile: the embedded colour profile, unchanged; None where there was none or the pixels had to be converted to sRGB.
        exif: the EXIF block, beginning with ``Exif\\0\\0``; a TIFF's is made of its descriptive tags.
        dpi: horizontal and vertical resolution in dots an inch.
        xmp: the XMP packet; where the file has several, their properties in one.
        comments: those of a JPEG or a GIF; a PNG's text "Comment".
        iptc: the IPTC-IIM records.
        resources: Photoshop's image resources besides IPTC.
        text: (type, content) of the PNG chunks of text, and of the time of the last change.
        aspect: how many pixels across are as long as how many down, where the file states no resolution.
        intent: the rendering intent that a PNG states together with sRGB.
        bits: of a sample in the file; more than 8 have been rounded to 8.
        subsampling: of the chroma in the file, which an AVIF or HEIC is written with too: 4:4:4, 4:2:2, 4:2:0 or 4:0:0; None where there is none.
        lossless: whether a WebP's pixels were stored without loss, and are to be again.
        mode: the file's permissions, as ``os.chmod`` takes them; None where there is no file.
        modified: when the file was last changed, in nanoseconds since the epoch.
        left_out: what the file held and the photo does not, or what the format to write cannot hold, in words for a warning.
    """

    pixels: torch.Tensor
    format: str
    alpha: torch.Tensor | None = None
    greyscale: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    comments: tuple[bytes, ...] = ()
    iptc: bytes | None = None
    resources: bytes | None = None
    text: tuple[tuple[bytes, bytes], ...] = ()
    aspect: tuple[float, float] | None = None
    intent: int | None = None
    bits: int = 8
    subsampling: str | None = None
    lossless: bool = False
    mode: int | None = None
    modified: int | None = None
    left_out: tuple[str, ...] = ()


class EncodeError(CamoError):
    """A photo that its format's encoder refuses."""
