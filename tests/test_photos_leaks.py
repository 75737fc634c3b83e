"""Nothing of the original picture remains in what is written: no thumbnail, preview, second picture or video, wherever a file may hide one."""

import base64
import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from camo.photos.images import READABLE, encode, read
from camo.photos.metadata import as_format
from tests import photo_files as files

THUMBNAIL, STRIP = files.thumbnail(), files.picture(size=(24, 16)).tobytes()
OTHERS = {name: files.saved(files.picture(size=(24, 16)), name) for name in ("PNG", "WEBP", "GIF", "AVIF", "HEIF") if name in READABLE}
MAIN = {271: (2, b"Maker\0"), 274: (3, 1), 0x8769: (4, {0x927C: (7, b"note " + THUMBNAIL + b" end")})}


def strip_exif(order="<"):
    """EXIF with an uncompressed thumbnail."""
    second = {256: (3, 24), 257: (3, 16), 258: (3, (8, 8, 8)), 259: (3, 1), 262: (3, 2), 273: (4, 0), 277: (3, 3), 278: (3, 16), 279: (4, len(STRIP))}
    block = files.exif({271: (2, b"Maker\0")}, second, order=order)
    return block.replace(struct.pack(order + "HHII", 273, 4, 1, 0), struct.pack(order + "HHII", 273, 4, 1, len(block))) + STRIP


def several_exif():
    """EXIF with thumbnails in a second and a third directory and in one that the main directory points to."""
    pointer = {259: (3, 6), 513: (4, 0), 514: (4, len(THUMBNAIL))}
    block = files.exif({271: (2, b"Maker\0"), 330: (4, {**pointer, 254: (4, 1)})}, pointer, pointer)
    copies = len(re.findall(re.escape(struct.pack("<HHII", 513, 4, 1, 0)), block))
    assert copies == 3
    for number in range(copies):
        old, new = struct.pack("<HHII", 513, 4, 1, 0), struct.pack("<HHII", 513, 4, 1, len(block) + number * len(THUMBNAIL))
        block = block.replace(old, new, 1)
    return block + copies * THUMBNAIL


def mpo():
    return files.saved(files.picture(), "MPO", save_all=True, append_images=[files.picture(size=(24, 16))])


def raw_profile(name, content):
    text = b"\n%b\n%8d\n%b\n" % (name, len(content), content.hex().encode())
    return files.chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text))


BASE64 = base64.b64encode(THUMBNAIL)
GAIN_MAP = '<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Semantic="GainMap"/></rdf:li></rdf:Seq></Container:Directory>'
SOURCES = {
    "EXIF thumbnail": files.jpeg(files.jpeg_exif(files.exif_with_thumbnail(MAIN, THUMBNAIL))),
    "EXIF thumbnail, big-endian": files.jpeg(files.jpeg_exif(files.exif_with_thumbnail(MAIN, THUMBNAIL, ">"))),
    "EXIF thumbnail on its side": files.jpeg(files.jpeg_exif(files.exif_with_thumbnail(MAIN | {274: (3, 6)}, THUMBNAIL))),
    "EXIF thumbnail of strips": files.jpeg(files.jpeg_exif(strip_exif())),
    "EXIF thumbnail of strips, big-endian": files.jpeg(files.jpeg_exif(strip_exif(">"))),
    "several EXIF thumbnails": files.jpeg(files.jpeg_exif(several_exif())),
    "JFIF thumbnail": files.jpeg(files.segment(0xE0, b"JFXX\0\x10" + THUMBNAIL)),
    "JFIF thumbnail of strips": files.saved(files.picture(), "JPEG")[:2]
    + files.segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1" + bytes((24, 16)) + STRIP)
    + files.jpeg()[20:],
    "Photoshop thumbnail": files.jpeg(
        files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1036, bytes(28) + THUMBNAIL) + files.resource(1028, b"\x1c\2\x78\0\1a"))
    ),
    "Photoshop resource of another kind": files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + files.resource(4000, b"plug-in" + THUMBNAIL))),
    "XMP thumbnail": files.jpeg(files.jpeg_xmp(files.xmp(elements=files.xmp_thumbnails(THUMBNAIL)))),
    "XMP property of another kind": files.jpeg(files.jpeg_xmp(files.xmp(f'GImage:Mime="image/jpeg" GImage:Data="{BASE64.decode()}"'))),
    "XMP of unknown words": files.jpeg(files.jpeg_xmp(files.xmp(elements=f"<dc:source>see {BASE64.decode()}</dc:source>"))),
    "damaged XMP": files.jpeg(files.jpeg_xmp(b"<x:xmpmeta><xmpGImg:image>" + BASE64)),
    "preview of an MPO": mpo(),
    "gain map": files.jpeg(files.jpeg_xmp(files.xmp('hdrgm:Version="1.0"', GAIN_MAP)), after=THUMBNAIL),
    "motion photo": files.jpeg(files.jpeg_xmp(files.xmp('GCamera:MotionPhoto="1"')), after=b"\0\0\0\x18ftypmp42" + bytes(12) + THUMBNAIL),
    "unknown segment": files.jpeg(files.segment(0xE5, b"maker" + THUMBNAIL)),
    "comment": files.jpeg(files.segment(0xFE, b"see " + BASE64), files.segment(0xFE, THUMBNAIL)),
    "PNG: EXIF thumbnail": files.png(files.chunk(b"eXIf", files.exif_with_thumbnail(MAIN, THUMBNAIL))),
    "PNG: raw profile": files.png(raw_profile(b"exif", b"Exif\0\0" + files.exif_with_thumbnail(MAIN, THUMBNAIL))),
    "PNG: raw profile of resources": files.png(raw_profile(b"8bim", files.resource(1033, bytes(28) + THUMBNAIL))),
    "PNG: unknown raw profile": files.png(raw_profile(b"preview", THUMBNAIL)),
    "PNG: text": files.png(files.chunk(b"tEXt", b"Preview\0" + BASE64), files.chunk(b"zTXt", b"Thumb\0\0" + zlib.compress(BASE64))),
    "PNG: XMP": files.png(files.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + files.xmp(elements=files.xmp_thumbnails(THUMBNAIL)))),
    "PNG: unknown chunk": files.png(files.chunk(b"prVw", THUMBNAIL)),
    "PNG: behind its end": files.png() + THUMBNAIL,
    "WebP": files.saved(
        files.picture(), "WEBP", exif=files.exif_with_thumbnail(MAIN, THUMBNAIL), xmp=files.xmp(elements=files.xmp_thumbnails(THUMBNAIL))
    ),
    "TIFF": files.tiff({271: (2, b"Maker\0"), 0x8769: (4, {0x927C: (7, THUMBNAIL)}), 34377: (1, files.resource(1036, bytes(28) + THUMBNAIL))}),
    "TIFF: layers and XMP": files.tiff(
        {37724: (7, b"layers" + THUMBNAIL), 700: (1, files.xmp(elements=files.xmp_thumbnails(THUMBNAIL))), 65000: (7, THUMBNAIL)}
    ),
}
if "AVIF" in READABLE:
    SOURCES["AVIF"] = files.saved(
        files.picture(), "AVIF", exif=files.exif_with_thumbnail(MAIN, THUMBNAIL), xmp=files.xmp(elements=files.xmp_thumbnails(THUMBNAIL))
    )
