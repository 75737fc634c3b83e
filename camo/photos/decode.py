"""From the bytes of a file to a photo: the containers are taken apart here, so that Pillow sees nothing of a file but its picture."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import ExifTags, Image

from camo.photos import MAX_PIXELS, colour, embedded, exif, gif, image_resources, isobmff, jpeg_segments, png_chunks, riff, tiff, xmp
from camo.photos.colour import Stated
from camo.photos.exif import IPTC_TAG, PHOTOSHOP_TAG, XMP_TAG, Exif
from camo.photos.facts import Facts
from camo.photos.formats import UNLIMITED, identify, opened
from camo.photos.jpeg_segments import APP0, APP1, APP2, APP13, APP14, COM, Jpeg
from camo.photos.photo import Photo
from camo.photos.pixels import from_pillow
from camo.photos.tiff_structure import Structure
from camo.photos.turning import UPRIGHT

GREYSCALE_MODES = {"1", "L", "LA"}
TIFF_HEADERS = (b"II*\0", b"MM\0*")
MAX_COMMENT = 65533  # bytes; what a segment of a JPEG holds
FILLERS = (b"\x5a" * 64, b"\xa5\x3c\x0f" * 64)  # bytes of a scan that mean something to a decoder that still waits for some


@dataclass
class Content:
    """What a file holds: an open picture, and all that the file says besides.

    Attributes:
        lies: the orientation that the container states, 1 where the decoder has turned the pixels already; None where EXIF decides.
        turned: the orientation in which other statements see the picture, if the container states one; else that of EXIF.
        others as in ``Photo``, but as the file has them.
    """

    picture: Image.Image
    format: str
    exif: bytes | None = None
    xmp: list[bytes] = field(default_factory=list)
    icc_profile: bytes | None = None
    stated: Stated | None = None
    intent: int | None = None
    dpi: tuple[float, float] | None = None
    aspect: tuple[float, float] | None = None
    no_resolution: bool = False
    comments: list[bytes] = field(default_factory=list)
    iptc: bytes | None = None
    resources: bytes | None = None
    text: list[tuple[bytes, bytes]] = field(default_factory=list)
    bits: int = 8
    subsampling: str | None = None
    lossless: bool = False
    lies: int | None = None
    turned: int | None = None
    frames: int = 1
    left_out: list[str] = field(default_factory=list)

    def add_exif(self, block: bytes) -> None:
        """Take the first EXIF block. A second one is left out, as readers do; it would be kept, but no longer be found."""
        block = block.removeprefix(exif.PREFIX)
        if not self.exif:
            self.exif = block or None
        elif block != self.exif:
            self.left_out.append("a second block of EXIF")


def photo_of(content: bytes, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode a file's content. Raises ValueError or whatever Pillow's decoders raise where it is no single picture of at most ``max_pixels``."""
    with UNLIMITED:
        return _decoded(content, max_pixels)


def _decoded(content: bytes, max_pixels: int) -> Photo:
    file_format = identify(content)
    try:
        found = CONTAINERS[file_format](content)
    except SyntaxError as error:  # which is what Pillow raises where a file does not look as its first bytes promise
        raise ValueError(f"damaged, or of an unsupported kind ({error})") from error
    width, height = found.picture.size
    if width * height > max_pixels:
        megapixels, limit = width * height / 1e6, max_pixels / 1e6
        raise ValueError(f"{width}x{height} px are {megapixels:.1f} megapixels, more than the limit of {limit:.1f}; --max-pixels raises it")
    if found.frames > 1:
        raise ValueError(f"{found.frames} frames; animated and multi-page files are not supported")
    found.picture.load()
    return _photo(found)


def pixels_of(content: bytes) -> torch.Tensor:
    """The pixels of a file that was written here, (3, H, W) uint8 RGB: nothing is converted or turned."""
    with UNLIMITED:
        return from_pillow(opened(content, identify(content)).convert("RGB"))


