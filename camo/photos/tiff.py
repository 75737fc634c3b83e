"""TIFF files (TIFF 6.0; its Adobe Photoshop TIFF technical notes; DNG 1.7 to know raw files by): which page is the photo, what its tags say, and a
writer of uncompressed ones."""

import struct
from dataclasses import dataclass, field

import numpy as np

from camo.photos import exif, image_resources
from camo.photos.exif import Exif
from camo.photos.tiff_structure import (
    BYTE,
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    LONG,
    RATIONAL,
    SHORT,
    SUB_IFDS,
    UNDEFINED,
    WHOLE,
    Directory,
    Structure,
    Value,
)

NEW_SUBFILE_TYPE, SUBFILE_TYPE, BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, DNG_VERSION = 254, 255, 258, 259, 262, 50706
REDUCED, MASK = 1, 4  # bits of NewSubfileType
RAW_PHOTOMETRICS = {32803, 34892}  # colour filter array, linear raw
RAW_COMPRESSIONS = {32767, 34713, 32769, 32770, 65000, 65535, 262}  # Sony, Nikon, Epson, Samsung, Kodak, Pentax, Kodak
# How pixels are stored: what a decoder needs to know, and what a new file has anew.
STORAGE = {*range(256, 260), *range(262, 267), 273, *range(277, 282), 284, 292, 293, 317, 320, *range(322, 326)}
STORAGE |= {332, 334, 336, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, 34016, 34022}
SILENT = STORAGE | {254, 255, 274, 282, 283, 296, 288, 289, 290, 291, 301, 318, 319, 326, 327, 328, 330, 333, 342, 343, 344, 345, 346, 351}
SILENT |= {exif.XMP_TAG, exif.IPTC_TAG, exif.PHOTOSHOP_TAG, exif.ICC_TAG, EXIF_IFD, GPS_IFD, INTEROP_IFD}
DESCRIPTION = {269, 270, 271, 272, 285, 286, 287, 297, 305, 306, 315, 316, 337, 18246, 18249, *range(40091, 40096), 33432, 42016, 50341}
DESCRIPTION |= {33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113}  # GeoTIFF and GDAL
LAYERS = 37724


@dataclass
class Tiff:
    """A TIFF file taken apart; ``picture`` is a file of the main page's pixels alone, ``exif`` a block of its descriptive tags.

    ``orientation``, ``resolution`` (pixels a unit, and the unit) and ``bits`` are the main page's; ``frames`` counts the pages that a viewer would
    show.
    """

    picture: bytes
    frames: int
    bits: int
    orientation: int
    exif: bytes | None = None
    resolution: tuple[float, float, int] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    resources: bytes | None = None
    icc_profile: bytes | None = None
    left_out: list[str] = field(default_factory=list)


def take_apart(content: bytes) -> Tiff:
    """Find the main page of a TIFF file. Raises ValueError for a raw file, and where there is no page."""
    structure = Structure(content)
    pages = list(structure.chain(structure.first))
    if name := _raw(content, structure, pages):
        raise ValueError(f"a raw file ({name}); develop it into a JPEG or TIFF first")
    shown = [page for page in pages if page.entries and not _is_aside(structure, page)] or pages[:1]
    if not shown:
        raise ValueError("no page in it")
    main = shown[0]
    orientation = structure.numbers(main.entry(exif.ORIENTATION))
    horizontal, vertical = (structure.rationals(main.entry(tag)) for tag in (exif.X_RESOLUTION, exif.Y_RESOLUTION))
    unit = structure.numbers(main.entry(exif.RESOLUTION_UNIT))
    tiff = Tiff(
        picture=_picture_only(content, structure, main),
        frames=len(shown),
        bits=max(structure.numbers(main.entry(BITS_PER_SAMPLE)), default=1),
        orientation=orientation[0] if orientation and 1 <= orientation[0] <= 8 else 1,
        resolution=(horizontal[0], vertical[0], unit[0] if unit else 2) if horizontal and vertical else None,
    )
    values = {entry.tag: structure.value(entry) for entry in reversed(main.entries) if entry.size}
    tiff.xmp, tiff.resources, tiff.icc_profile = (values.get(tag) for tag in (exif.XMP_TAG, exif.PHOTOSHOP_TAG, exif.ICC_TAG))
    if exif.IPTC_TAG in values:
        tiff.iptc = image_resources.iptc_of_tiff(values[exif.IPTC_TAG]) or None
    described = {tag: value for tag, value in _values(structure, main).items() if tag in DESCRIPTION}
    children = _children(structure, main)
    if described or children:
        tiff.exif = exif.built(structure.order, described, children)
    for entry in main.entries:
        if entry.tag not in SILENT | DESCRIPTION:
            tiff.left_out.append("Photoshop layers" if entry.tag == LAYERS else f"TIFF {exif.name_of(entry.tag)}")
        elif entry.tag in DESCRIPTION and not entry.size:
            tiff.left_out.append(f"damaged TIFF {exif.name_of(entry.tag)}")
    return tiff