if "HEIF" in READABLE:
    SOURCES["HEIC"] = files.saved(files.picture(), "HEIF", exif=files.exif_with_thumbnail(MAIN, THUMBNAIL), thumbnails=[24])


for file_format, small in OTHERS.items():
    coded, hidden = base64.b64encode(small), {0x9286: (7, b"ASCII\0\0\0see " + base64.b64encode(small)), 0x927C: (7, b"note " + small + b" end")}
    SOURCES |= {
        f"{file_format} in EXIF": files.jpeg(files.jpeg_exif(files.exif({270: (2, coded + b"\0"), 0x8769: (4, hidden)}))),
        f"{file_format} in Photoshop's resources": files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + files.resource(4000, b"plug-in" + small))),
        f"{file_format} in IPTC": files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1028, files.iptc(caption=coded)))),
        f"{file_format} in comments": files.jpeg(files.segment(0xFE, small), files.segment(0xFE, b"words of a sentence " * 9 + coded)),
        f"{file_format} in texts": files.png(files.chunk(b"tEXt", b"Title\0see " + coded), files.chunk(b"tEXt", b"Digits\0" + small.hex().encode())),
        f"{file_format} in a TIFF's tags": files.tiff({270: (2, coded + b"\0"), 33723: (7, files.iptc(caption=coded)), 0x8769: (4, hidden)}),
    }
for name, preview in {"JPEG": THUMBNAIL, "raw": STRIP}.items():
    records = files.iptc(caption=b"kept") + b"\x1c\2\xc8\0\2\0\0" + b"\x1c\2\xca" + struct.pack(">H", len(preview)) + preview
    SOURCES[f"IPTC preview, {name}"] = files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1028, records + files.iptc(city=b"kept"))))
SOURCES["thumbnail in a second block of EXIF"] = files.jpeg(files.jpeg_exif(files.exif(MAIN)), files.jpeg_exif(strip_exif()))


def opens(content):
    try:
        with Image.open(io.BytesIO(content)) as found:
            found.load()
    except Exception:
        return False
    return True


BEGINNINGS = re.compile(rb"(?=\xff\xd8\xff|\x89PNG\r\n|RIFF....WEBP|GIF8|....ftyp)", re.DOTALL)


