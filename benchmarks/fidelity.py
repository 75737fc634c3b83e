"""What a file keeps on its way through ``infer.py``, the filter left out: ``python -m benchmarks.fidelity``.

For each format Pillow writes a file with one thing in it, ``camo`` reads and writes it, and Pillow looks at both files. ``kept``: the same bytes
(a TIFF's EXIF, which is its tags: the same values); ``converted``: there, in other bytes, of deeper pixels in 8 bits; ``upright``: the pixels turned
and the tag saying so; ``gone``: as it should be; ``named``: left out, and the photo says so; ``not held``: the format, as Pillow writes and reads it,
has no place for it; ``LOST`` speaks for itself. Of the pixels it tells what is left of those that were read. The ICC profile is sRGB: wide gamuts are
converted to that. A GIF is written as PNG. The second table has a row for each format that is read and a column for each that is written: whether
EXIF's maker and a maker's note are found there.
"""

import argparse
import io
import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin, TiffImagePlugin

from benchmarks.common import SAMPLE, tell
from camo.photos.images import READABLE, encode, read, write
from camo.photos.metadata import SUFFIX_OF, as_format

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description dc:title="a title"/></x:xmpmeta>'
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = {"1", "L", "LA"}


def exif(orientation: int | None = None) -> bytes:
    """EXIF with a maker, a maker note, a place and, if it is given, an orientation."""
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Maker"
    if orientation:
        tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: bytes(range(256))}
    tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return tags.tobytes()


def xmp_options(file_format: str) -> dict[str, Any]:
    """Pillow's option to save XMP, which differs from format to format."""
    if file_format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", XMP)
        return {"pnginfo": chunks}
    if file_format == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[ExifTags.Base.XMLPacket] = XMP
        return {"tiffinfo": tags}
    return {"xmp": XMP}


def through(content: bytes, folder: Path) -> bytes:
    """The file that ``infer.py`` would write if the filter changed nothing."""
    (folder / "in").write_bytes(content)
    photo = read(folder / "in")
    write(as_format(photo, photo.format), folder / "out", overwrite=True)
    return (folder / "out").read_bytes()


def saved(picture: Image.Image, file_format: str, **options: Any) -> bytes | None:
    """A file as Pillow writes it; None where it cannot."""
    buffer = io.BytesIO()
    try:
        picture.save(buffer, file_format, **options)
    except (OSError, ValueError, KeyError):
        return None
    return buffer.getvalue()


def exif_values(picture: Image.Image) -> tuple[Any, ...] | None:
    """The values of what ``exif`` puts in, however the block is laid out; None where none is there."""
    tags = picture.getexif()
    values = (tags.get(ExifTags.Base.Make), *(tags.get_ifd(ifd).get(key) for ifd, key in ((ExifTags.IFD.Exif, 37500), (ExifTags.IFD.GPSInfo, 1))))
    return values if any(values) else None


def exif_bytes(picture: Image.Image) -> bytes | tuple[Any, ...] | None:
    """The block, without the header that some formats leave out; a TIFF's values."""
    block = picture.info.get("exif")
    return block.removeprefix(b"Exif\0\0") if block else exif_values(picture)


def alpha(picture: Image.Image) -> bytes | None:
    """The bytes of the transparency."""
    return picture.convert("RGBA").getchannel("A").tobytes() if picture.has_transparency_data else None


def compared(content: bytes | None, folder: Path, exact: Callable[[Image.Image], Any], loose: Callable[[Image.Image], Any] | None = None) -> str:
    """How what ``exact`` sees in a file fares; where that differs, ``loose`` must still see the same."""
    if content is None:
        return "not held"
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(through(content, folder))) as after:
        if exact(before) is None:
            return "not held"
        if exact(before) == exact(after):
            return "kept"
        return "converted" if loose and loose(before) == loose(after) else "LOST"


def any_comment(picture: Image.Image) -> str | None:
    """A comment, or the text of that name that a PNG has instead."""
    comment = picture.info.get("comment") or picture.info.get("Comment")
    return comment.decode() if isinstance(comment, bytes) else comment