def file_of(pixels: np.ndarray, block: bytes | None, tags: dict[int, Value]) -> bytes:
    """An uncompressed TIFF file.

    Args:
        pixels: (H, W, C) uint8; C is 1 (grey), 2, 3 (RGB) or 4; of 2 and 4 the last is alpha, not premultiplied.
        block: EXIF, whose values stay where they are, so that makers' notes remain valid.
        tags: further tags of the main directory, in the byte order of ``order_of(block)``.

    Raises ValueError where it would have 4 GiB or more.
    """
    height, width, channels = pixels.shape
    head, order = _usable(block), order_of(block)
    head.remove(*SILENT - {EXIF_IFD, GPS_IFD})
    head.remove_damaged()  # its offsets would lead into the pixels
    storage = {
        256: number(order, LONG, width),
        257: number(order, LONG, height),
        BITS_PER_SAMPLE: number(order, SHORT, *[8] * channels),
        COMPRESSION: number(order, SHORT, 1),
        PHOTOMETRIC: number(order, SHORT, 2 if channels > 2 else 1),
        277: number(order, SHORT, channels),
        278: number(order, LONG, height),
        279: number(order, LONG, 0),
        273: number(order, LONG, 0),
        284: number(order, SHORT, 1),
        **({338: number(order, SHORT, 2)} if channels in {2, 4} else {}),
    }
    whole = head.with_tags(storage | tags)
    main, start = whole.structure.directory(whole.structure.first), len(whole.data) + len(whole.data) % 2
    if start + pixels.nbytes >= 2**32:
        raise ValueError("a TIFF of 4 GiB or more cannot be written")
    for tag, value in ((273, start), (279, pixels.nbytes)):
        entry = main.entry(tag)
        assert entry is not None
        struct.pack_into(order + "I", whole.data, entry.start, value)
    return b"".join((whole.data, bytes(start - len(whole.data)), np.ascontiguousarray(pixels).data))


def order_of(block: bytes | None) -> str:
    """The byte order of the file that ``file_of`` makes from an EXIF block: "<" or ">"."""
    return _usable(block).structure.order


def number(order: str, kind: int, *values: int) -> Value:
    """Whole numbers as a tag's value."""
    return kind, len(values), struct.pack(f"{order}{len(values)}{WHOLE[kind]}", *values)


def resolution_tags(order: str, horizontal: float, vertical: float, unit: int) -> dict[int, Value]:
    """The tags of pixels a unit: 1 none, 2 inch, 3 centimetre."""
    tags: dict[int, Value] = {exif.RESOLUTION_UNIT: number(order, SHORT, unit)}
    for tag, value in ((exif.X_RESOLUTION, horizontal), (exif.Y_RESOLUTION, vertical)):
        bottom = 1 if value == int(value) else 10_000
        tags[tag] = (RATIONAL, 1, struct.pack(order + "II", round(value * bottom), bottom))
    return tags


def data(kind: int, content: bytes) -> Value:
    """Bytes as a tag's value."""
    assert kind in {BYTE, UNDEFINED}
    return kind, len(content), content


def _usable(block: bytes | None) -> Exif:
    try:
        return Exif(block) if block else exif.empty()
    except ValueError:
        return exif.empty()


def _is_aside(structure: Structure, page: Directory) -> bool:
    """Whether a page is a thumbnail or a mask of another."""
    kind, old = (structure.numbers(page.entry(tag)) for tag in (NEW_SUBFILE_TYPE, SUBFILE_TYPE))
    return bool(kind and kind[0] & (REDUCED | MASK)) or (not kind and old[:1] == (2,))


def _raw(content: bytes, structure: Structure, pages: list[Directory]) -> str | None:
    """The kind of a raw file, by what is in it; None for a picture."""
    if content[8:10] == b"CR":
        return "CR2"
    first = pages[0] if pages else None
    if first and first.entry(DNG_VERSION):
        return "DNG"
    below = [directory for page in pages for offset in structure.numbers(page.entry(SUB_IFDS))[:16] for directory in structure.chain(offset)]
    for directory in (*pages, *below):
        photometric, compression = (structure.numbers(directory.entry(tag)) for tag in (PHOTOMETRIC, COMPRESSION))
        if RAW_PHOTOMETRICS & {*photometric[:1]} or RAW_COMPRESSIONS & {*compression[:1]}:
            return "sensor data"
    if first and below and _is_aside(structure, first):
        return "a preview before the sensor's data"
    return None


def _picture_only(content: bytes, structure: Structure, page: Directory) -> bytes:
    """The file with a directory at its end, to which its header points, that says nothing but how the page's pixels are stored."""
    entries = [content[entry.at : entry.at + structure.entry_size] for entry in page.entries if entry.tag in STORAGE]
    at = len(content) + len(content) % 8
    head = content[:8] + struct.pack(structure.order + "Q", at) if structure.big else content[:4] + struct.pack(structure.order + "I", at)
    count, end = struct.pack(structure.order + ("Q" if structure.big else "H"), len(entries)), bytes(8 if structure.big else 4)
    return b"".join((head, memoryview(content)[len(head) :], bytes(at - len(content)), count, *entries, end))


def _values(structure: Structure, directory: Directory) -> dict[int, Value]:
    """A directory's values by tag, those of BigTIFF's own types as the types that EXIF has."""
    found = {}
    for entry in reversed(directory.entries):
        if entry.size and entry.kind <= 13:
            found[entry.tag] = (entry.kind, entry.count, structure.value(entry))
    return found


def _children(structure: Structure, main: Directory) -> dict[int, dict[int, Value]]:
    """The Exif, GPS and interoperability directories that a page points to, by the tag that does."""
    children = {}
    parents = {EXIF_IFD: main, GPS_IFD: main}
    for tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD):
        offsets = structure.numbers(parents[tag].entry(tag)) if tag in parents else ()
        if offsets:
            directory = structure.directory(offsets[0])
            if tag == EXIF_IFD:
                parents[INTEROP_IFD] = directory
            if values := {key: value for key, value in _values(structure, directory).items() if key != INTEROP_IFD}:
                children[tag] = values
    return children