def pictures_in(content, main):
    """Where a picture begins in a file, the main one excepted, and how: as bytes, or as base64 or hexadecimal digits in a text, packed or not."""
    found = [begin.start() for begin in BEGINNINGS.finditer(content) if begin.start() != main and opens(content[begin.start() :])]
    texts = [content]
    for packed in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", content):
        try:
            texts.append(zlib.decompressobj().decompress(content[packed.start() :], 2**20))
        except zlib.error:
            continue
    for text in texts:
        for letters in re.findall(rb"[A-Za-z0-9+/=\n]{100,}", text):
            squeezed = b"".join(letters.split())
            found += ["base64"] * (opens(base64.b64decode(squeezed[: len(squeezed) // 4 * 4])))
            if re.fullmatch(rb"[0-9a-f]*", squeezed):
                found += ["digits"] * (b"\xff\xd8\xff" in bytes.fromhex(squeezed[: len(squeezed) // 2 * 2].decode()))
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_no_picture_remains_but_the_photo_itself(tmp_path, name):
    path = tmp_path / "photo"
    path.write_bytes(SOURCES[name])
    photo = read(path)
    for file_format in {photo.format, "JPEG", "PNG", "WEBP", "TIFF"}:
        written = encode(as_format(photo, file_format))
        assert pictures_in(written, 0) == [], file_format
        for start in range(0, len(STRIP) - 24, 24):
            assert STRIP[start : start + 24] not in written or file_format in {"TIFF", "PNG"}
        for small in (THUMBNAIL, *OTHERS.values()):
            assert small[-60:-20] not in written
            assert base64.b64encode(small)[:60] not in written


@pytest.mark.parametrize("file_format", [name for name in ("AVIF", "HEIF") if name in READABLE])
def test_no_picture_remains_in_avif_and_heic(tmp_path, file_format):
    for number, name in enumerate(("EXIF thumbnail", "several EXIF thumbnails", "XMP thumbnail")):
        (tmp_path / str(number)).write_bytes(SOURCES[name])
        assert pictures_in(encode(as_format(read(tmp_path / str(number)), file_format)), 0) == []


def test_the_search_finds_what_it_is_to_find():
    assert pictures_in(SOURCES["EXIF thumbnail"], 0)
    assert pictures_in(SOURCES["XMP thumbnail"], 0) == ["base64"]
    assert pictures_in(SOURCES["PNG: raw profile"], 0) == ["digits"]
    for file_format in OTHERS:
        assert pictures_in(SOURCES[f"{file_format} in Photoshop's resources"], 0)


def test_what_is_left_of_the_makers_note_stands_where_it_stood(tmp_path):
    block = files.exif_with_thumbnail(MAIN, THUMBNAIL)
    (tmp_path / "a.jpg").write_bytes(files.jpeg(files.jpeg_exif(block)))
    kept = read(tmp_path / "a.jpg").exif[6:]
    at = block.index(b"note \xff\xd8")
    assert kept[at : at + 5] == b"note "
    assert kept[at + 5 : at + 5 + len(THUMBNAIL)] == bytes(len(THUMBNAIL))
    assert kept[at + 5 + len(THUMBNAIL) : at + 9 + len(THUMBNAIL)] == b" end"


def test_smaller_copies_of_the_picture_are_not_worth_a_warning_but_other_pictures_are(tmp_path):
    for name, left_out in {
        "EXIF thumbnail": (),
        "several EXIF thumbnails": (),
        "Photoshop thumbnail": (),
        "XMP thumbnail": (),
        "gain map": ("gain map",),
        "motion photo": ("motion-photo video",),
        "unknown segment": ("JPEG segment APP5 (maker)",),
        "PNG: unknown chunk": ("PNG chunk prVw",),
        "PNG: unknown raw profile": ("PNG text 'Raw profile type preview'",),
    }.items():
        (tmp_path / "a").write_bytes(SOURCES[name])
        assert read(tmp_path / "a").left_out == left_out, name


def test_a_damaged_second_directory_takes_nothing_else_with_it(tmp_path):
    block = bytearray(files.exif(MAIN))
    main = 8 + 2 + 12 * 3
    for beyond in (7, 8, 20, len(block) - 30, 60_000):
        block[main : main + 4] = struct.pack("<I", beyond)
        (tmp_path / "a.jpg").write_bytes(files.jpeg(files.jpeg_exif(bytes(block))))
        with Image.open(io.BytesIO(encode(read(tmp_path / "a.jpg")))) as written:
            assert written.getexif()[271] == "Maker"


def test_the_pixels_are_those_of_the_main_picture(tmp_path):
    for name in ("preview of an MPO", "gain map", "motion photo", "TIFF"):
        (tmp_path / "a").write_bytes(SOURCES[name])
        difference = read(tmp_path / "a").pixels.permute(1, 2, 0).numpy().astype(int) - np.asarray(files.picture())
        assert np.abs(difference).mean() < 2


def test_a_profile_is_not_taken_for_a_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(files.jpeg(icc_profile=files.SRGB_ICC))
    assert read(tmp_path / "a.jpg").icc_profile == files.SRGB_ICC