def psnr(first: Image.Image, second: Image.Image) -> float:
    """In dB, of two RGB pictures."""
    error = (np.asarray(first.convert("RGB"), float) - np.asarray(second.convert("RGB"), float)) ** 2
    return float(10 * np.log10(255**2 / error.mean())) if error.any() else float("inf")


def pixels(photo: Image.Image, file_format: str, folder: Path) -> str:
    """What is left of the pixels of a file."""
    content = saved(photo, file_format)
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(through(content, folder))) as after:
        distance = psnr(before, after)
    return "lossless" if distance == float("inf") else f"{distance:.1f} dB"


def orientation(photo: Image.Image, file_format: str, folder: Path) -> str:
    """Whether a photo that lies on its side is shown as it was."""
    content = saved(photo, file_format, exif=exif(6))
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(through(content, folder))) as after:
        shown = ImageOps.exif_transpose(before)
        if shown.size == photo.size:
            return "not held"
        same = after.size == shown.size and after.getexif().get(ExifTags.Base.Orientation, 1) == 1 and psnr(after, shown) > 30
        return "upright" if same else "LOST"


def deep(grey: Image.Image, file_format: str, folder: Path) -> str:
    """What becomes of more than 8 bits."""
    values = np.asarray(grey).astype(np.uint16) * 257
    if file_format == "HEIF":
        import pillow_heif

        buffer = io.BytesIO()
        pillow_heif.encode("L;16", grey.size, values.tobytes(), buffer, quality=-1)
        content = buffer.getvalue()
    else:
        content = saved(Image.fromarray(values), file_format) if file_format in {"PNG", "TIFF"} else None
    return compared(content, folder, lambda picture: picture.mode if picture.mode.startswith("I;16") else None, lambda picture: picture.size)


def segments(file_format: str, *extra: bytes) -> bytes | None:
    """A JPEG with segments behind JFIF's; None for other formats."""
    if file_format != "JPEG":
        return None
    content = saved(Image.new("RGB", (48, 32)), "JPEG") or b""
    return content[:20] + b"".join(extra) + content[20:]


def segment(marker: int, content: bytes) -> bytes:
    """One segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def iptc(file_format: str, folder: Path) -> str:
    """What becomes of an IPTC caption."""
    records = b"\x1c\x02\x78\0\x09A caption"
    if file_format == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[33723] = records
        return compared(saved(Image.new("RGB", (48, 32)), "TIFF", tiffinfo=tags), folder, lambda picture: picture.tag_v2.get(33723))
    block = b"8BIM" + struct.pack(">HHI", 1028, 0, len(records)) + records
    content = segments(file_format, segment(0xED, b"Photoshop 3.0\0" + block))
    return compared(content, folder, lambda picture: picture.info.get("photoshop", {}).get(1028))


def text(file_format: str, folder: Path) -> str:
    """What becomes of a PNG's texts."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Author", "somebody")
    chunks.add_itxt("Title", "Göteborg", "de", "Titel")
    content = saved(Image.new("RGB", (48, 32)), "PNG", pnginfo=chunks) if file_format == "PNG" else None
    return compared(content, folder, lambda picture: picture.text)


def aspect(file_format: str, folder: Path) -> str:
    """What becomes of pixels that are not square."""
    if file_format == "PNG":
        chunks = PngImagePlugin.PngInfo()
        content = saved(Image.new("RGB", (48, 32)), "PNG", dpi=(2 / 0.0254, 1 / 0.0254), pnginfo=chunks)
        at = content.index(b"pHYs") + 4
        head = content[at - 4 : at] + content[at : at + 8] + b"\0"
        content = content[: at + 8] + b"\0" + struct.pack(">I", zlib.crc32(head)) + content[at + 13 :]
        return compared(content, folder, lambda picture: picture.info.get("aspect"))
    content = segments(file_format)
    content = content[:13] + struct.pack(">BHH", 0, 2, 1) + content[18:] if content else None
    return compared(content, folder, lambda picture: picture.info.get("jfif_density"))


