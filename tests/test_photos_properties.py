"""Random metadata in, the same out: for every pair of formats, and whatever the bytes are."""

import io
import zlib
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camo.photos import exif as blocks
from camo.photos import xmp as packets
from camo.photos.formats import HOLDS
from camo.photos.images import READABLE, Photo, encode, read
from camo.photos.metadata import NAMES, SUFFIX_OF, as_format, without_location
from tests import photo_files as files

FORMATS = [name for name in SUFFIX_OF if name in READABLE]
QUICK = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")  # to write

letters = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<>&\"'"), min_size=1, max_size=30)
ascii_texts = letters.map(lambda text: (2, text.encode() + b"\0"))
main_tags = st.dictionaries(st.sampled_from([270, 271, 272, 305, 306, 315, 316, 33432]), ascii_texts)
inner_tags = st.dictionaries(
    st.sampled_from([0x9003, 0x9286, 0x927C, 0xA420, 0x8827, 0x829A]),
    st.one_of(ascii_texts, st.binary(min_size=1, max_size=90).map(lambda data: (7, data))),
)
plain = st.binary(max_size=200).filter(lambda data: b"\xff\xd8\xff" not in data)


@st.composite
def exif_blocks(draw):
    main, inner = draw(main_tags), draw(inner_tags)
    if inner:
        main = main | {0x8769: (4, inner)}
    return files.exif(main, order=draw(st.sampled_from("<>"))) if main else None


def tags_of(block):
    """All values of a block, by directory and tag."""
    main, children = blocks.Exif(block).values() if block else ({}, {})
    return {(directory, tag): value for directory, values in {0: main, **children}.items() for tag, value in values.items()}


sizes = (
    st.tuples(st.integers(2, 2400), st.integers(2, 2400)).filter(lambda size: size[0] != size[1]).map(lambda size: (float(size[0]), float(size[1])))
)
photos = st.builds(
    Photo,
    st.just(files.PIXELS),
    st.just("PNG"),
    icc_profile=st.sampled_from([None, files.SRGB_ICC]),
    exif=exif_blocks().map(lambda block: block and b"Exif\0\0" + block),
    xmp=st.one_of(st.none(), letters.map(lambda text: files.xmp(f'dc:format="{text}"'))),
    comments=st.lists(letters.map(str.encode), max_size=3).map(tuple),
    iptc=st.one_of(st.none(), letters.map(lambda text: b"\x1c\2\x78" + len(text).to_bytes(2) + text.encode())),
    resources=st.one_of(st.none(), plain.map(lambda data: files.resource(1057, data))),
    text=st.lists(st.tuples(st.sampled_from([b"Author", b"Title", b"Source"]), letters), max_size=3).map(
        lambda texts: tuple((b"tEXt", keyword + b"\0" + text.encode()) for keyword, text in texts)
    ),
) | st.builds(lambda size, aspect: Photo(files.PIXELS, "PNG", dpi=size, aspect=None if size else aspect), st.none() | sizes, sizes)


def comments_of(photo):
    """The comments, of which a PNG makes texts."""
    return [*photo.comments, *(body.partition(b"\0")[2] for _, body in photo.text if body.startswith(b"Comment\0"))]


def texts_of(photo):
    """The texts that are no comments."""
    return [chunk for chunk in photo.text if not chunk[1].startswith(b"Comment\0")]


def keeps(name, before, after):
    """Whether one attribute is the same; where a format has another place for it, as it is found there."""
    first, second = getattr(before, name), getattr(after, name)
    if name == "exif":
        added = {282, 283, 296} if before.dpi or before.aspect else set()  # where a format has no other place for these
        first, second = ({place: value for place, value in tags_of(block).items() if place[1] not in added} for block in (first, second))
        return first == second
    if name == "dpi":
        return first == second if None in (first, second) else second == pytest.approx(first, abs=0.02)
    if name == "aspect":
        return first == second if None in (first, second) else second[0] / second[1] == pytest.approx(first[0] / first[1], rel=1e-3)
    if name == "comments":
        return comments_of(before) == comments_of(after)
    if name == "text":
        return texts_of(before) == texts_of(after)
    return first == second


