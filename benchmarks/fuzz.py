"""Damaged image files by the thousand: ``python -m benchmarks.fuzz [--inputs 20000] [--seed 0] [--skip 0]``.

Each input is a photo of one of the formats with bytes flipped, overwritten, cut out, doubled, or its end cut off. Reading it and writing it again,
without its location in its own format and with all its metadata in every other one, must give a file or a ``CamoError`` of one line, within ten
seconds of processor time and six gigabytes. The exit status is 1 if one did not; such inputs are kept in --keep. A seed always
gives the same inputs: ``--inputs 1000 --skip 4000`` tries the fifth thousand of them.
"""

import argparse
import contextlib
import io
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path

from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from benchmarks.common import SAMPLE
from camo import CamoError
from camo.photos.images import READABLE, decode, encode, read
from camo.photos.metadata import SUFFIX_OF, as_format, without_location

# A damaged header may say 100 Mpx, which Pillow's limit allows: seconds of honest work. Of processor time, as a wall clock would count other
# programs' work too; a file cannot make a decoder sleep.
SECONDS = 10
BYTES = 6 << 30
LARGE = 3_000_000  # bytes of pixels; AVIF alone would take more than those seconds for 100 Mpx
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" exif:GPSLatitude="52,31N"/></x:xmpmeta>'
WRITABLE = [name for name in SUFFIX_OF if name in READABLE]
PNG = b"\x89PNG\r\n\x1a\n"


def seeds() -> list[tuple[str, bytes]]:
    """Whole files: every format, several modes and encodings, with metadata."""
    with Image.open(SAMPLE[0]) as sample:
        photo = sample.convert("RGB").resize((96, 64))
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Maker", 6
    exif[ExifTags.Base.XMLPacket] = XMP  # a TIFF's place for it
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (52.0, 31.0, 12.5)}
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: b"note", ExifTags.Base.ColorSpace: 65535, ExifTags.Base.ExifImageWidth: 96}
    iptc = b"\x1c\x02\x78\0\x09A caption"
    resources = b"8BIM" + struct.pack(">HHI", 1028, 0, len(iptc)) + iptc + b"\0"
    small = io.BytesIO()
    photo.resize((24, 16)).save(small, "JPEG")
    extra = segment(0xED, b"Photoshop 3.0\0" + resources) + segment(0xFE, b"a comment") + segment(0xE0, b"JFXX\0\x10" + small.getvalue())
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    kinds = [
        *(("JPEG", mode, {"progressive": progressive}) for mode in ("RGB", "L", "CMYK") for progressive in (False, True)),
        *(("JPEG", mode, {"dpi": (0, 0), "icc_profile": None}) for mode in ("RGB", "L", "CMYK")),  # Pillow looks into EXIF as it opens the file
        *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        *(("WEBP", mode, {"lossless": lossless}) for mode in ("RGB", "RGBA") for lossless in (False, True)),
        *(("TIFF", mode, {"compression": packed}) for mode in ("RGB", "L", "CMYK") for packed in ("raw", "tiff_lzw", "tiff_adobe_deflate")),
        *(("BMP", mode, {}) for mode in ("RGB", "L", "P")),
        *(("GIF", mode, {}) for mode in ("L", "P")),
        *((file_format, mode, {}) for file_format in ("AVIF", "HEIF") if file_format in READABLE for mode in ("RGB", "RGBA", "L")),
    ]
    files = []
    for file_format, mode, options in kinds:
        buffer = io.BytesIO()
        metadata = {} if options.get("compression", "raw") != "raw" else {"exif": exif.tobytes(), "icc_profile": profile, "dpi": (300, 300)}
        if file_format == "PNG":
            metadata["pnginfo"] = PngImagePlugin.PngInfo()
            metadata["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
            metadata["pnginfo"].add_text("Author", "somebody", zip=True)
            metadata["pnginfo"].add(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
            metadata |= {"icc_profile": None} if mode in {"RGB", "L"} else {}
        elif metadata:
            metadata["xmp"] = XMP
        picture = photo.convert("L").convert("I").point(lambda value: value * 256).convert("I;16") if mode == "I;16" else photo.convert(mode)
        picture.save(buffer, file_format, **metadata | options)
        content = buffer.getvalue()
        if file_format == "JPEG" and metadata:
            content = content[:2] + extra + content[2:] + small.getvalue()
        files.append((f"{file_format} {mode}", content))
    return files


def segment(marker: int, content: bytes) -> bytes:
    """One segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def mutate(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one to three faults; half of the faults are near the start, where the headers are."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        if not damaged:
            break
        at = rng.randrange(min(len(damaged), rng.choice((100, 400, len(damaged), len(damaged)))))
        length = rng.choice((1, 2, 4, 16, 200))
        kind = rng.randrange(6)
        if kind == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            damaged[at : at + length] = rng.randbytes(length)
        elif kind == 2:
            damaged[at : at + length] = rng.choice((b"\0", b"\xff", b"\x7f\xff")) * length
        elif kind == 3:
            del damaged[at : at + length]
        elif kind == 4:
            damaged[at:at] = damaged[at : at + length]
        else:
            del damaged[rng.randrange(len(damaged)) :]
    return repaired(damaged) if damaged.startswith(PNG) and rng.random() < 0.5 else bytes(damaged)


def repaired(png: bytearray) -> bytes:
    """A PNG with the right checksum in each chunk, so that damage gets further than the first check."""
    at = len(PNG)
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4])
        png[end : end + 4] = zlib.crc32(png[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(png)


def outcome(path: Path) -> str:
    """What became of a file: written in its own format, refused, or a fault of ours in that or any other format, with its traceback."""
    try:
        photo = read(path)
        decode(encode(as_format(without_location(photo), photo.format)))
        for file_format in WRITABLE if photo.pixels.numel() < LARGE else ():
            with contextlib.suppress(CamoError):
                decode(encode(as_format(photo, file_format)))
    except CamoError as error:
        return "refused" if "\n" not in str(error) else f"FAULT: message of several lines: {error!r}"
    except BaseException:  # whatever it is, a user would have seen it
        return "FAULT: " + traceback.format_exc()
    return "written"


def alarm(*_: object) -> None:
    """A decoder that hangs is interrupted; ``read`` lets no other exception through than these."""
    raise KeyboardInterrupt(f"more than {SECONDS} s")


def main() -> int:
    """Run, and tell how many inputs of each format ended how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="(default: 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="inputs of this seed that were tried before (default: 0)")
    parser.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="folder for the inputs that show a fault (default: out/fuzz)")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.signal(signal.SIGPROF, alarm)
    rng, files, counts, slowest = random.Random(args.seed), seeds(), Counter(), 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo")
        for index in range(args.skip + args.inputs):
            name, content = rng.choice(files)
            damaged = mutate(content, rng)
            if index < args.skip:
                continue
            path.write_bytes(damaged)
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            result = outcome(path)
            signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, time.process_time() - start)
            counts[name, result.split(":")[0]] += 1
            if result.startswith("FAULT"):
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{index}.bin").write_bytes(damaged)
                print(f"{args.keep / f'{index}.bin'} ({name}): {result}", file=sys.stderr)
    for name in dict(files):
        print(f"{name:12} " + "  ".join(f"{result} {counts[name, result]:5}" for result in ("written", "refused", "FAULT")))
    faults = sum(count for (_, result), count in counts.items() if result == "FAULT")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{args.inputs} inputs, {faults} faults, slowest {slowest:.2f} s, peak {peak:.2f} GB")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