def thumbnail(photo: Image.Image, file_format: str, folder: Path) -> str:
    """Whether the JPEG stream of an EXIF thumbnail and of a maker's note are gone."""
    small = saved(photo.resize((32, 24)), "JPEG") or b""
    tags = Image.Exif()
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: small}
    content = saved(photo, file_format, exif=tags.tobytes())
    if content is None or small not in content:
        return "not held"
    return "LEAK" if small[-60:-20] in through(content, folder) else "gone"  # of its scan; tables are alike in many files


def time_and_mode(photo: Image.Image, file_format: str, folder: Path) -> str:
    """Whether the file's time and permissions are those of its source."""
    source = folder / "source"
    source.write_bytes(saved(photo, file_format) or b"")
    source.chmod(0o600)
    os.utime(source, ns=(10**18, 10**18))
    write(read(source), folder / "out", overwrite=True)
    status = (folder / "out").stat()
    return "kept" if (status.st_mode & 0o777, status.st_mtime_ns) == (0o600, 10**18) else "LOST"


def pairs(file_format: str, folder: Path) -> dict[str, str]:
    """What becomes of EXIF on the way from one format to each."""
    with Image.open(SAMPLE[0]) as sample:
        small = sample.convert("RGB").resize((48, 32))
    content, results = saved(small, file_format, exif=exif()), {"from": file_format}
    for target in [name for name in SUFFIX_OF if name in READABLE]:
        with Image.open(io.BytesIO(content or b"")) as before:
            expected = exif_values(before)
        (folder / "in").write_bytes(content or b"")
        photo = as_format(read(folder / "in"), target)
        with Image.open(io.BytesIO(encode(photo))) as after:
            found = exif_values(after)
        named = "named" if "EXIF" in photo.left_out else "LOST"
        results[target] = "not held" if expected is None else "kept" if found == expected else named
    return results


def row(file_format: str, folder: Path) -> dict[str, str]:
    """The line of one format."""
    with Image.open(SAMPLE[0]) as sample:
        photo = sample.convert("RGB")
    grey, transparent = photo.convert("L"), photo.copy()
    levels = np.random.default_rng(0).integers(0, 256, (photo.height, photo.width), dtype=np.uint8)
    levels[: photo.height // 4] = 0  # all that a GIF can tell from the rest
    transparent.putalpha(Image.fromarray(levels))
    profile, block = saved(photo, file_format, icc_profile=ICC), saved(photo, file_format, exif=exif())
    return {
        "format": file_format,
        "pixels": pixels(photo, file_format, folder),
        "orientation": orientation(photo, file_format, folder),
        "ICC": compared(profile, folder, lambda picture: picture.info.get("icc_profile")),
        "DPI": compared(saved(photo, file_format, dpi=(300, 150)), folder, lambda picture: picture.info.get("dpi")),
        "EXIF": compared(block, folder, exif_bytes, exif_values),
        "XMP": compared(saved(photo, file_format, **xmp_options(file_format)), folder, lambda picture: picture.info.get("xmp")),
        "comment": compared(saved(photo, file_format, comment=b"a comment"), folder, lambda picture: picture.info.get("comment"), any_comment),
        "alpha": compared(saved(transparent, file_format), folder, alpha),
        "greyscale": compared(saved(grey, file_format), folder, lambda picture: picture.mode if picture.mode in GREY else None),
        "16 bits in": deep(grey, file_format, folder),
        "IPTC": iptc(file_format, folder),
        "text": text(file_format, folder),
        "aspect": aspect(file_format, folder),
        "thumbnail": thumbnail(photo, file_format, folder),
        "time, mode": time_and_mode(photo, file_format, folder),
    }


def main() -> None:
    """Compare and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tell("fidelity", [row(file_format, Path(folder)) for file_format in READABLE], args.json)
        tell("fidelity of EXIF", [pairs(file_format, Path(folder)) for file_format in READABLE], None)


if __name__ == "__main__":
    main()
