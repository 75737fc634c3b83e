"""Nothing is dropped silently: what one file says, the other says too, or the photo names what was left out."""

import io
import os
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from camo.photos.images import READABLE, Photo, encode, output_suffix, read, write
from camo.photos.metadata import SUFFIX_OF, as_format, without_location, without_metadata
from tests import photo_files as files

FORMATS = [name for name in SUFFIX_OF if name in READABLE]
EXIF_FORMATS = [name for name in FORMATS if name != "BMP"]
NOTE = bytes(range(256))
BLOCK = files.exif(
    {
        271: (2, b"Maker\0"),
        272: (2, b"Model 1\0"),
        0x8769: (4, {0x9003: (2, b"2024:01:02 03:04:05\0"), 0x927C: (7, NOTE)}),
        0x8825: (4, {1: (2, b"N\0")}),
    }
)
RECORDS = files.iptc(caption=b"A caption", keyword=b"harbour", city=b"Somewhere", copyright=b"(c) somebody")


def opened(photo):
    return Image.open(io.BytesIO(encode(photo)))


# EXIF in every pair of formats


def with_exif(file_format):
    return {
        "JPEG": lambda: files.jpeg(files.jpeg_exif(BLOCK)),
        "PNG": lambda: files.png(files.chunk(b"eXIf", BLOCK)),
        "WEBP": lambda: files.saved(files.picture(), "WEBP", exif=BLOCK),
        "TIFF": lambda: files.tiff(
            {271: (2, b"Maker\0"), 272: (2, b"Model 1\0"), 0x8769: (4, {0x9003: (2, b"2024:01:02 03:04:05\0"), 0x927C: (7, NOTE)})}
        ),
        "AVIF": lambda: files.saved(files.picture(), "AVIF", exif=BLOCK),
        "HEIF": lambda: files.saved(files.picture(), "HEIF", exif=BLOCK),
    }[file_format]()


@pytest.mark.parametrize("source", EXIF_FORMATS)
def test_exif_is_found_in_every_format_it_is_written_to(tmp_path, source):
    photo = files.photo_of(tmp_path, with_exif(source))
    for target in [name for name in EXIF_FORMATS if name != "HEIF" or source in {"WEBP", "HEIF"}]:
        content = encode(as_format(photo, target))
        with Image.open(io.BytesIO(content)) as written:
            tags = written.getexif()
            details = tags.get_ifd(ExifTags.IFD.Exif)
        assert (tags[271], tags[272], details[0x9003], details[0x927C]) == ("Maker", "Model 1", "2024:01:02 03:04:05", NOTE)
        if target == "JPEG":
            assert content[20:30] == b"\xff\xe1" + struct.pack(">H", len(photo.exif) + 2) + b"Exif\0\0"
        if target in {"PNG", "WEBP"}:
            assert content.count(b"Exif\0\0") == 0
        if source not in {"TIFF", "AVIF"} and target != "AVIF":  # where it stood in the block, which a maker's own offsets rely on
            start = content.index(b"II*\0\x08\0\0\0" if target not in {"TIFF"} else b"II*\0")
            assert content[start + BLOCK.index(NOTE) :].startswith(NOTE)
        assert as_format(photo, target).left_out == ()


def test_bmp_holds_nothing_and_says_so(tmp_path):
    photo = files.photo_of(
        tmp_path, files.jpeg(files.jpeg_exif(BLOCK), files.jpeg_xmp(files.xmp()), files.segment(0xFE, b"hello"), icc_profile=files.SRGB_ICC)
    )
    assert photo.left_out == ()
    assert as_format(photo, "BMP").left_out == ("EXIF", "XMP", "colour profile", "comments")
    encode(as_format(photo, "BMP"))


# IPTC, resources and comments


@pytest.mark.parametrize("extra", [b"", files.resource(1061, bytes(16)), files.resource(1057, b"version")])
def test_iptc_and_photoshops_resources_are_kept_in_a_jpeg(tmp_path, extra):
    block = files.resource(1028, RECORDS) + extra
    photo = files.photo_of(tmp_path, files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + block)))
    assert b"Photoshop 3.0\0" + files.resource(1028, RECORDS) in encode(photo)
    with opened(photo) as written:
        assert written.info["photoshop"][1028] == RECORDS
        assert 1057 not in written.info["photoshop"] or written.info["photoshop"][1057] == b"version"
    assert (b"version" in encode(photo)) == (b"version" in extra)


