"""What a file says of its picture is true of what is written: how it lies, how large it is, which colours it has, where its faces are."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from camo import CamoError
from camo.photos.images import encode
from tests import photo_files as files

OPERATIONS = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90", 2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"}
TURNED = {  # orientation -> where the stored point (0.25, 0.125) lies upright
    1: (0.25, 0.125),
    2: (0.75, 0.125),
    3: (0.75, 0.875),
    4: (0.25, 0.875),
    5: (0.125, 0.25),
    6: (0.875, 0.25),
    7: (0.875, 0.75),
    8: (0.125, 0.75),
}


def through(tmp_path, content):
    """The photo read from a file of this content, and Pillow's picture of what is written."""
    photo = files.photo_of(tmp_path, content)
    return photo, Image.open(io.BytesIO(encode(photo)))


def difference(image, expected):
    return np.abs(np.asarray(image.convert("RGB")).astype(int) - np.asarray(expected.convert("RGB"))).mean()


# How it lies


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("entry", "turned"),
    [((1, 6), True), ((3, 6), True), ((4, 6), True), ((9, 6), True), ((3, (6, 6)), True), ((3, 0), False), ((3, 9), False), ((2, b"6\0"), False)],
)
def test_the_orientation_changes_if_and_only_if_the_pixels_turn(tmp_path, entry, turned, order):
    block = files.exif({271: (2, b"Maker\0"), 274: entry, 306: (2, b"2024:01:02 03:04:05\0")}, order=order)
    photo, written = through(tmp_path, files.jpeg(files.jpeg_exif(block)))
    assert written.size == ((files.HEIGHT, files.WIDTH) if turned else (files.WIDTH, files.HEIGHT))
    assert difference(written, files.picture().transpose(Image.Transpose.ROTATE_270) if turned else files.picture()) < 2
    assert written.getexif()[271] == "Maker"
    if turned:
        assert written.getexif()[274] == 1
    else:
        assert photo.exif[6:] == block


@pytest.mark.parametrize("damaged", [(0x9286, 7, 500, 60_000), (270, 2, 400_000, 8), (33434, 5, 1, 9_000), (50_000, 99, 3, 12)])
def test_a_damaged_tag_takes_neither_orientation_nor_other_tags_with_it(tmp_path, damaged):
    tag, kind, count, offset = damaged
    block = files.exif({271: (2, b"Maker\0"), 274: (3, 6), tag: (4, 0xABCDEF)})
    block = block.replace(struct.pack("<HHII", tag, 4, 1, 0xABCDEF), struct.pack("<HHII", tag, kind, count, offset))
    photo, written = through(tmp_path, files.jpeg(files.jpeg_exif(block)))
    assert written.size == (files.HEIGHT, files.WIDTH)
    assert photo.exif[6:] == block.replace(struct.pack("<HHII", 274, 3, 1, 6), struct.pack("<HHII", 274, 3, 1, 1))
    assert b"Maker\0" in encode(photo)


