"""Files <-> tensors: what is kept, what is refused, and that nothing is left half-written."""

import io
import os
import struct
import warnings
import zlib
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin

from camo import CamoError
from camo.filter.checkpoint import load_filter
from camo.photos import formats
from camo.photos.images import READABLE, Photo, PhotoFile, encode, find_photos, jpeg_bytes, jpeg_roundtrip, read, to_float, to_uint8, write

SAMPLE = sorted((Path(__file__).parent.parent / "data/sample/test").glob("*.jpg"))
WIDTH, HEIGHT = 48, 32
LOSSLESS = {"png": "PNG", "tif": "TIFF", "bmp": "BMP"}
OPTIONAL = {suffix: name for suffix, name in {"avif": "AVIF", "heic": "HEIF"}.items() if name in READABLE}
FORMATS = {"jpg": "JPEG", "webp": "WEBP", **LOSSLESS, **OPTIONAL}
FINE = {"avif": {"quality": 100}, "heic": {"quality": -1, "chroma": 444}}  # how to save test pictures, alpha without loss
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode="RGB"):
    """A smooth picture without any symmetry; its alpha is a ramp."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    rgb = np.stack([x * 5, y * 7, 255 - x * 2 - y * 3], axis=-1).astype(np.uint8)
    result = Image.fromarray(rgb).convert(mode)
    if mode.endswith("A"):
        result.putalpha(Image.fromarray((x * 5).astype(np.uint8)))
    return result


def exif_block(orientation=1, order="<"):
    """EXIF with a maker, an orientation, a GPS reference and a maker note that only its maker understands."""
    exif = Image.Exif()
    exif.endian = order
    exif[ExifTags.Base.Make] = "Maker"
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: bytes(range(256))}
    exif[ExifTags.IFD.GPSInfo] = {1: "N"}
    return exif.tobytes()


def rgb_pixels(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


# Tensors and real JPEG


def test_every_8_bit_value_survives_the_way_to_float_and_back():
    values = torch.arange(256, dtype=torch.uint8).expand(3, 2, 256)
    assert to_float(values).dtype == torch.float32
    assert to_float(values).amax() == 1
    assert torch.equal(to_uint8(to_float(values)), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_to_uint8_rounds_and_clamps_and_leaves_its_input(dtype):
    image = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=dtype)
    assert to_uint8(image).tolist() == [0, 0, 255, 255]
    assert image.tolist() == [-1.0, 0.0, 1.0, 2.0]
    assert to_uint8(torch.tensor([0.4, 0.6, 254.6]) / 255).tolist() == [0, 1, 255]


@pytest.mark.parametrize(("quality", "subsampling", "sampling"), [(50, "4:2:0", 2), (90, "4:2:2", 1), (95, "4:4:4", 0)])
def test_jpeg_bytes_is_pillows_file(quality, subsampling, sampling):
    data = jpeg_bytes(rgb_pixels(picture()), quality, subsampling)
    expected = io.BytesIO()
    picture().save(expected, "JPEG", quality=quality, subsampling=subsampling)
    assert data == expected.getvalue()
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == sampling


def test_jpeg_roundtrip_is_the_decoded_file_of_each_rounded_picture(photos):
    image = photos[:2, :, :31, :45].double() + 0.001
    result = jpeg_roundtrip(image.requires_grad_(), 75)
    assert (result.dtype, result.shape, result.requires_grad) == (image.dtype, image.shape, False)
    for original, decoded in zip(image, result, strict=True):
        file = Image.open(io.BytesIO(jpeg_bytes(to_uint8(original), 75)))
        assert torch.equal(decoded.float(), to_float(rgb_pixels(file)))


# Finding files


def test_find_photos_lists_files_and_folders_in_order(tmp_path):
    for name in ["b.JPG", "a.png", "sub/c.webp", "sub/deep/d.tiff", "notes.txt", "sub/raw.dng"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_photos([tmp_path, tmp_path / "notes.txt"])
    assert [str(file.relative) for file in found] == ["a.png", "b.JPG", "sub/c.webp", "sub/deep/d.tiff", "notes.txt"]
    assert all(file.path == tmp_path / file.relative for file in found)
    assert find_photos([tmp_path / "sub"], exclude=tmp_path / "sub" / "deep") == [PhotoFile(tmp_path / "sub/c.webp", Path("c.webp"))]


def test_find_photos_ends_on_loops_of_links(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "up").symlink_to(tmp_path.parent)
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert [file.path.name for file in find_photos([tmp_path])] == ["a.png", "loop.png"]


def test_find_photos_refuses_what_is_not_there(tmp_path):
    with pytest.raises(CamoError, match=r"missing'.*no such file"):
        find_photos([tmp_path / "missing"])
    with pytest.raises(CamoError, match="no photo in this folder"):
        find_photos([tmp_path])


# Reading and writing what a file holds


@pytest.mark.parametrize(("suffix", "mode"), [*product(FORMATS, ["RGB", "L"]), *product(["png", "webp", "tif", *OPTIONAL], ["RGBA", "LA"])])
def test_a_file_keeps_its_content(tmp_path, suffix, mode):
    exif = exif_block(orientation=0)
    picture(mode).save(tmp_path / f"in.{suffix}", icc_profile=ICC, exif=exif, dpi=(300, 150), **FINE.get(suffix, {}))
    photo = read(tmp_path / f"in.{suffix}")
    write(photo, tmp_path / "new" / f"out.{suffix}")
    again = read(tmp_path / "new" / f"out.{suffix}")

    assert photo.format == again.format == FORMATS[suffix]
    assert photo.greyscale == again.greyscale == (mode in {"L", "LA"} and suffix != "webp" and not (mode == "LA" and suffix in OPTIONAL))
    if suffix in LOSSLESS:
        assert torch.equal(photo.pixels, rgb_pixels(picture(mode)))
        assert torch.equal(again.pixels, photo.pixels)
    else:
        assert (again.pixels.float() - rgb_pixels(picture(mode)).float()).abs().mean() < 2
    if mode.endswith("A"):
        assert np.array_equal(photo.alpha, picture(mode).getchannel("A"))
        assert torch.equal(again.alpha, photo.alpha)
    else:
        assert photo.alpha is again.alpha is None
    if suffix != "bmp":
        assert photo.icc_profile == again.icc_profile == ICC
        assert again.exif == photo.exif
        assert bytes(range(256)) in photo.exif
    if suffix not in {"bmp", "tif"}:  # a TIFF's tags are its EXIF
        assert photo.exif.removeprefix(b"Exif\0\0") == exif.removeprefix(b"Exif\0\0")
    if suffix in {"jpg", *LOSSLESS}:
        assert again.dpi == photo.dpi == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", *OPTIONAL])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_come_upright_and_the_tag_says_so(tmp_path, suffix, mode, orientation):
    operations = {5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
    operations |= {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM"}
    upright = picture(mode)
    if orientation > 1:
        upright = upright.transpose(Image.Transpose[operations[orientation]])
    order = "<" if orientation % 2 else ">"
    picture(mode).save(tmp_path / f"in.{suffix}", exif=exif_block(orientation, order), **FINE.get(suffix, {}))
    photo = read(tmp_path / f"in.{suffix}")
    assert (photo.pixels.float() - rgb_pixels(upright).float()).abs().mean() < 2
    write(photo, tmp_path / f"out.{suffix}")
    with Image.open(tmp_path / f"out.{suffix}") as written:
        assert written.size == upright.size
        assert written.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert written.getexif()[ExifTags.Base.Make] == "Maker"


@pytest.mark.parametrize("order", "<>")
def test_exif_changes_in_its_orientation_alone(tmp_path, order):
    picture().save(tmp_path / "a.jpg", exif=exif_block(6, order))
    assert read(tmp_path / "a.jpg").exif == exif_block(1, order)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xffabc"])
def test_broken_exif_is_no_reason_to_refuse_a_photo(tmp_path, exif):
    picture().save(tmp_path / "a.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(tmp_path / "a.jpg").pixels.shape == (3, HEIGHT, WIDTH)


def test_unusual_pixels_become_8_bit_rgb(tmp_path):
    grey = np.array(picture("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16bit.png")
    picture().quantize(16).save(tmp_path / "palette.png", transparency=3)
    picture("1").save(tmp_path / "bilevel.png")
    picture().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)

    deep, palette, bilevel, cmyk = (read(tmp_path / name) for name in ["16bit.png", "palette.png", "bilevel.png", "cmyk.jpg"])
    assert deep.greyscale
    assert torch.equal(deep.pixels, rgb_pixels(picture("L")))
    assert torch.equal(palette.pixels, rgb_pixels(picture().quantize(16)))
    assert set(palette.alpha.unique().tolist()) == {0, 255}
    assert bilevel.greyscale
    assert set(bilevel.pixels.unique().tolist()) == {0, 255}
    assert (cmyk.pixels.float() - rgb_pixels(picture()).float()).abs().mean() < 3


def jpeg_411():
    """A 4:1:1 JPEG, which Pillow cannot write, and the picture in it: the blocks of a 4:2:0 file, which has as many in a unit, in another order."""
    y, x = np.mgrid[0:32, 0:64]
    luma = (60 + x * 2 + y).astype(np.uint8)
    chroma = np.array([[[90, 110], [160, 140], [120, 128], [99, 170]], [[150, 90], [128, 110], [170, 140], [99, 120]]], np.uint8)  # a value a unit
    blocks = luma.reshape(4, 8, 2, 2, 2, 8).transpose(0, 3, 1, 2, 4, 5).reshape(64, 32)
    buffer = io.BytesIO()
    planes = [Image.fromarray(plane) for plane in (blocks, *chroma.repeat(16, 1).repeat(16, 2))]
    Image.merge("YCbCr", planes).save(buffer, "JPEG", quality=95, subsampling="4:2:0")
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc0")  # its length in two bytes, the depth, height and width, three components of name, sampling and table
    data[frame + 5 : frame + 9] = struct.pack(">HH", 32, 64)
    assert data[frame + 11] == 0x22
    data[frame + 11] = 0x41
    return bytes(data), Image.merge("YCbCr", [Image.fromarray(plane) for plane in (luma, *chroma.repeat(8, 1).repeat(32, 2))]).convert("RGB")


def test_every_kind_of_jpeg_is_read(tmp_path):
    path = tmp_path / "a.jpg"
    for mode, progressive, subsampling in product(["RGB", "L", "CMYK"], [False, True], ["4:4:4", "4:2:2", "4:2:0"]):
        picture(mode).save(path, quality=95, progressive=progressive, subsampling=subsampling)
        assert (read(path).pixels.float() - rgb_pixels(picture(mode)).float()).abs().mean() < 3
    data, expected = jpeg_411()
    path.write_bytes(data)
    assert (read(path).pixels.float() - rgb_pixels(expected).float()).abs().mean() < 1


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # first row, column; steps


@pytest.mark.parametrize(("depth", "mode"), [*product([8, 16], ["RGB", "RGBA", "L", "LA"])])
@pytest.mark.parametrize("interlaced", [False, True])
def test_every_kind_of_png_is_read(tmp_path, depth, mode, interlaced):
    pixels = np.array(picture(mode)).reshape(HEIGHT, WIDTH, -1)
    values = pixels.astype(">u2") * 257 if depth == 16 else pixels
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(b"\0" + row.tobytes() for top, left, down, across in passes for row in values[top::down, left::across])
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}[mode], 0, 0, interlaced)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    photo = read(tmp_path / "a.png")
    assert torch.equal(photo.pixels, rgb_pixels(picture(mode)))
    assert (photo.alpha is None) == (not mode.endswith("A"))
    assert photo.alpha is None or np.array_equal(photo.alpha, pixels[..., -1])


@pytest.mark.parametrize("file_format", FORMATS.values())
def test_the_content_counts_not_the_suffix(tmp_path, file_format):
    for suffix in ("jpg", "png", "heic"):
        picture().save(tmp_path / f"a.{suffix}", file_format)
        assert read(tmp_path / f"a.{suffix}").format == file_format


def test_a_gif_becomes_a_png(tmp_path):
    colours = picture().quantize(64)
    colours.save(tmp_path / "colours.gif", transparency=3)
    Image.new("L", (WIDTH, HEIGHT), 7).save(tmp_path / "grey.gif")
    photo = read(tmp_path / "colours.gif")
    assert photo.format == read(tmp_path / "grey.gif").format == "PNG"
    assert torch.equal(photo.pixels, rgb_pixels(colours))
    assert torch.equal(photo.alpha == 0, torch.from_numpy(np.array(colours) == 3))
    assert set(read(tmp_path / "grey.gif").pixels.unique().tolist()) == {7}


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_ten_bits_a_channel_become_eight(tmp_path, mode):
    import pillow_heif

    values = np.array(picture(mode)).astype(np.uint16) * 257
    pillow_heif.encode(f"{mode};16", (WIDTH, HEIGHT), values.tobytes(), tmp_path / "a.heic", quality=-1, chroma=444)
    assert (read(tmp_path / "a.heic").pixels.int() - rgb_pixels(picture(mode)).int()).abs().max() <= 1


@pytest.mark.parametrize(("suffix", "name"), OPTIONAL.items())
def test_alpha_is_kept_whatever_it_holds(suffix, name):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    with Image.open(io.BytesIO(encode(Photo(rgb_pixels(picture()), name, torch.from_numpy(noise))))) as written:
        assert np.array_equal(written.getchannel("A"), noise)


@pytest.mark.parametrize(("suffix", "name"), OPTIONAL.items())
def test_what_a_lossy_file_loses_is_less_than_anyone_sees(suffix, name):
    pixels = read(SAMPLE[0]).pixels[:, :192, :256]
    with Image.open(io.BytesIO(encode(Photo(pixels, name)))) as written:
        error = rgb_pixels(written).double() - pixels
    assert 10 * np.log10(255**2 / error.square().mean().item()) > 42  # dB


@pytest.mark.parametrize("path", [SAMPLE[0], SAMPLE[9]], ids=lambda path: path.stem)
def test_a_filtered_jpeg_takes_at_most_a_third_more(path):
    photo = read(path)
    with torch.inference_mode():
        filtered = replace(photo, pixels=to_uint8(load_filter()(to_float(photo.pixels)[None]))[0])
    assert not torch.equal(filtered.pixels, photo.pixels)
    assert len(encode(filtered)) <= 4 / 3 * len(encode(photo))


def test_a_jpeg_is_written_at_quality_95_without_subsampling_whatever_its_suffix(tmp_path):
    picture().save(tmp_path / "mislabelled.png", "JPEG", quality=30)
    write(read(tmp_path / "mislabelled.png"), tmp_path / "out.png")
    reference = io.BytesIO()
    picture().save(reference, "JPEG", quality=95)
    with Image.open(tmp_path / "out.png") as written:
        assert written.format == "JPEG"
        assert written.quantization == Image.open(reference).quantization
        assert JpegImagePlugin.get_sampling(written) == 0


def test_a_phones_jpeg_with_a_preview_gives_its_main_picture_and_a_stereo_pair_is_refused(tmp_path):
    path = tmp_path / "phone.jpg"
    picture().save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    assert (read(path).pixels.float() - rgb_pixels(picture()).float()).abs().mean() < 2
    assert read(path).format == "JPEG"

    data = bytearray(path.read_bytes())
    start = data.index(b"MPF\0") + 4
    first = start + 8 + 2 + 3 * 12 + 4  # after a TIFF header and a directory of three tags: the entries of the pictures, 16 bytes each
    assert data[first : first + 4] == struct.pack("<L", 0x030000)  # the primary picture
    data[first + 16 : first + 20] = struct.pack("<L", 0x020002)  # a view of a stereo pair
    path.write_bytes(data)
    with pytest.raises(CamoError, match="2 frames"):
        read(path)


# Refusing


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"plain text", "not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture"),
        (b"\xff\xd8\xff\xe0" + bytes(64), "no picture in it"),
        (bomb(), "60000x60000 px are 3600.0 megapixels, more than the limit of 180.0; --max-pixels raises it"),
    ],
)
def test_what_is_no_photo_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "odd\nname.jpg"
    path.write_bytes(content)
    with pytest.raises(CamoError, match=message) as caught:
        read(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow's, which infer.py silences
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS.values())),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.binary(max_size=20)), min_size=1, max_size=3),
    st.floats(0.3, 2),
)
def test_whatever_the_bytes_they_give_a_photo_or_a_fault_of_one_line(tmp_path_factory, file_format, faults, kept):
    damaged = bytearray(encode(Photo(rgb_pixels(picture()), file_format, exif=exif_block(6), dpi=(300, 300), xmp=PACKET % 6)))
    for place, cut, inserted in faults:
        at = int(place**3 * len(damaged))  # most of them near the start, where the headers are
        damaged[at : at + cut] = inserted
    path = tmp_path_factory.getbasetemp() / "mutated.jpg"
    path.write_bytes(damaged[: int(kept * len(damaged))])
    try:
        photo = read(path)
    except CamoError as error:
        assert str(error).startswith(f"{str(path)!r}: ")
        assert "\n" not in str(error)
    else:
        assert (photo.pixels.ndim, photo.pixels.dtype) == (3, torch.uint8)


@pytest.mark.parametrize("suffix", [*FORMATS, "gif"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    read(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(CamoError, match="cannot be read"):
        read(path)


@pytest.mark.parametrize("suffix", ["webp", "png", "tif", "gif", *OPTIONAL])
def test_several_frames_are_refused(tmp_path, suffix):
    picture().save(tmp_path / f"a.{suffix}", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    with pytest.raises(CamoError, match="2 frames"):
        read(tmp_path / f"a.{suffix}")


def test_32_bit_pixels_and_other_formats_are_refused(tmp_path):
    picture("F").save(tmp_path / "float.tif")
    picture().save(tmp_path / "ppm.jpg", "PPM")
    with pytest.raises(CamoError, match="32-bit"):
        read(tmp_path / "float.tif")
    with pytest.raises(CamoError, match="not a JPEG"):
        read(tmp_path / "ppm.jpg")


def test_an_image_sequence_is_refused(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftyphevc" + bytes(100))
    with pytest.raises(CamoError, match="an image sequence; animated"):
        read(tmp_path / "a.heic")


@pytest.mark.parametrize(("brand", "package"), [(b"heic", "pillow-heif"), (b"mif1", "pillow-heif"), (b"avif", "Pillow 11.3")])
def test_a_file_whose_package_is_missing_says_which(tmp_path, monkeypatch, brand, package):
    monkeypatch.setattr(formats, "READABLE", formats.FORMATS)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    with pytest.raises(CamoError, match=f"a.jpg': .* needs .*{package}.*: pip install"):
        read(tmp_path / "a.jpg")


@pytest.mark.parametrize(("primaries", "transfer"), [(9, 16), (12, 13), (1, 18)])
def test_colours_that_pillow_would_misread_are_refused(tmp_path, primaries, transfer):
    picture().save(tmp_path / "a.heic", color_primaries=primaries, transfer_characteristics=transfer, matrix_coefficients=6, full_range_flag=1)
    with pytest.raises(CamoError, match="wide gamut without an ICC profile"):
        read(tmp_path / "a.heic")


def test_what_is_no_file_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, message in {"pipe.jpg": "not a file", ".": "not a file", "dangling.jpg": "No such file", "loop.jpg": "symbolic links"}.items():
        with pytest.raises(CamoError, match=message):
            read(tmp_path / name)


# Writing safely


def test_an_existing_file_is_replaced_only_when_told(tmp_path):
    picture().save(tmp_path / "a.png")
    photo = read(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("mine")
    (tmp_path / "link.png").symlink_to("nowhere")
    for name in ["b.png", "link.png"]:
        with pytest.raises(CamoError, match="exists already"):
            write(photo, tmp_path / name)
    assert (tmp_path / "b.png").read_text() == "mine"
    write(photo, tmp_path / "b.png", overwrite=True)
    assert torch.equal(read(tmp_path / "b.png").pixels, photo.pixels)


def test_a_failed_write_leaves_everything_as_it_was(tmp_path):
    picture().save(tmp_path / "a.jpg")
    photo = replace(read(tmp_path / "a.jpg"), exif=b"Exif\0\0" + bytes(70_000))  # more than a JPEG segment holds
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(CamoError, match=r"a\.jpg'.*cannot be written.*too long"):
        write(photo, tmp_path / "a.jpg", overwrite=True)
    with pytest.raises(CamoError, match="cannot be written"):
        write(photo, tmp_path / "a.jpg" / "below-a-file.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    photo = read(tmp_path / "a.png")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(photo, tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    picture().save(tmp_path / "a.png")
    write(read(tmp_path / "a.png"), tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_mode == (tmp_path / "a.png").stat().st_mode


PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    b' xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="%d" dc:title="a \xc3\xa9"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", *OPTIONAL])
def test_xmp_is_kept_and_never_turns_a_picture(tmp_path, suffix):
    file_format = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "avif": "AVIF", "heic": "HEIF"}.get(suffix, "TIFF")
    write(Photo(rgb_pixels(picture()), file_format, xmp=PACKET % 6), tmp_path / f"a.{suffix}")
    photo = read(tmp_path / f"a.{suffix}")
    assert photo.pixels.shape == (3, HEIGHT, WIDTH)
    assert photo.xmp.count(b"a \xc3\xa9") == 1
    if suffix not in OPTIONAL | {"tiff": ""}:  # where the container itself says how the picture lies, all else is to agree
        assert photo.xmp == PACKET % 6


def test_a_heics_xmp_is_kept(tmp_path):
    write(Photo(rgb_pixels(picture()), "HEIF", xmp=PACKET % 1), tmp_path / "a.heic")
    assert read(tmp_path / "a.heic").xmp == PACKET % 1


def test_a_jpegs_comment_is_kept(tmp_path):
    picture().save(tmp_path / "a.jpg", comment=b"taken at dawn")
    write(read(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as written:
        assert written.info["comment"] == b"taken at dawn"


def wide_gamut_profile():
    """The sRGB profile that LittleCMS makes, its primaries replaced by Display P3's (adapted to D50, as Apple's profile has them)."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": (0.51512, 0.2412, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.1571, 0.06657, 0.78407)}
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12):
        name, offset, _ = struct.unpack_from(">4sII", profile, entry)
        if name in primaries:
            struct.pack_into(">3i", profile, offset + 8, *(round(65536 * value) for value in primaries[name]))
    return bytes(profile)


def test_wide_gamut_becomes_srgb_and_srgb_stays(tmp_path):
    pixels = np.array([[[200, 100, 50], [120, 130, 125], [60, 90, 160]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png", icc_profile=wide_gamut_profile())
    photo = read(tmp_path / "wide.png")
    assert photo.icc_profile is None
    # Linear Display P3 to linear sRGB, as CSS Color 4 gives it.
    matrix = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    linear = np.where(pixels / 255 <= 0.04045, pixels / 255 / 12.92, ((pixels / 255 + 0.055) / 1.055) ** 2.4) @ matrix.T
    expected = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(photo.pixels.permute(1, 2, 0).numpy() - expected).max() <= 1.5
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "srgb.png", icc_profile=srgb)
    photo = read(tmp_path / "srgb.png")
    assert photo.icc_profile == srgb
    assert np.array_equal(photo.pixels.permute(1, 2, 0), pixels)