def test_iptc_in_several_segments_is_put_together(tmp_path):
    records = b"".join(files.iptc(caption=bytes((65 + index,)) * 9000) for index in range(10))
    block = files.resource(1028, records)
    photo = files.photo_of(tmp_path, files.jpeg(*(files.segment(0xED, b"Photoshop 3.0\0" + block[at : at + 60_000]) for at in (0, 60_000))))
    assert photo.iptc == records
    assert files.photo_of(tmp_path, encode(photo)).iptc == records


PLACE = files.exif({272: (2, b"Model\0"), 0x8825: (4, {1: (2, b"N\0"), 27: (7, b"secret place")})})
ONE, TWO = files.iptc(caption=b"one"), files.iptc(caption=b"two")
SECONDS = {
    "EXIF, JPEG": files.jpeg(files.jpeg_exif(BLOCK), files.jpeg_exif(PLACE)),
    "EXIF, WebP": files.webp_with(b"EXIF", PLACE, exif=BLOCK),
    "EXIF, PNG": files.png(files.chunk(b"eXIf", BLOCK), files.chunk(b"eXIf", PLACE)),
    "IPTC, JPEG": files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1028, ONE) + files.resource(1028, TWO))),
    "IPTC, TIFF": files.tiff({33723: (7, ONE), 34377: (1, files.resource(1028, TWO))}),
}


@pytest.mark.parametrize("name", SECONDS)
def test_a_second_block_that_says_something_else_is_named_and_shows_no_place(tmp_path, name):
    photo = files.photo_of(tmp_path, SECONDS[name])
    assert photo.left_out == (f"a second block of {name[:4]}",)
    assert b"secret place" not in encode(photo)
    assert photo.iptc == (ONE if name.startswith("IPTC") else None)
    assert name.startswith("IPTC") or photo.exif[6:] == BLOCK


def test_two_blocks_that_say_the_same_are_one(tmp_path):
    resources = files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1028, ONE) + files.resource(1028, ONE))
    photo = files.photo_of(tmp_path, files.jpeg(files.jpeg_exif(BLOCK), files.jpeg_exif(BLOCK), resources))
    assert (photo.exif[6:], photo.iptc, photo.left_out) == (BLOCK, ONE, ())


@pytest.mark.parametrize("kind", [1, 4, 7])
def test_iptc_of_a_tiff_is_kept_whatever_its_type(tmp_path, kind):
    padded = RECORDS + b"\0" * (-len(RECORDS) % 4)
    content = files.tiff({33723: (kind, padded if kind != 4 else struct.unpack(f"<{len(padded) // 4}I", padded))})
    photo = files.photo_of(tmp_path, content)
    assert photo.iptc == RECORDS
    with opened(photo) as written:
        assert written.tag_v2[33723] == RECORDS
    for file_format in ("JPEG", "PNG"):
        assert files.photo_of(tmp_path, encode(as_format(photo, file_format))).iptc == RECORDS
    assert as_format(photo, "WEBP").left_out == ("IPTC",)


def test_a_value_that_ends_in_zeros_is_not_cut_short(tmp_path):
    records = files.iptc(caption=b"ends in zeros\0\0\0")
    assert files.photo_of(tmp_path, files.tiff({33723: (7, records)})).iptc == records


def test_the_descriptive_tags_of_a_tiff_are_kept(tmp_path):
    texts = {
        269: b"Document\0",
        270: b"Description\0",
        271: b"Maker\0",
        285: b"Page\0",
        305: b"Software\0",
        315: b"Artist\0",
        316: b"Host\0",
        33432: b"(c)\0",
    }
    tags = {tag: (2, text) for tag, text in texts.items()} | {
        18246: (3, 4),
        18249: (3, 75),
        40091: (1, "Titel".encode("utf-16-le")),
        297: (3, (1, 2)),
    }
    photo = files.photo_of(tmp_path, files.tiff(tags | {700: (1, files.xmp('dc:format="x"')), 65_000: (3, 7), 37_724: (7, b"layers")}))
    with opened(photo) as written:
        found = written.tag_v2
    assert {tag: found[tag].encode() + b"\0" for tag in texts} == texts
    assert (found[18246], found[18249], found[297], found[40091]) == (4, 75, (1, 2), "Titel".encode("utf-16-le"))
    assert found[700] == files.xmp('dc:format="x"')
    assert photo.left_out == ("Photoshop layers", "TIFF tag 65000")