@pytest.mark.parametrize(("suffix", "options"), [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_xmp_alone_turns_no_picture_as_viewers_do_not(tmp_path, suffix, options):
    packet = files.xmp('tiff:Orientation="6"')
    if suffix == "PNG":
        content = files.png(files.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet))
    else:
        content = files.saved(files.picture(), suffix, xmp=packet, **options)
    photo, written = through(tmp_path, content)
    assert written.size == (files.WIDTH, files.HEIGHT)
    assert photo.xmp == packet


def test_xmp_follows_the_pixels_that_exif_turned(tmp_path):
    packet = files.xmp(
        'tiff:Orientation="6" tiff:ImageWidth="48"', '<exif:PixelXDimension>48</exif:PixelXDimension><dc:source>kept &amp; "so"</dc:source>'
    )
    photo, _ = through(tmp_path, files.jpeg(files.jpeg_exif(files.exif({274: (3, 6)})), files.jpeg_xmp(packet)))
    assert b'tiff:Orientation="1"' in photo.xmp
    assert b'tiff:ImageWidth="32"' in photo.xmp
    assert b"<exif:PixelXDimension>32<" in photo.xmp
    assert b"kept &amp; " in photo.xmp


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once_by_its_own_tag(tmp_path, orientation):
    _, written = through(tmp_path, files.tiff({274: (1 if orientation % 2 else 3, orientation), 271: (2, b"Maker\0")}))
    upright = files.picture().transpose(Image.Transpose[OPERATIONS[orientation]]) if orientation > 1 else files.picture()
    assert difference(written, upright) == 0
    assert written.getexif().get(274, 1) == 1
    assert written.getexif()[271] == "Maker"


# What depends on how it lies


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_sizes_resolutions_and_the_subjects_place_turn_with_the_pixels(tmp_path, orientation, order):
    inner = {
        0xA002: (3, files.WIDTH),
        0xA003: (4, files.HEIGHT),
        0xA20E: (5, (7, 2)),
        0xA20F: (5, (9, 2)),
        0x9214: (3, (files.WIDTH // 4, files.HEIGHT // 8, 10, 6)),
    }
    main = {
        256: (3, files.WIDTH),
        257: (3, files.HEIGHT),
        274: (3, orientation),
        282: (5, (300, 1)),
        283: (5, (150, 1)),
        296: (3, 2),
        0x8769: (4, inner),
    }
    density = files.segment(0xE0, b"JFIF\0\1\1\1" + struct.pack(">HH", 300, 150) + b"\0\0")
    content = files.jpeg(files.jpeg_exif(files.exif(main, order=order)))
    _, written = through(tmp_path, content[:2] + density + content[20:])
    across = orientation >= 5
    tags, details = written.getexif(), written.getexif().get_ifd(ExifTags.IFD.Exif)
    assert (tags[256], tags[257]) == (details[0xA002], details[0xA003]) == written.size
    assert (tags[282], tags[283]) == written.info["dpi"] == ((150, 300) if across else (300, 150))
    assert (details[0xA20E], details[0xA20F]) == ((4.5, 3.5) if across else (3.5, 4.5))
    place = (TURNED[orientation][0] * written.width, TURNED[orientation][1] * written.height)
    assert details[0x9214] == (*place, *((6, 10) if across else (10, 6)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_of_faces_turn_with_the_pixels(tmp_path, orientation):
    area = '<mwg-rs:Area stArea:x="0.25" stArea:y="0.125" stArea:w="0.1" stArea:h="0.2" stArea:unit="normalized"/>'
    groups = (
        f'<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="{files.WIDTH}" stDim:h="{files.HEIGHT}" stDim:unit="pixel"/>'
        f'<mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource">{area}</rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>'
    )
    microsoft = (
        '<MP:RegionInfo rdf:parseType="Resource"><MPRI:Regions><rdf:Bag><rdf:li MPReg:Rectangle="0.2, 0.025, 0.1, 0.2"/></rdf:Bag></MPRI:Regions>'
        "</MP:RegionInfo>"
    )
    photo, _ = through(
        tmp_path, files.jpeg(files.jpeg_exif(files.exif({274: (3, orientation)})), files.jpeg_xmp(files.xmp(elements=groups + microsoft)))
    )
    values = {name: float(value) for name, value in re.findall(rb'stArea:(\w)="([^"]+)"', photo.xmp)}
    assert (values[b"x"], values[b"y"]) == pytest.approx(TURNED[orientation])
    assert (values[b"w"], values[b"h"]) == ((0.2, 0.1) if orientation >= 5 else (0.1, 0.2))
    size = [int(value) for value in re.findall(rb'stDim:[wh]="(\d+)"', photo.xmp)]
    assert size == list(photo.pixels.shape[:0:-1])
    left, top, width, height = (float(value) for value in re.search(rb'MPReg:Rectangle="([^"]+)"', photo.xmp)[1].split(b","))
    assert (left + width / 2, top + height / 2) == pytest.approx(TURNED[orientation])
    assert (width, height) == pytest.approx((0.2, 0.1) if orientation >= 5 else (0.1, 0.2))
    assert photo.left_out == ()


def test_regions_in_pixels_and_photoshops_paths_are_left_out_of_a_turned_picture(tmp_path):
    area = '<mwg-rs:Regions><mwg-rs:Area stArea:x="25" stArea:y="12" stArea:unit="pixel"/></mwg-rs:Regions>'
    resources = files.segment(0xED, b"Photoshop 3.0\0" + files.resource(2000, bytes(26)) + files.resource(1005, bytes(range(16))))
    photo, _ = through(tmp_path, files.jpeg(files.jpeg_exif(files.exif({274: (3, 6)})), files.jpeg_xmp(files.xmp(elements=area)), resources))
    assert photo.left_out == ("regions of faces or things", "Photoshop paths")
    assert b"stArea:x" not in photo.xmp
    assert photo.resources == files.resource(1005, bytes(range(8, 16)) + bytes(range(8)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_xmp_tells_the_subjects_place_and_the_resolution_as_they_turn(tmp_path, orientation):
    place = f"<exif:SubjectArea><rdf:Seq><rdf:li>{files.WIDTH // 4}</rdf:li><rdf:li>{files.HEIGHT // 8}</rdf:li></rdf:Seq></exif:SubjectArea>"
    packet = files.xmp('tiff:XResolution="300/1" tiff:YResolution="150/1"', place)
    photo, written = through(tmp_path, files.jpeg(files.jpeg_exif(files.exif({274: (3, orientation)})), files.jpeg_xmp(packet)))
    numbers = [int(number) for number in re.findall(rb"<rdf:li>(\d+)<", photo.xmp)]
    assert numbers == [TURNED[orientation][0] * written.width, TURNED[orientation][1] * written.height]
    assert (b'tiff:XResolution="150/1"' in photo.xmp) == (b'tiff:YResolution="300/1"' in photo.xmp) == (orientation >= 5)
    assert photo.left_out == ()


# Further pictures that are gone


GAIN_MAP = '<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Semantic="GainMap" Item:Length="9"/></rdf:li></rdf:Seq></Container:Directory>'


@pytest.mark.parametrize(
    ("attributes", "elements", "gone", "left_out"),
    [
        ('hdrgm:Version="1.0"', GAIN_MAP, (b"hdrgm:Version", b"Container:Directory"), ("gain map",)),
        ('GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="99"', "", (b"MotionPhoto", b"MicroVideo"), ("motion-photo video",)),
        ("", "<GDepth:Data>AAAA</GDepth:Data><GDepth:Near>1</GDepth:Near>", (b"GDepth:Data", b"GDepth:Near"), ("depth map",)),
        ('xmpNote:HasExtendedXMP="E89FCD07A1B548131D1CD4414ECEB40E"', "", (b"HasExtendedXMP",), ("extended XMP",)),
    ],
)
def test_xmp_speaks_of_no_picture_or_packet_that_is_gone(tmp_path, attributes, elements, gone, left_out):
    photo, _ = through(tmp_path, files.jpeg(files.jpeg_xmp(files.xmp(f'dc:format="image/jpeg" {attributes}', elements))))
    assert photo.left_out == left_out
    assert b'dc:format="image/jpeg"' in photo.xmp
    assert not [word for word in gone if word in photo.xmp]


# Colours


def adobe_rgb():
    """The sRGB profile that LittleCMS makes, its primaries replaced by those of Adobe RGB (adapted to D50)."""
    profile = bytearray(files.SRGB_ICC)
    primaries = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087), b"bXYZ": (0.14919, 0.06322, 0.74455)}
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12):
        name, offset, _ = struct.unpack_from(">4sII", profile, entry)
        if name in primaries:
            struct.pack_into(">3i", profile, offset + 8, *(round(65536 * value) for value in primaries[name]))
    return bytes(profile)


@pytest.mark.parametrize("order", "<>")
def test_pixels_converted_to_srgb_are_called_so_and_others_stay_what_they_are_called(tmp_path, order):
    block = files.exif({0x8769: (4, {0xA001: (3, 65535), 0xA005: (4, {1: (2, b"R03\0")})})}, order=order)
    packet = files.xmp('exif:ColorSpace="65535" photoshop:ICCProfile="Adobe RGB (1998)"')
    photo, written = through(tmp_path, files.jpeg(files.jpeg_exif(block), files.jpeg_xmp(packet), icc_profile=adobe_rgb()))
    details = written.getexif().get_ifd(ExifTags.IFD.Exif)
    assert (photo.icc_profile, details[0xA001]) == (None, 1)
    assert written.getexif().get_ifd(ExifTags.IFD.Interop)[1] == "R98"
    assert b'exif:ColorSpace="1"' in photo.xmp
    assert b"ICCProfile" not in photo.xmp
    photo, written = through(tmp_path, files.jpeg(files.jpeg_exif(block), files.jpeg_xmp(packet), icc_profile=files.SRGB_ICC))
    assert photo.exif[6:] == block
    assert photo.xmp == packet


STORED = {258: (3, (8, 8, 8, 8)), 262: (3, 5), 277: (3, 4)}
STORED_IN_XMP = 'tiff:PhotometricInterpretation="5" tiff:SamplesPerPixel="4" photoshop:ColorMode="4"'
WHITE = {318: (5, (313, 1000, 329, 1000)), 319: (5, (64, 100, 33, 100, 21, 100, 71, 100, 15, 100, 6, 100))}


@pytest.mark.parametrize("order", "<>")
def test_inks_that_became_rgb_are_not_called_inks(tmp_path, order):
    content = files.saved(files.picture("CMYK"), "JPEG")
    extra = files.jpeg_exif(files.exif(STORED | {271: (2, b"Maker\0")}, order=order)) + files.jpeg_xmp(files.xmp(STORED_IN_XMP))
    photo, written = through(tmp_path, content[:2] + extra + content[2:])
    assert dict(written.getexif()) == {271: "Maker"}
    assert written.mode == "RGB"
    assert b"tiff:" not in photo.xmp.partition(b'rdf:about=""')[2]
    assert b'photoshop:ColorMode="3"' in photo.xmp


def test_sixteen_bits_that_became_eight_are_not_called_sixteen(tmp_path):
    image = Image.fromarray(np.asarray(files.picture("L")).astype(np.uint16) * 257)
    depth = "<tiff:BitsPerSample><rdf:Seq><rdf:li>16</rdf:li></rdf:Seq></tiff:BitsPerSample>"
    chunks = (
        files.chunk(b"eXIf", files.exif({258: (3, 16), 271: (2, b"Maker\0")})),
        files.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + files.xmp(elements=depth)),
    )
    photo, written = through(tmp_path, files.png(*chunks, image=image))
    assert dict(written.getexif()) == {271: "Maker"}
    assert b"<tiff:BitsPerSample>" not in photo.xmp


@pytest.mark.parametrize("order", "<>")
def test_white_and_primaries_go_with_the_colour_space_that_they_were_of(tmp_path, order):
    block, packet = files.exif(WHITE | {271: (2, b"Maker\0")}, order=order), files.xmp('tiff:WhitePoint="x" dc:format="kept"')
    photo, written = through(tmp_path, files.jpeg(files.jpeg_exif(block), files.jpeg_xmp(packet), icc_profile=adobe_rgb()))
    assert dict(written.getexif()) == {271: "Maker"}
    assert b"WhitePoint" not in photo.xmp
    photo, _ = through(tmp_path, files.jpeg(files.jpeg_exif(block), files.jpeg_xmp(packet), icc_profile=files.SRGB_ICC))
    assert (photo.exif[6:], photo.xmp) == (block, packet)


def gamma_chunk(value):
    return files.chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def primaries_chunk(*values):
    return files.chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


SRGB_XY, WIDE_XY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
TO_SRGB = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])  # from Display P3, linear (CSS Color 4)
SRGB_CURVE = None


def shown(image, exponent, matrix=None):
    """What a viewer shows of values of this exponent (None: sRGB's curve) and these primaries, as 8-bit sRGB, by the formulas."""
    values = np.asarray(image.convert("RGB")) / 255
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) if exponent is None else values**exponent
    light = (light @ matrix.T if matrix is not None else light).clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


