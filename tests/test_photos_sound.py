"""The right picture of a file, and no sound picture refused: raw files, pages that are no frames, damaged or oversized side information, limits."""

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camo import CamoError
from camo.measure.after import scores_after
from camo.photos.images import MAX_PIXELS, SUFFIXES, decode, encode, find_photos, jpeg_roundtrip, read, size_of, write
from tests import photo_files as files


def same(photo):
    return (photo.pixels.int() - files.PIXELS.int()).abs().float().mean() < 2


# Raw files


SENSOR = {254: (4, 0), 256: (3, 8), 257: (3, 8), 258: (3, 16), 259: (3, 1), 262: (3, 32803)}
RAW = {
    "DNG": files.tiff({50706: (1, b"\1\4\0\0")}),
    "DNG, its preview first": files.tiff({254: (4, 1), 330: (4, SENSOR), 50706: (1, b"\1\4\0\0")}),
    "sensor data": files.tiff({254: (4, 1), 330: (4, SENSOR | {262: (3, 34892)})}),
    "sensor data, big-endian": files.tiff({330: (4, SENSOR)}, order=">"),
    "sensor data, on a second page": files.tiff({}, SENSOR),
    "sensor data, packed": files.tiff({254: (4, 1), 330: (4, SENSOR | {262: (3, 1), 259: (3, 34713)})}),
    "a preview before the sensor's data": files.tiff({254: (4, 1), 330: (4, {254: (4, 0), 256: (3, 99)})}),
    "CR2": b"II*\0\x10\0\0\0CR\2\0\0\0\0\0" + files.tags({256: (3, 4)}, at=16),
    "RAF": b"FUJIFILMCCD-RAW 0201" + bytes(99),
    "CR3": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(99),
    "RW2": b"IIU\0\x08\0\0\0" + bytes(99),
    "ORF": b"IIRO\x08\0\0\0" + bytes(99),
}


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("suffix", ["dng", "tif", "jpg"])
def test_a_raw_file_is_refused_by_what_it_is(tmp_path, name, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(RAW[name])
    with pytest.raises(CamoError, match=rf"a\.{suffix}': .*a raw file \({name.split(',')[0]}"):
        read(tmp_path / f"a.{suffix}")


# Pages


@pytest.mark.parametrize("aside", [{254: (4, 1)}, {254: (4, 4)}, {254: (4, 5)}, {255: (3, 2)}])
@pytest.mark.parametrize("first", [False, True])
def test_a_page_of_a_thumbnail_or_a_mask_is_no_frame(tmp_path, aside, first):
    small = aside | {256: (3, 12), 257: (3, 8), 278: (3, 8), 279: (4, 12 * 8 * 3)}
    photo = files.photo_of(tmp_path, files.tiff(small, {}) if first else files.tiff({254: (4, 0)}, small))
    assert torch.equal(photo.pixels, files.PIXELS)
    assert photo.left_out == ()


def test_two_pages_are_two_frames_and_a_loop_of_pages_is_none(tmp_path):
    with pytest.raises(CamoError, match="2 frames"):
        files.photo_of(tmp_path, files.tiff({}, {}))
    with pytest.raises(CamoError, match="2 frames"):
        files.photo_of(tmp_path, files.tiff({254: (4, 2)}, {254: (4, 2)}))
    content = bytearray(files.tiff({}))
    first = 8 + files.WIDTH * files.HEIGHT * 3
    content[first + 2 + 12 * 10 : first + 2 + 12 * 10 + 4] = struct.pack("<I", first)
    assert torch.equal(files.photo_of(tmp_path, bytes(content)).pixels, files.PIXELS)


def test_a_single_page_that_calls_itself_reduced_is_the_photo(tmp_path):
    assert torch.equal(files.photo_of(tmp_path, files.tiff({254: (4, 1)})).pixels, files.PIXELS)


# Side information


NOISE = np.random.default_rng(0).integers(32, 127, 3_000_000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize(
    ("content", "left_out"),
    [
        (files.png(files.chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))), ["PNG text 'Comment', of more than 1048576 bytes"]),
        (files.png(files.chunk(b"tEXt", b"Story\0" + NOISE[:1_100_000])), ["PNG text 'Story', of more than 1048576 bytes"]),
        (files.png(files.chunk(b"zTXt", b"Bomb\0\0" + zlib.compress(bytes(200_000_000)))), ["PNG text 'Bomb', of more than 1048576 bytes"]),
        (files.png(files.chunk(b"zTXt", b"Title\0\0no zlib")), ["PNG text 'Title', damaged"]),
        (files.png(files.chunk(b"iTXt", b"Title\0\1\0en")), ["PNG text 'Title', damaged"]),
        (files.png(files.chunk(b"tEXt", b"Author\0me")[:-1] + b"?"), ["damaged PNG chunk tEXt"]),
        (files.png(files.chunk(b"eXIf", files.exif({271: (2, b"Maker\0")}))[:-1] + b"?"), ["damaged PNG chunk eXIf"]),
        (files.png(files.chunk(b"iCCP", b"name\0\0no zlib")), ["damaged colour profile"]),
        (files.png(files.chunk(b"eXIf", b"no EXIF")), ["damaged EXIF"]),
        (
            files.png(
                files.chunk(b"gAMA", b"\1"),
                files.chunk(b"cHRM", b"\1"),
                files.chunk(b"pHYs", b"\1"),
                files.chunk(b"tIME", b""),
                files.chunk(b"acTL", b"\1"),
            ),
            [],
        ),
        (files.png(files.chunk(b"zzZz", NOISE[:3000])), ["PNG chunk zzZz"]),
        (files.png()[:-4], []),
        (files.png()[:-12], []),
        (files.jpeg(files.jpeg_exif(b"no EXIF")), ["damaged EXIF"]),
        (files.jpeg(files.jpeg_xmp(b"")), []),
        (files.jpeg(files.segment(0xED, b"Photoshop 3.0\0" + files.resource(1028, files.iptc(caption=b"a"))[:-3])), []),
        (files.jpeg(files.segment(0xE2, b"ICC_PROFILE\0\1\2" + files.SRGB_ICC)), ["damaged colour profile"]),
        (files.jpeg(files.segment(0xE2, b"MPF\0nonsense")), []),
        (
            files.jpeg(files.segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x20jumb" + bytes(40))),
            ["content credentials (C2PA), which hold of the original alone"],
        ),
        (files.saved(files.picture(), "WEBP", exif=b"no EXIF", lossless=True), ["damaged EXIF"]),
        (files.tiff({34675: (7, b"no profile"), 34377: (1, b"8BIM"), 33723: (4, 5), 700: (1, b"x"), 0x8769: (4, 99_999_999)}), []),
        (files.tiff({270: (2, b"text\0"), 305: (99, b"unknown type"), 282: (5, (1, 0)), 283: (5, (1, 0))}), ["damaged TIFF Software"]),
    ],
)
def test_damaged_or_oversized_side_information_stops_no_photo(tmp_path, content, left_out):
    photo = files.photo_of(tmp_path, content)
    assert same(photo)
    assert list(photo.left_out) == left_out
    write(photo, tmp_path / "written")
    assert same(read(tmp_path / "written"))


@pytest.mark.parametrize("lossless", [False, True])
def test_damaged_side_information_stops_no_webp(tmp_path, lossless):
    content = files.saved(files.picture(), "WEBP", exif=files.exif({271: (2, b"Maker\0")}), xmp=files.xmp(), lossless=lossless, quality=95)
    whole = files.photo_of(tmp_path, content)
    for cut in (1, 300, len(files.xmp()) + 20):
        photo = files.photo_of(tmp_path, content[:-cut])
        assert torch.equal(photo.pixels, whole.pixels)
        assert photo.left_out == (f"damaged WebP chunk '{'XMP ' if cut < 1000 else 'EXIF'}'",)
    at = content.index(b"EXIF")
    photo = files.photo_of(tmp_path, content[: at + 4] + b"\xff\xff\xff\x7f" + content[at + 8 :])
    assert torch.equal(photo.pixels, whole.pixels)
    with pytest.raises(CamoError):
        files.photo_of(tmp_path, content[: at - 40])


@pytest.mark.parametrize("length", [70_000, 200_000])
@pytest.mark.parametrize("order", "<>")
def test_exif_in_several_segments_is_kept_but_for_its_largest_values(tmp_path, length, order):
    block = files.exif(
        {271: (2, b"Maker\0"), 274: (3, 6), 0x8769: (4, {0x927C: (7, NOISE[:length]), 0x9003: (2, b"2024:01:02 03:04:05\0")})}, order=order
    )
    segments = [files.jpeg_exif(block[at : at + 60_000]) for at in range(0, len(block), 60_000)]
    photo = files.photo_of(tmp_path, files.jpeg(*segments))
    assert photo.left_out == (f"EXIF MakerNote of {length} bytes",)
    with Image.open(io.BytesIO(encode(photo))) as written:
        assert written.size == (files.HEIGHT, files.WIDTH)
        assert (written.getexif()[271], written.getexif()[274]) == ("Maker", 1)
        assert written.getexif().get_ifd(0x8769)[0x9003] == "2024:01:02 03:04:05"


def test_an_xmp_packet_that_no_jpeg_holds_is_named(tmp_path):
    long = files.xmp(elements="".join(f"<dc:source>{index}</dc:source>" for index in range(5000)))
    photo = files.photo_of(tmp_path, files.jpeg(files.jpeg_xmp(b"<x>" + NOISE[:65_000].replace(b"<", b"-").replace(b"&", b"-"))))
    assert photo.left_out == ()
    photo = files.photo_of(tmp_path, files.png(files.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x>" + NOISE[:80_000])))
    from camo.photos.metadata import as_format

    assert as_format(photo, "JPEG").left_out == ("XMP of 80003 bytes",)
    photo = files.photo_of(tmp_path, files.png(files.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + long)))
    assert as_format(photo, "JPEG").left_out == ()
    (tmp_path / "long.jpg").write_bytes(encode(as_format(photo, "JPEG")))
    assert read(tmp_path / "long.jpg").xmp.count(b"<dc:source>") == 5000


# A JPEG without its end


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}, {"restart_marker_blocks": 2}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_without_its_end_marker_is_read_if_all_pixels_are_there(tmp_path, options, mode):
    noise = Image.fromarray(np.frombuffer(NOISE[: 64 * 64 * 3], np.uint8).reshape(64, 64, 3)).convert(mode)
    content = files.saved(noise, "JPEG", quality=90, **options)
    whole = files.photo_of(tmp_path, content)
    for rest in (b"", b"\xff"):
        assert torch.equal(files.photo_of(tmp_path, content[:-2] + rest).pixels, whole.pixels)
    for missing in (12, 40, len(content) // 3):
        with pytest.raises(CamoError, match="truncated"):
            files.photo_of(tmp_path, content[:-missing])


def test_a_progressive_jpeg_that_ends_between_two_scans_is_truncated(tmp_path):
    content = files.saved(files.picture(), "JPEG", progressive=True)
    scans = [at for at in range(len(content)) if content.startswith(b"\xff\xda", at)]
    assert len(scans) > 4
    for at in scans[1:]:
        with pytest.raises(CamoError, match="truncated"):
            files.photo_of(tmp_path, content[:at])


def test_a_jpeg_of_twelve_bits_says_so(tmp_path):
    content = bytearray(files.jpeg())
    content[content.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(CamoError, match="a JPEG of 12 bits is not supported"):
        files.photo_of(tmp_path, bytes(content))


# Limits


def large_png(width, height):
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * height)
    return b"\x89PNG\r\n\x1a\n" + files.chunk(b"IHDR", header) + files.chunk(b"IDAT", rows) + files.chunk(b"IEND", b"")


def test_the_limit_is_our_own_and_can_be_moved(tmp_path):
    (tmp_path / "a.png").write_bytes(large_png(400, 300))
    with pytest.raises(CamoError, match=r"a\.png': .*400x300 px are 0\.1 megapixels, more than the limit of 0\.1; --max-pixels raises it"):
        read(tmp_path / "a.png", max_pixels=119_999)
    assert read(tmp_path / "a.png", max_pixels=120_000).pixels.shape == (3, 300, 400)
    (tmp_path / "b.png").write_bytes(large_png(60_000, 3_001)[:2000])
    with pytest.raises(CamoError, match="more than the limit of 180"):
        read(tmp_path / "b.png")
    assert MAX_PIXELS == 180_000_000


def test_pillows_own_limit_counts_for_nothing_and_is_as_it_was_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for file_format in ("WEBP", "TIFF", "JPEG", "PNG", "BMP"):  # the decoders of the first two ask for it
        files.picture().save(tmp_path / file_format, file_format)
    with ThreadPoolExecutor(4) as pool:
        assert all(same(photo) for photo in pool.map(read, [*tmp_path.iterdir()] * 8))
    for path in tmp_path.iterdir():
        with pytest.raises(CamoError, match=r"48x32 px are 0\.0 megapixels, more than the limit"):
            read(path, max_pixels=48 * 32 - 1)
    assert Image.MAX_IMAGE_PIXELS == 100


class Mean(torch.nn.Module):
    """A quality model."""

    def forward(self, image):
        return 100 * image.mean((1, 2, 3))


@pytest.mark.parametrize("file_format", ["WEBP", "TIFF", "JPEG", "PNG"])
def test_pillows_own_limit_counts_for_nothing_after_reading_either(tmp_path, monkeypatch, file_format):
    photo = files.photo_of(tmp_path, files.saved(files.picture(), file_format, **({"lossless": True} if file_format == "WEBP" else {})))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(photo)).shape == photo.pixels.shape
        assert size_of(tmp_path / "photo") == files.picture().size
        assert jpeg_roundtrip(photo.pixels[None] / 255, 90).shape == (1, *photo.pixels.shape)
        assert scores_after(Mean(), [photo.pixels], "shift by 4 px")
    assert Image.MAX_IMAGE_PIXELS == 100


# Folders


def found(*paths, **options):
    return [str(file.relative) for file in find_photos(paths, **options)]


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_every_suffix_of_a_photo_is_known_in_any_case(tmp_path):
    names = [f"{index:02}{suffix}" for index, suffix in enumerate(sorted(SUFFIXES))] + ["a.JFIF", "b.Jpe"]
    make(tmp_path, *names, "notes.txt", "raw.dng")
    assert found(tmp_path) == sorted(names)
    assert {".jfif", ".jpe", ".jfi"} < SUFFIXES


def test_side_files_and_hidden_folders_hold_no_photos_unless_they_are_given(tmp_path):
    make(tmp_path, "a.jpg", "._a.jpg", "b/._b.png", "b/c.png", "@eaDir/a.jpg/x.jpg", ".thumbnails/a.png", "b/.hidden/d.jpg", "__MACOSX/a.jpg")
    assert found(tmp_path) == ["a.jpg", "b/c.png"]
    assert found(tmp_path / ".thumbnails") == ["a.png"]
    assert found(tmp_path / "._a.jpg") == ["._a.jpg"]


def test_links_to_folders_are_followed_once(tmp_path):
    make(tmp_path, "top/real/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    top = tmp_path / "top"
    (top / "again").symlink_to(top / "real")
    (top / "link").symlink_to(tmp_path / "elsewhere")
    (top / "other").symlink_to(tmp_path / "elsewhere")
    (top / "real" / "loop").symlink_to(top)
    (top / "up").symlink_to(tmp_path)
    (top / "root").symlink_to("/")
    (tmp_path / "elsewhere" / "back").symlink_to(top / "link")
    (top / "nowhere").symlink_to("missing")
    assert found(top) == ["link/b.jpg", "link/deep/c.jpg", "real/a.jpg"]
    assert found(top, exclude=tmp_path / "elsewhere") == ["real/a.jpg"]
    assert found(top, exclude=tmp_path / "elsewhere/deep") == ["link/b.jpg", "real/a.jpg"]


def test_a_link_to_a_folder_is_searched_when_it_is_given(tmp_path):
    make(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert found(tmp_path / "link") == ["a.jpg"]
    assert find_photos([tmp_path / "link"])[0].path == tmp_path / "link/a.jpg"
    assert isinstance(find_photos([Path(os.fspath(tmp_path / "link"))])[0].relative, Path)
