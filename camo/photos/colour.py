"""Colours: embedded profiles (ICC.1), PNG's own statements (W3C PNG, third edition, 4.3 and 11.3.2) and code points of ITU-T H.273."""

import io
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from camo.photos import png_chunks
from camo.photos.png_chunks import Png

SAME_COLOUR = 3  # of 255: profiles that call themselves sRGB differ by so much
WIDE_PRIMARIES, HDR_TRANSFERS = {9, 11, 12}, {16, 18}  # of H.273: BT.2020 and two P3; PQ and HLG
HDR_MESSAGE = "high dynamic range, or a wide gamut without an ICC profile, is not supported"

Chromaticities = tuple[float, float, float, float, float, float, float, float]  # x and y of white, red, green and blue
SRGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
PRIMARIES: dict[int, Chromaticities] = {  # by the code points of H.273, table 2; 2: unspecified
    1: SRGB,
    2: SRGB,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
# H.273, table 3; None: the curve of sRGB.
EXPONENTS: dict[int, float | None] = {
    1: None,
    2: None,
    6: None,
    13: None,
    14: None,
    15: None,
    4: 2.2,
    5: 2.8,
    8: 1.0,
}
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
SRGB_GAMMA = 45455  # hundred thousandths: what writers of sRGB put into gAMA


@dataclass(frozen=True)
class Stated:
    """A colour space that is stated without a profile: its chromaticities, and the exponent that makes values linear; None for sRGB's curve."""

    chromaticities: Chromaticities
    exponent: float | None


@dataclass(frozen=True)
class PngColours:
    """What a PNG states of its colours: a profile, or another space than sRGB; and the rendering intent of its sRGB chunk, if it has one."""

    icc_profile: bytes | None = None
    stated: Stated | None = None
    intent: int | None = None
    damaged: bool = False


def of_png(png: Png) -> PngColours:
    """The statement that counts: cICP before iCCP before sRGB before gAMA and cHRM. Raises ValueError for high dynamic range."""
    code_points = png.first(b"cICP")
    if code_points and len(code_points) == 4:
        primaries, transfer, matrix, full = code_points
        if transfer in HDR_TRANSFERS or primaries not in PRIMARIES or transfer not in EXPONENTS or matrix or not full:
            raise ValueError(HDR_MESSAGE)
        space = Stated(PRIMARIES[primaries], EXPONENTS[transfer])
        return PngColours(stated=None if space == Stated(SRGB, None) else space, intent=0)
    damaged = False
    if profile := png.first(b"iCCP"):
        name, _, packed = profile.partition(b"\0")
        if name.startswith(b"ITUR_2100_"):
            raise ValueError(HDR_MESSAGE)
        try:
            return PngColours(icc_profile=png_chunks.unpacked(packed[1:], png_chunks.MAX_PROFILE))
        except ValueError:
            damaged = True
    if intent := png.first(b"sRGB"):
        return PngColours(intent=intent[0], damaged=damaged)
    return PngColours(stated=_gamma_and_chromaticities(png.first(b"gAMA"), png.first(b"cHRM")), damaged=damaged)


def _gamma_and_chromaticities(gamma: bytes | None, primaries: bytes | None) -> Stated | None:
    exponent, chromaticities = None, SRGB
    if gamma and len(gamma) == 4 and (value := int.from_bytes(gamma)) and value != SRGB_GAMMA:
        exponent = 100_000 / value
    if primaries and len(primaries) == 32:
        numbers = [value / 100_000 for value in struct.unpack(">8I", primaries)]
        if all(numbers[1::2]):
            chromaticities = tuple(numbers)
    same = exponent is None and max(abs(a - b) for a, b in zip(chromaticities, SRGB, strict=True)) < 0.002
    return None if same else Stated(chromaticities, exponent)


def check_profile(icc_profile: bytes) -> None:
    """Refuse a profile of high dynamic range, which has a cicp tag (ICC.1:2022, 9.2.17) of PQ or HLG."""
    for at in range(132, min(132 + 12 * int.from_bytes(icc_profile[128:132]), len(icc_profile) - 11), 12):
        name, offset, _ = struct.unpack_from(">4sII", icc_profile, at)
        if name == b"cicp" and icc_profile[offset + 9 : offset + 10] and icc_profile[offset + 9] in HDR_TRANSFERS:
            raise ValueError(HDR_MESSAGE)


def cmyk_to_srgb(picture: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert CMYK to sRGB through the embedded profile, or by the plain formula where there is none that works."""
    if icc_profile:
        try:
            converted = ImageCms.profileToProfile(picture, io.BytesIO(icc_profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
            return converted or picture.convert("RGB")
        except ImageCms.PyCMSError:
            pass
    return picture.convert("RGB")


def wide_to_srgb(picture: Image.Image, icc_profile: bytes) -> Image.Image | None:
    """Convert RGB of another colour space to sRGB; None where the profile is that of sRGB, or makes no sense: then it stays with its pixels."""
    try:
        transform = ImageCms.buildTransform(io.BytesIO(icc_profile), ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except ImageCms.PyCMSError:
        return None
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    samples = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    changes = np.asarray(samples).astype(int) - np.asarray(ImageCms.applyTransform(samples, transform))
    if abs(changes).max() <= SAME_COLOUR:
        return None
    return ImageCms.applyTransform(picture, transform)


def stated_to_srgb(picture: Image.Image, space: Stated) -> Image.Image:
    """Convert an RGB or L picture of a stated colour space to sRGB; as grey as it was."""
    if picture.mode == "L":
        light = (np.arange(256) / 255) ** (space.exponent or 1)
        encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) if space.exponent else light
        return picture.point([round(255 * value) for value in encoded.tolist()])
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(_profile(space)))
        return ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB") or picture
    except (ImageCms.PyCMSError, np.linalg.LinAlgError, ValueError, struct.error, OSError):  # chromaticities that make no sense
        return picture


def _profile(space: Stated) -> bytes:
    """An ICC profile of a stated space: as much of one as a conversion needs."""
    xy = np.array(space.chromaticities).reshape(4, 2)
    white, *primaries = np.column_stack((xy[:, 0], xy[:, 1], 1 - xy.sum(1))) / xy[:, 1:]
    columns = np.column_stack(primaries)
    adapted = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ white)) @ BRADFORD
    matrix = adapted @ (columns * np.linalg.solve(columns, white))
    if space.exponent is None:
        curve = struct.pack(">4s4xHxx5i", b"para", 3, *(round(65536 * value) for value in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
    else:
        curve = struct.pack(">4s4xHxxi", b"para", 0, round(65536 * space.exponent))
    tags = [(b"wtpt", _xyz(D50)), *((name + b"XYZ", _xyz(matrix[:, index])) for index, name in enumerate((b"r", b"g", b"b")))]
    tags += [(name + b"TRC", curve) for name in (b"r", b"g", b"b")]
    at, table, body = 132 + 12 * len(tags), b"", b""
    for name, content in tags:
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    kinds = (b"mntr", b"RGB ", b"XYZ ", b"acsp")
    header = struct.pack(">I4sI4s4s4s12x4s28x4x3i", at + len(body), b"lcms", 0x04300000, *kinds, 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in values.tolist()))
