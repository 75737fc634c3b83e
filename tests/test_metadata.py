"""What is taken away is gone from the bytes, what is kept is as it was."""

import struct

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, TiffImagePlugin

from camo import CamoError
from camo.photos import formats
from camo.photos.images import FORMATS, READABLE, Photo, encode, read, write
from camo.photos.metadata import SUFFIX_OF, as_format, without_location, without_metadata

LATITUDE = (TiffImagePlugin.IFDRational(52123, 997), TiffImagePlugin.IFDRational(31, 7), TiffImagePlugin.IFDRational(4099, 1013))
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description exif:GPSLatitude="52,30N"/></x:xmpmeta>'
PIXELS = torch.randint(256, (3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def exif_with_location():
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Maker of cameras"
    tags[ExifTags.Base.Artist] = "Somebody's name"
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: "2026:01:02 03:04:05"}
    tags[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: LATITUDE, ExifTags.GPS.GPSAreaInformation: b"the place"}
    return tags.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", *(SUFFIX_OF[name][1:] for name in ("AVIF", "HEIF") if name in READABLE)])
def test_the_location_is_gone_from_the_bytes_and_the_rest_is_kept(tmp_path, suffix):
    file_format = {value: key for key, value in SUFFIX_OF.items()}[f".{suffix}"]
    write(Photo(PIXELS, file_format, exif=exif_with_location(), dpi=(300, 300), comments=(b"in the place",)), tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as before:
        assert before.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    write(without_location(read(tmp_path / f"a.{suffix}")), tmp_path / f"b.{suffix}")
    content = (tmp_path / f"b.{suffix}").read_bytes()
    assert b"the place" not in content
    assert struct.pack(">II", 52123, 997) not in content
    assert struct.pack("<II", 52123, 997) not in content
    with Image.open(tmp_path / f"b.{suffix}") as after:
        tags = after.getexif()
        assert not tags.get_ifd(ExifTags.IFD.GPSInfo)
        assert ExifTags.IFD.GPSInfo not in tags
        assert (tags[ExifTags.Base.Make], tags[ExifTags.Base.Artist]) == ("Maker of cameras", "Somebody's name")
        assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] == "2026:01:02 03:04:05"


def test_xmp_goes_with_the_location():
    tags = Image.Exif()
    tags[ExifTags.Base.XMLPacket] = XMP
    photo = without_location(Photo(PIXELS, "JPEG", exif=tags.tobytes(), xmp=XMP))
    assert b"GPSLatitude" not in encode(photo)


@given(st.binary(max_size=12), st.integers(0, 400), st.integers(1, 300))
def test_damaged_exif_is_no_fault_and_shows_no_place(noise, at, kept):
    damaged = bytearray(exif_with_location())
    damaged[at : at + len(noise)] = noise
    for exif in (bytes(damaged), bytes(damaged[:kept])):
        without_location(Photo(PIXELS, "JPEG", exif=exif))


def test_without_metadata_pixels_alpha_and_colours_remain():
    alpha = PIXELS[0]
    said = {"exif": b"exif", "dpi": (72, 72), "xmp": XMP, "comments": (b"comment",), "iptc": b"iptc", "resources": b"8BIM", "aspect": (2, 1)}
    photo = Photo(PIXELS, "PNG", alpha, icc_profile=b"profile", text=((b"tEXt", b"Author\0somebody"),), modified=1, mode=0o600, **said)
    assert without_metadata(photo) == Photo(PIXELS, "PNG", alpha, icc_profile=b"profile", mode=0o600)  # the very tensors


@pytest.mark.parametrize("file_format", [name for name in SUFFIX_OF if name in READABLE])
def test_a_photo_becomes_any_format(tmp_path, file_format):
    path = tmp_path / f"a{SUFFIX_OF[file_format]}"
    write(
        as_format(
            Photo(PIXELS, "PNG", torch.full((24, 40), 255, dtype=torch.uint8), exif=exif_with_location(), dpi=(300, 300), xmp=XMP), file_format
        ),
        path,
    )
    again = read(path)
    assert again.format == file_format
    if file_format in {"PNG", "TIFF", "BMP"}:
        assert torch.equal(again.pixels, PIXELS)
    if file_format != "BMP":
        with Image.open(path) as written:
            assert written.getexif()[ExifTags.Base.Make] == "Maker of cameras"
            assert written.info["xmp"] == XMP


@pytest.mark.parametrize(("at", "value"), [(7, 0x1F), (17, 0), (19, 5)])  # Pillow raises SyntaxError, struct.error, AttributeError
@pytest.mark.parametrize("file_format", [name for name in SUFFIX_OF if name in READABLE])
def test_damaged_exif_stops_no_photo_in_any_format(file_format, at, value):
    exif = bytearray(exif_with_location())
    exif[at] = value
    encode(as_format(Photo(PIXELS, "JPEG", exif=bytes(exif), xmp=XMP), file_format))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow's, which infer.py silences
@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=12), st.integers(0, 400), st.integers(1, 300))
@example(b"", 0, 6)  # nothing but the prefix
def test_damaged_exif_is_no_fault_in_another_format(noise, at, kept):
    damaged = bytearray(exif_with_location())
    damaged[at : at + len(noise)] = noise
    for file_format in ("TIFF", *({"AVIF"} & {*READABLE})):
        for exif in (bytes(damaged), bytes(damaged[:kept])):
            encode(as_format(Photo(PIXELS, "JPEG", exif=exif, xmp=XMP), file_format))


@pytest.mark.parametrize("file_format", ["JPEG", "BMP"])
def test_transparency_is_never_lost_silently(file_format):
    alpha = torch.full((24, 40), 255, dtype=torch.uint8)
    alpha[3, 4] = 254
    with pytest.raises(CamoError, match=f"is partly transparent, which {file_format} cannot hold"):
        as_format(Photo(PIXELS, "PNG", alpha), file_format)


def test_an_avifs_exif_is_what_it_was_less_its_orientation(tmp_path):
    tags, note = Image.Exif(), bytes(range(256))
    tags[ExifTags.Base.Make], tags[ExifTags.Base.Orientation] = "Maker of cameras", 1
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: note}
    before = tags.tobytes()
    write(as_format(Photo(PIXELS, "JPEG", exif=before), "AVIF"), tmp_path / "a.avif")
    after = read(tmp_path / "a.avif").exif
    directory = before.index(b"Maker of cameras")  # all that follows the first directory is where it was
    assert after[directory:] == before[directory:]
    assert note in after[directory:]
    with Image.open(tmp_path / "a.avif") as written:
        assert ExifTags.Base.Orientation not in written.getexif()
        assert written.getexif()[ExifTags.Base.Make] == "Maker of cameras"


@pytest.mark.parametrize("file_format", ["AVIF", "HEIF"])
def test_a_format_whose_package_is_missing_is_refused(monkeypatch, file_format):
    monkeypatch.setattr(formats, "READABLE", FORMATS)
    with pytest.raises(CamoError, match=r"needs .*: pip install"):
        as_format(Photo(PIXELS, "JPEG"), file_format)