def _jpeg(content: bytes) -> Content:
    jpeg = jpeg_segments.take_apart(content)
    if jpeg.precision != 8:
        raise ValueError(f"a JPEG of {jpeg.precision} bits is not supported")
    if not jpeg.ended:
        _check_complete(jpeg)
    found = Content(opened(jpeg.picture, "JPEG"), "JPEG", subsampling=jpeg.subsampling)
    found.xmp, found.left_out = _jpeg_xmp(jpeg)
    for block in _blocks(jpeg.contents(APP1, jpeg_segments.EXIF)):
        found.add_exif(block)
    found.icc_profile = jpeg_segments.icc_profile(jpeg)
    if not found.icc_profile and jpeg.contents(APP2, jpeg_segments.ICC):
        found.left_out.append("damaged colour profile")
    found.resources = b"".join(jpeg.contents(APP13, jpeg_segments.PHOTOSHOP)) or None
    found.comments = [content for marker, content in jpeg.segments if marker == COM and content]
    for density in jpeg.contents(APP0, jpeg_segments.JFIF)[:1]:
        if len(density) >= 7:
            unit, across, down = density[2], int.from_bytes(density[3:5]), int.from_bytes(density[5:7])
            found.no_resolution = True
            if unit in {1, 2}:
                found.dpi = (across, down) if unit == 1 else (across * 2.54, down * 2.54)
            elif across and down and across != down:
                found.aspect = (across, down)
    found.frames, others = _further_pictures(jpeg)
    found.left_out += others + [name for marker, content in jpeg.segments if (name := _left_out_segment(marker, content))]
    return found


def _blocks(parts: list[bytes]) -> list[bytes]:
    """The EXIF blocks in a JPEG's segments: one that does not begin with a header goes on with the block before it."""
    blocks: list[bytes] = []
    for part in parts:
        if blocks and not part.startswith(TIFF_HEADERS):
            blocks[-1] += part
        else:
            blocks.append(part)
    return blocks


def _check_complete(jpeg: Jpeg) -> None:
    """Refuse a JPEG without its end whose pixels are not all there: then what is put behind its last byte changes them."""
    with contextlib.suppress(OSError):
        reference = opened(jpeg.picture, "JPEG").tobytes()
        filled = [jpeg.picture[:-2] + filler + jpeg.picture[-2:] for filler in FILLERS]
        if jpeg.complete and all(opened(content, "JPEG").tobytes() == reference for content in filled):
            return
    raise ValueError("the file is truncated")


def _jpeg_xmp(jpeg: Jpeg) -> tuple[list[bytes], list[str]]:
    """The XMP packets of a JPEG, extended ones behind those that announce them; and the names of what is missing."""
    packets, left_out, used = [], [], set()
    for packet in jpeg.contents(APP1, jpeg_segments.XMP):
        guid = xmp.extended_guid(packet)
        extended = jpeg_segments.extended_xmp(jpeg, guid) if guid else None
        packets += [packet, *([extended] if extended else [])]
        used |= {guid.upper()} if guid else set()
        left_out += ["extended XMP"] if guid and not extended else []
    if {content[:32].decode("latin-1").upper() for content in jpeg.contents(APP1, jpeg_segments.EXTENDED_XMP)} - used:
        left_out.append("extended XMP that no packet announces")
    return packets, left_out