@pytest.mark.parametrize("order", "<>")
def test_a_tiffs_orientation_of_bytes_and_its_resolution_survive(tmp_path, order):
    photo = files.photo_of(tmp_path, files.tiff({282: (5, (11_811, 100)), 283: (5, (5_905, 100)), 296: (3, 3), 271: (2, b"Maker\0")}, order=order))
    with opened(photo) as written:
        assert written.info["dpi"] == pytest.approx((118.11 * 2.54, 59.05 * 2.54), abs=0.01)
        assert written.getexif()[271] == "Maker"


def test_all_comments_are_kept_in_order(tmp_path):
    comments = (b"first", "zweiter ä".encode(), b"third \xe4")
    photo = files.photo_of(tmp_path, files.jpeg(*(files.segment(0xFE, comment) for comment in comments)))
    assert photo.comments == comments
    assert files.photo_of(tmp_path, encode(photo)).comments == comments
    with opened(as_format(photo, "PNG")) as written:
        assert "Comment" in written.text
    assert encode(as_format(photo, "PNG")).count(b"Comment\0") == 3
    assert files.photo_of(tmp_path, files.saved(files.picture().quantize(8), "GIF", comment=b"from a GIF")).comments == (b"from a GIF",)


# XMP


def long_text(length):
    return "".join(np.random.default_rng(0).choice(list("abcdefgh "), length))