@pytest.mark.parametrize(("source", "target"), [*product(FORMATS, FORMATS)])
@settings(max_examples=8, deadline=None)
@given(photos)
def test_what_goes_in_comes_out_or_is_named(tmp_path_factory, source, target, photo):
    before = photo
    for file_format in (source, target):
        fitted = as_format(before, file_format)
        after = files.photo_of(tmp_path_factory.getbasetemp(), encode(fitted))
        for name in NAMES:
            value = texts_of(before) if name == "text" else getattr(before, name)
            if name in HOLDS[file_format]:
                assert keeps(name, before, after), name
            elif value:
                assert NAMES[name] in " ".join(fitted.left_out)
        assert after.left_out == ()
        before = after


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([0xE0, 0xE1, 0xE2, 0xE5, 0xEB, 0xEC, 0xED, 0xEE, 0xFE]),
    st.sampled_from([b"", b"Exif\0\0", b"MPF\0II*\0"]),
)
def test_whatever_a_segment_holds_the_photo_is_read(tmp_path_factory, content, marker, prefix):
    path = tmp_path_factory.getbasetemp() / "segment"
    path.write_bytes(files.jpeg(files.segment(marker, prefix + content)))
    if marker != 0xEE:  # which says how the colours are stored
        assert (read(path).pixels.int() - files.PIXELS.int()).abs().float().mean() < 2
        encode(read(path))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"tIME", b"acTL", b"gAMA", b"caBX", b"sRGB", b"iCCP"]))
def test_whatever_a_chunk_holds_the_photo_is_read(tmp_path_factory, content, kind):
    path = tmp_path_factory.getbasetemp() / "chunk"
    path.write_bytes(files.png(files.chunk(kind, content)))
    photo = read(path)
    assert photo.pixels.shape == files.PIXELS.shape
    encode(photo)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_exif_gives_a_block_that_can_be_written_everywhere_and_stripped(tmp_path_factory, data):
    block = bytearray(
        files.exif(
            {271: (2, b"Maker\0"), 274: (3, 6), 0x8769: (4, {0x927C: (7, bytes(50))}), 0x8825: (4, {1: (2, b"N\0"), 27: (7, b"secret place")})}
        )
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(block) - 1))
        block[at : at + 2] = data.draw(st.binary(min_size=1, max_size=4))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(files.jpeg(files.jpeg_exif(bytes(block))))
    photo = read(path)
    for file_format in QUICK:
        encode(as_format(without_location(photo), file_format))
        with Image.open(io.BytesIO(encode(as_format(photo, file_format)))) as written:
            assert written.size in {files.picture().size, files.picture().size[::-1]}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 40))
def test_whatever_the_packet_it_is_kept_or_named(tmp_path_factory, noise, at, cut):
    packet = bytearray(files.xmp('tiff:Orientation="6" dc:format="x"', "<dc:source>text</dc:source>"))
    packet[at : at + cut] = noise
    path = tmp_path_factory.getbasetemp() / "packet"
    path.write_bytes(files.jpeg(files.jpeg_xmp(bytes(packet))))
    photo = read(path)
    assert photo.xmp or photo.left_out or not bytes(packet)
    encode(photo)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=5), st.sampled_from(["<", ">"]))
def test_a_long_packet_is_divided_without_loss(sizes, _order):
    elements = "".join(f"<dc:source>{index}{'x' * size}</dc:source>" for index, size in enumerate(sizes))
    packet = files.xmp('dc:format="main"', elements)
    parts = packets.divided(packet)
    assert parts is not None
    main, extended, guid = parts
    assert len(main) <= 65_502
    assert guid.encode() in main
    together, left_out = packets.merged([main, extended])
    assert left_out == []
    for index, size in enumerate(sizes):
        assert together.count(f"<dc:source>{index}{'x' * size}</dc:source>".encode()) == 1


def test_texts_that_zlib_packed_are_unpacked_up_to_the_limit():
    from camo.photos.png_chunks import MAX_TEXT, unpacked

    assert unpacked(zlib.compress(bytes(MAX_TEXT)), MAX_TEXT) == bytes(MAX_TEXT)
    with pytest.raises(ValueError, match="more than"):
        unpacked(zlib.compress(bytes(MAX_TEXT + 1)), MAX_TEXT)