def _further_pictures(jpeg: Jpeg) -> tuple[int, list[str]]:
    """How many frames a viewer would show, and the names of what else lies behind the picture; smaller copies of it have none."""
    frames, names, after = 1, [], jpeg.after.strip(b"\0")
    for index in jpeg.contents(APP2, jpeg_segments.MPF)[:1]:
        with contextlib.suppress(ValueError):
            structure = Structure(index)
            entry = structure.directory(structure.first).entry(0xB002)
            table = structure.value(entry) if entry else b""
            kinds = [int.from_bytes(table[at : at + 4], "little" if structure.order == "<" else "big") & 0xFFFFFF for at in range(0, len(table), 16)]
            frames += sum(kind >> 16 == 2 for kind in kinds[1:])
            names += ["second picture"] * any(kind >> 16 not in {1, 2, 3} for kind in kinds[1:])
    if jpeg.contents(APP2, jpeg_segments.ISO_GAIN_MAP) or b"hdrgm:" in after or b"HDRGainMap" in after:
        names = ["gain map"]
    if b"ftyp" in after[:64] or b"MotionPhoto_Data" in after or re.search(rb"\0\0\0.ftyp(mp4|isom|avc|qt|3gp|heic|hvc)", after):
        names.append("motion-photo video")
    elif after and not names and not jpeg.contents(APP2, jpeg_segments.MPF):
        names.append("second picture" if after.startswith(b"\xff\xd8") else f"{len(after)} bytes behind the picture")
    return frames, names


def _left_out_segment(marker: int, content: bytes) -> str | None:
    """The name of a segment that is not carried on; None for those that are, or that say how the picture was stored."""
    if marker in {COM, APP14} or content.startswith((b"Adobe_CM", b"Ducky")):
        return None
    known = {
        APP0: (jpeg_segments.JFIF, jpeg_segments.JFXX),
        APP1: (jpeg_segments.EXIF, jpeg_segments.XMP, jpeg_segments.EXTENDED_XMP),
        APP2: (jpeg_segments.ICC, jpeg_segments.MPF, jpeg_segments.ISO_GAIN_MAP),
        APP13: (jpeg_segments.PHOTOSHOP,),
    }
    if content.startswith(known.get(marker, ())) and marker in known:
        return None
    if marker == 0xEB and b"jumb" in content[:32]:
        return "content credentials (C2PA), which hold of the original alone"
    label = re.match(rb"[\x20-\x7e]{3,40}", content)
    return f"JPEG segment APP{marker - APP0}" + (f" ({label[0].decode()})" if label else "")