def extended(packet, guid, pieces=2):
    step = -(-len(packet) // pieces)
    parts = [(at, packet[at : at + step]) for at in range(0, len(packet), step)]
    return [
        files.segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", len(packet), at) + part)
        for at, part in reversed(parts)
    ]


def test_extended_xmp_is_kept_and_its_guid_leads_to_it(tmp_path):
    guid, text = b"0123456789ABCDEF0123456789ABCDEF", long_text(70_000)
    main, rest = files.xmp(f'xmpNote:HasExtendedXMP="{guid.decode()}" dc:format="main"'), files.xmp(elements=f"<dc:source>{text}</dc:source>")
    content = files.jpeg(files.jpeg_xmp(main), *extended(rest, guid))
    photo = files.photo_of(tmp_path, content)
    assert photo.left_out == ()
    assert text.encode() in photo.xmp
    assert b"HasExtendedXMP" not in photo.xmp
    written = encode(photo)
    with Image.open(io.BytesIO(written)) as image:
        assert b'dc:format="main"' in image.info["xmp"]
        announced = image.info["xmp"].partition(b'HasExtendedXMP="')[2][:32]
    assert written.count(b"http://ns.adobe.com/xmp/extension/\0" + announced) == 2
    assert text.encode() in files.photo_of(tmp_path, written).xmp
    for file_format in ("PNG", "WEBP", "TIFF"):
        with opened(as_format(photo, file_format)) as image:
            assert text.encode() in image.info["xmp"]


def test_every_xmp_packet_is_kept(tmp_path):
    photo = files.photo_of(
        tmp_path, files.jpeg(files.jpeg_xmp(files.xmp('dc:format="one"')), files.jpeg_xmp(files.xmp('dc:format="two"')), files.jpeg_xmp(b"no XML"))
    )
    assert b'"one"' in photo.xmp
    assert b'"two"' in photo.xmp
    assert photo.left_out == ("XMP packet 3 of 3",)


def gif_extension(label, *blocks):
    return bytes((0x21, label)) + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


XMP_IN_GIF = b"\x21\xff\x0bXMP DataXMP" + files.xmp('dc:format="x"') + b"\1" + bytes(range(255, -1, -1)) + b"\0"


@pytest.mark.parametrize("first", [True, False])
def test_what_a_gif_says_is_kept_in_the_png(tmp_path, first):
    said = gif_extension(0xFE, b"one", b", two") + XMP_IN_GIF + gif_extension(0xFE, b"three") + gif_extension(0xFF, b"UNKNOWN 1.0", b"data")
    said += gif_extension(0xFF, b"ICCRGBG1012", *(files.SRGB_ICC[at : at + 255] for at in range(0, len(files.SRGB_ICC), 255)))
    content = files.saved(files.picture().quantize(8), "GIF")
    at = content.index(b"\x2c", 13 + 3 * 8) if first else len(content) - 1
    photo = files.photo_of(tmp_path, content[:at] + said + content[at:] + b"behind it")
    assert (photo.comments, photo.xmp, photo.icc_profile) == ((b"one, two", b"three"), files.xmp('dc:format="x"'), files.SRGB_ICC)
    assert photo.left_out == ("GIF extension 'UNKNOWN 1.0'", "9 bytes behind the picture")
    with opened(photo) as written:
        assert written.info["xmp"] == files.xmp('dc:format="x"')


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_damaged_extension_stops_no_gif(tmp_path, cut):
    content = files.saved(files.picture().quantize(8), "GIF")[:-1] + XMP_IN_GIF
    assert files.photo_of(tmp_path, content[:-cut]).pixels.shape == files.PIXELS.shape


def test_a_packet_that_declares_entities_is_not_expanded(tmp_path):
    packet = b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:ImageWidth="5">&a;</x>'
    assert files.photo_of(tmp_path, files.jpeg(files.jpeg_xmp(packet))).xmp == packet


# PNG text and time


def test_png_text_and_time_are_kept_byte_for_byte(tmp_path):
    texts = [
        (b"tEXt", b"Author\0somebody"),
        (b"zTXt", b"Source\0\0" + zlib.compress(b"a place")),
        (b"iTXt", b"Description\0\0\0de\0Beschreibung\0" + "Hafen von Göteborg".encode()),
        (b"tEXt", b"Author\0somebody else"),
        (b"tIME", struct.pack(">HBBBBB", 2024, 1, 2, 3, 4, 5)),
    ]
    photo = files.photo_of(tmp_path, files.png(*(files.chunk(*text) for text in texts)))
    assert photo.text == tuple(texts)
    for kind, body in texts:
        assert files.chunk(kind, body) in encode(photo)
    assert as_format(photo, "JPEG").left_out == ("PNG text (Author, Source, Description, time)",)
    with opened(as_format(files.photo_of(tmp_path, files.png(files.chunk(b"tEXt", b"Comment\0hello"))), "JPEG")) as written:
        assert written.info["comment"] == b"hello"


def test_what_imagemagick_put_into_texts_is_read_and_written_where_it_belongs(tmp_path):
    def raw(name, content):
        return files.chunk(
            b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(b"\n%b\n%8d\n%b\n" % (name, len(content), content.hex().encode()))
        )

    photo = files.photo_of(
        tmp_path, files.png(raw(b"exif", b"Exif\0\0" + BLOCK), raw(b"iptc", files.resource(1028, RECORDS)), raw(b"xmp", files.xmp('dc:format="x"')))
    )
    assert (photo.exif[6:], photo.iptc, photo.xmp) == (BLOCK, RECORDS, files.xmp('dc:format="x"'))
    assert files.chunk(b"eXIf", BLOCK) in encode(photo)


@pytest.mark.parametrize(
    "content",
    [
        files.png(files.chunk(b"tEXt", b"two\nlines\x1b[1m\0text")),
        files.png(files.chunk(b"zTXt", b"Raw profile type two\nlines\x1b[1m\0\0" + zlib.compress(b"\na\n2\nabcd\n"))),
        files.webp_with(b"\x1b\n[1", b"text"),
        files.jpeg(files.segment(0xE5, b"maker\n\x1b[1m")),
        files.tiff({65_000: (2, b"text\0")}),
    ],
)
def test_names_of_what_is_left_out_are_one_line_of_plain_text(tmp_path, content):
    for photo in (files.photo_of(tmp_path, content), as_format(files.photo_of(tmp_path, content), "JPEG")):
        assert all(name.isprintable() for name in photo.left_out)
    assert photo.left_out


@pytest.mark.parametrize("file_format", [name for name in ("JPEG", "PNG", "WEBP", "AVIF", "HEIF") if name in READABLE])
def test_what_follows_the_picture_is_named(tmp_path, file_format):
    content = files.saved(files.picture(), file_format)
    assert files.photo_of(tmp_path, content + bytes(9)).left_out == ()
    assert files.photo_of(tmp_path, content + b"some more").left_out == ("9 bytes behind the picture",)
    if file_format in {"AVIF", "HEIF"}:
        for kind, name in ((b"mpvd", "motion-photo video"), (b"moov", "motion-photo video"), (b"sefd", "box 'sefd'")):
            photo = files.photo_of(tmp_path, content + struct.pack(">I", 16) + kind + b"contents")
            assert photo.left_out == (name,)
            assert b"contents" not in encode(photo)


# Resolution, aspect, depth, how pixels are stored


@pytest.mark.parametrize(("unit", "across", "down"), [(0, 1, 1), (0, 4, 3), (1, 300, 150), (1, 72, 72), (2, 118, 59)])
def test_density_and_pixel_aspect_are_kept(tmp_path, unit, across, down):
    density = b"JFIF\0\1\1" + struct.pack(">BHH", unit, across, down)
    content = files.jpeg()
    photo = files.photo_of(tmp_path, content[:2] + files.segment(0xE0, density + b"\0\0") + content[20:])
    assert density in encode(photo)
    with opened(as_format(photo, "PNG")) as written:
        if unit == 0 and across != down:
            assert written.info["aspect"] == (across, down)
            assert files.photo_of(tmp_path, encode(as_format(photo, "PNG"))).aspect == (across, down)
        elif unit:
            factor = 2.54 if unit == 2 else 1
            assert written.info["dpi"] == pytest.approx((across * factor, down * factor), abs=0.02)
    if unit:
        with opened(as_format(photo, "WEBP")) as written:
            tags = written.getexif()
            factor = 2.54 if unit == 2 else 1
            assert (float(tags[282]), float(tags[283]), tags[296]) == pytest.approx((across * factor, down * factor, 2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_more_than_eight_bits_are_reported(tmp_path, suffix):
    values = np.array(files.picture("L")).astype(np.uint16) * 257
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    files.picture().save(tmp_path / f"plain.{suffix}")
    assert (read(tmp_path / f"deep.{suffix}").bits, read(tmp_path / f"plain.{suffix}").bits) == (16, 8)


@pytest.mark.skipif("HEIF" not in READABLE, reason="needs pillow-heif")
def test_an_heics_depth_is_reported_and_its_subsampling_and_brand_stay(tmp_path):
    import pillow_heif

    values = np.array(files.picture()).astype(np.uint16) * 257
    pillow_heif.encode("RGB;16", files.picture().size, values.tobytes(), tmp_path / "deep.heic", quality=50)
    assert read(tmp_path / "deep.heic").bits == 10
    for chroma in ("4:2:0", "4:4:4"):
        content = files.saved(files.picture(), "HEIF", subsampling=chroma)
        photo = files.photo_of(tmp_path, content)
        written = encode(photo)
        assert photo.subsampling == files.photo_of(tmp_path, written).subsampling == chroma
        assert written[8:12] == content[8:12] == (b"heic" if chroma == "4:2:0" else b"heix")


@pytest.mark.skipif("AVIF" not in READABLE, reason="needs Pillow 11.3")
@pytest.mark.parametrize("chroma", ["4:2:0", "4:2:2", "4:4:4"])
def test_an_avifs_subsampling_stays(tmp_path, chroma):
    photo = files.photo_of(tmp_path, files.saved(files.picture(), "AVIF", subsampling=chroma))
    assert photo.subsampling == files.photo_of(tmp_path, encode(photo)).subsampling == chroma


@pytest.mark.parametrize("target", [name for name in ("AVIF", "HEIF") if name in READABLE])
@pytest.mark.parametrize(
    ("content", "chroma"),
    [
        *((files.saved(files.picture(), "JPEG", subsampling=chroma), chroma) for chroma in ("4:4:4", "4:2:2", "4:2:0")),
        (files.saved(files.picture("CMYK"), "JPEG"), "4:4:4"),
        (files.saved(files.picture(), "WEBP"), "4:2:0"),
        (files.saved(files.picture(), "WEBP", lossless=True), "4:4:4"),
        (files.saved(files.picture(), "PNG"), "4:4:4"),
    ],
)
def test_the_chroma_of_an_avif_or_heic_is_that_of_the_source_whatever_its_format(tmp_path, content, chroma, target):
    photo = as_format(files.photo_of(tmp_path, content), target)
    assert files.photo_of(tmp_path, encode(photo)).subsampling == chroma


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_as_lossless_as_it_was(tmp_path, lossless, mode):
    photo = files.photo_of(tmp_path, files.saved(files.picture(mode), "WEBP", lossless=lossless, exif=BLOCK))
    assert photo.lossless == lossless
    assert torch.equal(files.photo_of(tmp_path, encode(photo)).pixels, photo.pixels) == lossless


def test_a_gif_is_written_under_a_pngs_name_whatever_its_own(tmp_path):
    for name, suffix in {"a.gif": ".png", "b.jpg": ".png", "c.GIF": ".png", "d.png": ".png"}.items():
        files.picture().quantize(8).save(tmp_path / name, "GIF")
        assert output_suffix(tmp_path / name) == suffix
    files.picture().save(tmp_path / "e.JPG", "JPEG")
    assert output_suffix(tmp_path / "e.JPG") == ".JPG"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert output_suffix(tmp_path / "pipe.jpg") == ".jpg"


# The file itself


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o4755])
def test_time_and_permissions_are_those_of_the_source(tmp_path, mode):
    files.picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(mode)
    os.utime(tmp_path / "a.png", ns=(1, 1_600_000_000_123_456_789))
    for _ in range(2):
        write(read(tmp_path / "a.png"), tmp_path / "b.png", overwrite=True)
    status = (tmp_path / "b.png").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (mode & 0o777, 1_600_000_000_123_456_789)
    write(without_metadata(read(tmp_path / "a.png")), tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_mtime_ns != 1_600_000_000_123_456_789


def test_nobody_reads_a_private_photo_while_it_is_written(tmp_path, monkeypatch):
    files.picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0o600)
    photo, seen = read(tmp_path / "a.png"), []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(os.fstat(descriptor).st_mode & 0o777), fsync(descriptor)))
    write(photo, tmp_path / "b.png")
    assert seen == [0o600]