ICCP = files.chunk(b"iCCP", b"name\0\0" + zlib.compress(files.SRGB_ICC))
SRGB_CHUNK = files.chunk(b"sRGB", b"\1")


@pytest.mark.parametrize(
    ("chunks", "exponent", "matrix"),
    [
        ([gamma_chunk(1)], 1, None),
        ([gamma_chunk(1 / 1.8)], 1.8, None),
        ([gamma_chunk(0.45455)], SRGB_CURVE, None),
        ([gamma_chunk(0.45455), primaries_chunk(*SRGB_XY)], SRGB_CURVE, None),
        ([gamma_chunk(1), primaries_chunk(*WIDE_XY)], 1, TO_SRGB),
        ([primaries_chunk(*WIDE_XY)], SRGB_CURVE, TO_SRGB),
        ([SRGB_CHUNK, gamma_chunk(1), primaries_chunk(*WIDE_XY)], SRGB_CURVE, None),
        ([ICCP, gamma_chunk(1)], SRGB_CURVE, None),
        ([files.chunk(b"cICP", bytes((12, 13, 0, 1))), ICCP, SRGB_CHUNK], SRGB_CURVE, TO_SRGB),
        ([files.chunk(b"cICP", bytes((1, 8, 0, 1))), ICCP], 1, None),
        ([files.chunk(b"cICP", bytes((1, 13, 0, 1))), gamma_chunk(1)], SRGB_CURVE, None),
        ([primaries_chunk(*(8 * (0,))), gamma_chunk(0)], SRGB_CURVE, None),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_png_looks_as_its_statements_make_it_look(tmp_path, chunks, exponent, matrix, mode):
    _, written = through(tmp_path, files.png(*chunks, image=files.picture(mode)))
    assert written.mode == mode
    expected = shown(files.picture(mode), exponent, matrix if mode != "L" else None)
    error = ((np.asarray(written.convert("RGB")) - expected) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 40
    assert "gamma" not in written.info
    assert "chromaticity" not in written.info


def test_the_chunk_that_says_srgb_is_kept(tmp_path):
    _, written = through(tmp_path, files.png(SRGB_CHUNK))
    assert written.info["srgb"] == 1


def hdr_profile(transfer):
    """A profile with nothing in it but the tag of H.273's code points."""
    tag = b"cicp" + bytes(4) + bytes((9, transfer, 0, 1))
    return bytes(128) + struct.pack(">I4sII", 1, b"cicp", 144, len(tag)) + tag


@pytest.mark.parametrize(
    "content",
    [
        files.png(files.chunk(b"cICP", bytes((9, 16, 0, 1)))),
        files.png(files.chunk(b"cICP", bytes((9, 18, 0, 1))), SRGB_CHUNK),
        files.png(files.chunk(b"cICP", bytes((1, 16, 0, 1))), ICCP),
        files.png(files.chunk(b"cICP", bytes((77, 13, 0, 1)))),
        files.png(files.chunk(b"iCCP", b"ITUR_2100_PQ_FULL\0\0" + zlib.compress(files.SRGB_ICC))),
        files.png(files.chunk(b"iCCP", b"x\0\0" + zlib.compress(hdr_profile(16)))),
        files.jpeg(icc_profile=hdr_profile(18)),
    ],
)
def test_high_dynamic_range_is_refused(tmp_path, content):
    with pytest.raises(CamoError, match="high dynamic range, or a wide gamut without an ICC profile, is not supported"):
        through(tmp_path, content)