def _png(content: bytes) -> Content:
    png = png_chunks.take_apart(content)
    found = Content(opened(png.picture, "PNG"), "PNG", bits=max(8, png.header[8]), frames=png.frames)
    colours = colour.of_png(png)
    found.icc_profile, found.stated, found.intent = colours.icc_profile, colours.stated, colours.intent
    found.left_out += ["damaged colour profile"] * colours.damaged
    if (size := png.first(b"pHYs")) and len(size) == 9:
        across, down, found.no_resolution = int.from_bytes(size[:4]), int.from_bytes(size[4:8]), True
        if size[8] == 1:
            found.dpi = (across * 0.0254, down * 0.0254)
        elif across and down and across != down:
            found.aspect = (across, down)
    for kind, body in png.chunks:
        if kind in png_chunks.TEXT:
            _png_text(found, kind, body)
        elif kind == b"tIME":
            found.text.append((kind, body))
        elif kind == b"eXIf":
            found.add_exif(body)
        elif kind == b"caBX":
            found.left_out.append("content credentials (C2PA), which hold of the original alone")
        elif kind not in png_chunks.SILENT | {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs"}:
            found.left_out.append(f"PNG chunk {kind.decode('ascii')}")
    found.left_out += [f"damaged PNG chunk {kind.decode('ascii')}" for kind in png.damaged if kind not in png_chunks.SILENT]
    found.left_out += _behind(png.after)
    return found


def _png_text(found: Content, kind: bytes, body: bytes) -> None:
    """Put one text of a PNG where it belongs: XMP, what ImageMagick put into a text, a comment, or a chunk to be kept as it is."""
    keyword = body.partition(b"\0")[0]
    name = keyword.decode("latin-1", "replace")[:79]
    try:
        keyword, value = png_chunks.text(kind, body)
        if keyword.startswith(png_chunks.RAW_PROFILE):
            _raw_profile(found, keyword[len(png_chunks.RAW_PROFILE) :].strip(), png_chunks.raw_profile(value))
        elif keyword == png_chunks.XMP_KEYWORD:
            found.xmp.append(value)
        elif not embedded.in_bytes(value):
            found.text.append((kind, body))
    except ValueError as error:
        found.left_out.append(f"PNG text {name!r}, {'damaged' if 'more than' not in str(error) else f'of {error}'}")


def _raw_profile(found: Content, kind: bytes, value: bytes) -> None:
    value = value.removeprefix(jpeg_segments.PHOTOSHOP)
    if kind in {b"exif", b"APP1"} and value.startswith((jpeg_segments.EXIF, *TIFF_HEADERS)):
        found.add_exif(value)
    elif kind in {b"xmp", b"APP1"}:
        found.xmp.append(value.removeprefix(jpeg_segments.XMP))
    elif kind in {b"iptc", b"8bim", b"APP13"} and value.startswith(b"8BIM"):
        found.resources = (found.resources or b"") + value
    elif kind == b"iptc":
        found.left_out += [image_resources.SECOND_IPTC] if found.iptc and found.iptc != value else []
        found.iptc = found.iptc or value
    else:
        found.left_out.append(f"PNG text {'Raw profile type ' + kind.decode('latin-1')!r}")


def _webp(content: bytes) -> Content:
    webp = riff.take_apart(content)
    picture = opened(webp.picture, "WEBP")
    found = Content(picture, "WEBP", icc_profile=webp.first(b"ICCP"), lossless=webp.lossless, frames=getattr(picture, "n_frames", 1))
    found.subsampling = None if webp.lossless else "4:2:0"  # which VP8 has always (RFC 6386)
    for kind, body in webp.chunks:
        if kind == b"EXIF":
            found.add_exif(body)
        elif kind == b"XMP ":
            found.xmp.append(body)
        elif kind == b"C2PA":
            found.left_out.append("content credentials (C2PA), which hold of the original alone")
        elif kind != b"ICCP":
            found.left_out.append(f"WebP chunk {kind.decode('latin-1')!r}")
    found.left_out += [f"damaged WebP chunk {kind.decode('latin-1')!r}" for kind in webp.damaged]
    found.left_out += _behind(webp.after)
    return found


def _behind(rest: bytes) -> list[str]:
    """The name of what follows the end of a picture, if anything does."""
    rest = rest.strip(b"\0")
    return [f"{len(rest)} bytes behind the picture"] if rest else []


def _tiff(content: bytes) -> Content:
    pages = tiff.take_apart(content)
    found = Content(opened(pages.picture, "TIFF"), "TIFF", pages.exif, frames=pages.frames, bits=max(8, pages.bits), lies=pages.orientation)
    found.turned, found.no_resolution, found.left_out = pages.orientation, pages.resolution is not None, pages.left_out
    found.xmp, found.icc_profile = [pages.xmp] if pages.xmp else [], pages.icc_profile
    found.iptc, found.resources = pages.iptc, pages.resources
    if pages.resolution:
        across, down, unit = pages.resolution
        if unit in {2, 3}:
            found.dpi = (across, down) if unit == 2 else (across * 2.54, down * 2.54)
        elif across > 0 and down > 0 and across != down:
            found.aspect = (across, down)
    return found


def _bmp(content: bytes) -> Content:
    picture = opened(content, "BMP")
    return Content(picture, "BMP", dpi=picture.info.get("dpi"))


def _gif(content: bytes) -> Content:
    picture, said = opened(content, "GIF"), gif.take_apart(content)
    found = Content(picture, "PNG", xmp=said.xmp, icc_profile=said.icc_profile, comments=said.comments, frames=getattr(picture, "n_frames", 1))
    found.left_out = said.left_out + _behind(said.after)
    return found


def _avif(content: bytes) -> Content:
    found = _isobmff(content, "AVIF")
    found.lies = 1
    with contextlib.suppress(Exception):  # what Pillow makes of a rotated container is EXIF with nothing but its orientation
        found.lies = found.picture.getexif().get(ExifTags.Base.Orientation, 1)
    found.turned = found.lies
    found.bits, found.subsampling = isobmff.av1_storage(content)
    return found


def _heif(content: bytes) -> Content:
    found = _isobmff(content, "HEIF")
    info = found.picture.info
    found.lies = 1  # libheif turns the pixels as the container says
    if not re.search(b"irot|imir", content[: 2**20]):
        found.turned = 1
    found.bits = info.get("bit_depth", 8)
    found.subsampling = {420: "4:2:0", 422: "4:2:2", 444: "4:4:4"}.get(info.get("chroma", 0))
    found.aspect = info.get("pixel_aspect_ratio")
    found.left_out += ["depth map"] * bool(info.get("depth_images"))
    for kind in info.get("aux") or ():
        found.left_out.append("gain map" if "gainmap" in kind.lower() else f"auxiliary picture {kind}")
    return found


def _isobmff(content: bytes, file_format: str) -> Content:
    """What AVIF and HEIC have in common."""
    items = isobmff.items(content)
    blocks = isobmff.exif(items)
    picture = opened(isobmff.without_metadata(content, items), file_format)
    found = Content(picture, file_format, xmp=isobmff.xmp(items), frames=getattr(picture, "n_frames", 1))
    for block in blocks:
        found.add_exif(block)
    found.icc_profile = picture.info.get("icc_profile")
    if not found.icc_profile:
        isobmff.check_colours(content)
    for item in items:
        if item.kind == b"tmap":
            found.left_out.append("gain map")
        elif item.kind == b"mime" and item.content_type != b"application/rdf+xml":
            found.left_out.append(f"metadata of the type {item.content_type.decode('latin-1')!r}")
        elif item.kind in {b"Exif", b"mime"} and item.content is None:
            found.left_out.append("damaged " + ("EXIF" if item.kind == b"Exif" else "XMP"))
    if re.search(rb"uuid\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c\x92\x97\x58\x28\x87\x7e\xc4\x81", content):
        found.left_out.append("content credentials (C2PA), which hold of the original alone")
    found.left_out += isobmff.further(content)
    return found


CONTAINERS: dict[str, Callable[[bytes], Content]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "TIFF": _tiff,
    "BMP": _bmp,
    "GIF": _gif,
    "AVIF": _avif,
    "HEIF": _heif,
}


def _photo(found: Content) -> Photo:
    """Turn and convert the pixels, and mend all that was said of them."""
    left_out, block = found.left_out, _block(found)
    stored = block.orientation if block else 1
    lies = stored if found.lies is None else found.lies
    turned = found.turned if found.turned is not None else stored
    if lies in UPRIGHT:
        found.picture = found.picture.transpose(UPRIGHT[lies])
    cmyk = found.picture.mode == "CMYK"
    pixels, alpha, greyscale, icc_profile, converted = _pixels(found)
    height, width = pixels.shape[-2:]
    facts = Facts(width, height, turned, turned > 1 or found.lies is not None, converted, found.bits > 8, cmyk)
    if block:
        if xmp_in_exif := block.take(XMP_TAG):
            found.xmp.append(xmp_in_exif)
        found.resources, found.iptc = found.resources or block.take(PHOTOSHOP_TAG), found.iptc or block.take(IPTC_TAG)
        block = _mended(block, facts)
        left_out += ["damaged EXIF"] * (block is None)
    packet, missing = _packet(found.xmp, facts)
    iptc, resources, paths = image_resources.mended(found.resources or b"", turned)
    left_out += missing + paths + ([image_resources.SECOND_IPTC] if found.iptc and iptc and iptc != found.iptc else [])
    iptc = found.iptc or iptc
    if {"gain map", "depth map"} & {*left_out}:  # which is what the second picture is
        left_out = [name for name in left_out if name != "second picture"]
    dpi, aspect = found.dpi, found.aspect
    if block and not found.no_resolution and dpi is None and (stated := block.resolution):
        if stated[2] in {2, 3}:
            dpi = exif.inches(stated)
        elif min(stated[:2]) > 0 and stated[0] != stated[1]:
            aspect = stated[:2]
    elif turned >= 5:
        dpi, aspect = dpi and (dpi[1], dpi[0]), aspect and (aspect[1], aspect[0])
    comments = tuple(comment[:MAX_COMMENT] for comment in found.comments if not embedded.in_bytes(comment))
    left_out += ["the end of a long comment"] * any(len(comment) > MAX_COMMENT for comment in found.comments)
    return Photo(
        pixels,
        found.format,
        alpha,
        greyscale,
        icc_profile,
        bytes(block) if block else None,
        _possible(dpi),
        packet,
        comments,
        image_resources.without_previews(iptc) if iptc else None,
        resources,
        tuple(found.text),
        aspect,
        0 if converted and found.stated else found.intent,
        found.bits,
        found.subsampling,
        found.lossless,
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _block(found: Content) -> Exif | None:
    if not found.exif:
        return None
    try:
        return Exif(found.exif)
    except ValueError:
        found.left_out.append("damaged EXIF")
        return None


def _mended(block: Exif, facts: Facts) -> Exif | None:
    """The block as it is true of the picture; None where it is too damaged for that, or nothing is left in it."""
    try:
        block.remove_pictures()
        if facts.turned in UPRIGHT:
            block.turn(facts)
        if facts.upright:
            block.say_upright()
        block.agree(facts)
        return Exif(bytes(block)) if block.directories() else None
    except (ValueError, IndexError, OverflowError):
        return None


def _packet(packets: list[bytes], facts: Facts) -> tuple[bytes | None, list[str]]:
    """All packets mended, as one; and the names of what was left out."""
    kept, left_out = [], []
    for packet in packets:
        mended, missing = xmp.mended(packet, facts)
        kept += [mended] if mended else []
        left_out += missing
    if len(kept) > 1:
        merged, missing = xmp.merged(kept)
        return merged, left_out + missing
    return (kept[0] if kept else None), left_out


def _possible(dpi: tuple[float, ...] | None) -> tuple[float, float] | None:
    """The resolution, or None where it cannot be one."""
    if dpi is None:
        return None
    horizontal, vertical = (float(value) for value in dpi)
    return (horizontal, vertical) if min(horizontal, vertical) > 1 and max(horizontal, vertical) <= 65535 else None


def _pixels(found: Content) -> tuple[torch.Tensor, torch.Tensor | None, bool, bytes | None, bool]:
    """8-bit pixels, alpha, whether they are grey, the profile that they are in, and whether they were converted to sRGB."""
    picture, icc_profile, converted = found.picture, found.icc_profile or None, False
    if icc_profile:
        colour.check_profile(icc_profile)
    if picture.mode.startswith("I;16"):
        wide = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    if picture.mode in {"I", "F"}:  # their range is defined nowhere
        raise ValueError("32-bit pixels are not supported")
    if picture.mode == "CMYK":
        picture, icc_profile, converted = colour.cmyk_to_srgb(picture, icc_profile), None, True
    greyscale = picture.mode in GREYSCALE_MODES
    alpha = None
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        alpha = torch.from_numpy(np.array(picture.getchannel("A")))
    if found.stated:
        picture, converted = colour.stated_to_srgb(picture.convert("L" if greyscale else "RGB"), found.stated), True
    picture = picture.convert("RGB")
    if icc_profile and not greyscale:
        in_srgb = colour.wide_to_srgb(picture, icc_profile)
        if in_srgb is not None:
            picture, icc_profile, converted = in_srgb, None, True
    return from_pillow(picture), alpha, greyscale, icc_profile, converted