# Taken away


def everything(tmp_path):
    """A photo that says all that a photo can, each with the word "secret"."""
    gps = files.exif({271: (2, b"Maker\0"), 0x8825: (4, {1: (2, b"N\0"), 27: (7, b"secret place")})})
    content = files.jpeg(
        files.jpeg_exif(gps),
        files.jpeg_xmp(files.xmp('dc:source="secret"')),
        files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1028, files.iptc(city=b"secret")) + files.resource(1057, b"secret")),
        files.segment(0xFE, b"secret"),
    )
    return replace(files.photo_of(tmp_path, content), text=((b"tEXt", b"Title\0secret"),))


@pytest.mark.parametrize("file_format", [name for name in FORMATS if name != "HEIF"])
@pytest.mark.parametrize("strip", [without_location, without_metadata])
def test_what_is_stripped_is_in_no_format(tmp_path, strip, file_format):
    photo = everything(tmp_path)
    if file_format != "BMP":
        assert b"secret" in encode(as_format(photo, file_format))
    content = encode(as_format(strip(photo), file_format))
    assert b"secret" not in content
    assert as_format(strip(photo), file_format).left_out in {(), ("EXIF",)}
    assert (b"Maker" in content) == (strip is without_location and file_format != "BMP")


def test_geotiffs_tags_go_with_the_location(tmp_path):
    photo = files.photo_of(tmp_path, files.tiff({271: (2, b"Maker\0"), 33922: (7, b"secret place"), 42112: (2, b"secret\0")}))
    assert b"secret" in encode(photo)
    assert b"secret" not in encode(without_location(photo))
    assert b"Maker" in encode(without_location(photo))


def test_a_photo_made_by_hand_has_the_permissions_of_any_new_file(tmp_path):
    write(Photo(files.PIXELS, "PNG"), tmp_path / "a.png")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "b").stat().st_mode
    assert isinstance(Image.open(tmp_path / "a.png"), PngImagePlugin.PngImageFile)
