"""XMP packets (ISO 16684-1; extended XMP: Adobe's XMP specification, part 3): read, mended where they have become untrue, joined and divided.

A packet in which nothing is untrue stays byte for byte as it was. One that is no XML is left alone, unless it speaks of pictures.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.dom import minidom
from xml.dom.minidom import Attr, Element
from xml.parsers.expat import ExpatError

from camo.photos import embedded
from camo.photos.facts import Facts
from camo.photos.turning import turned_area, turned_point

RDF, X, NOTE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "adobe:ns:meta/", "http://ns.adobe.com/xmp/note/"
TIFF, EXIF, PHOTOSHOP, BASIC = (
    "http://ns.adobe.com/tiff/1.0/",
    "http://ns.adobe.com/exif/1.0/",
    "http://ns.adobe.com/photoshop/1.0/",
    "http://ns.adobe.com/xap/1.0/",
)
CAMERA, REGIONS, AREA, DIMENSIONS = (
    "http://ns.google.com/photos/1.0/camera/",
    "http://www.metadataworkinggroup.com/schemas/regions/",
    "http://ns.adobe.com/xmp/sType/Area#",
    "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
)
MICROSOFT_REGION = "http://ns.microsoft.com/photo/1.2/t/Region#"
IPTC_EXTENSION = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
MAIN_MAX = 65000  # bytes of a packet that fits into one segment of a JPEG, with some room
WRAPPER = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>%b<?xpacket end="w"?>'

COMPANIONS = {  # namespaces that speak of a second picture or of a video behind this one, and what that is
    "http://ns.adobe.com/hdr-gain-map/1.0/": "gain map",
    "http://ns.apple.com/HDRGainMap/1.0/": "gain map",
    "http://ns.google.com/photos/1.0/container/": "second picture",
    "http://ns.google.com/photos/1.0/depthmap/": "depth map",
    "http://ns.google.com/photos/1.0/image/": "second picture",
    "http://ns.google.com/photos/dd/1.0/": "depth map",
    "http://ns.apple.com/pixeldatainfo/1.0/": "depth map",
    "http://ns.xiaomi.com/photos/1.0/camera/": "second picture",
}
COLOURS = {"WhitePoint", "PrimaryChromaticities", "TransferFunction"}  # as EXIF numbers them
SEMANTICS = {"GainMap": "gain map", "MotionPhoto": "motion-photo video", "Depth": "depth map"}
SUSPICIOUS = re.compile(rb"hdrgm|GContainer|Container:|GImage|GDepth|MotionPhoto|MicroVideo|xmpGImg|/9j/|iVBORw0KGgo|UklGR")


@dataclass
class Packet:
    """A parsed packet, the names of what was left out of it, and whether anything in it was changed."""

    document: minidom.Document
    left_out: list[str] = field(default_factory=list)
    changed: bool = False

    @property
    def descriptions(self) -> list[Element]:
        """The elements that hold the properties."""
        return list(self.document.getElementsByTagNameNS(RDF, "Description"))

    def properties(self) -> Iterator[tuple[Element, Attr | Element]]:
        """Every property of the main level: the element that holds it, and the attribute or element that it is."""
        for root in self.document.getElementsByTagNameNS(RDF, "RDF"):
            for holder in [node for node in root.childNodes if isinstance(node, Element)]:
                for attribute in list(holder.attributes.values()):
                    if attribute.namespaceURI not in {RDF, "http://www.w3.org/2000/xmlns/", "http://www.w3.org/XML/1998/namespace"}:
                        yield holder, attribute
                for child in [node for node in holder.childNodes if isinstance(node, Element)]:
                    yield holder, child

    def remove(self, holder: Element, item: Attr | Element) -> None:
        """Take a property away."""
        if isinstance(item, Attr):
            holder.removeAttributeNode(item)
        else:
            holder.removeChild(item)
        self.changed = True

    def set(self, item: Attr | Element, text: str) -> None:
        """Set the text of a simple property."""
        if _text(item).strip() != text:
            if isinstance(item, Attr):
                item.value = text
            else:
                for child in list(item.childNodes):
                    item.removeChild(child)
                item.appendChild(self.document.createTextNode(text))
            self.changed = True


def mended(packet: bytes, facts: Facts) -> tuple[bytes | None, list[str]]:
    """The packet as it agrees with the picture, None where nothing of it can be kept; and the names of what was left out."""
    parsed = _parse(packet)
    if parsed is None:
        if SUSPICIOUS.search(packet.replace(b"\0", b"")):
            return None, ["XMP that is damaged and speaks of further pictures"]
        if facts.upright:
            packet = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[2-8]", rb"\g<1>1", packet)
        return packet, []
    for holder, item in list(parsed.properties()):
        if name := _companion(item):
            parsed.left_out += [name] if name != "thumbnail" else []
            parsed.remove(holder, item)
        elif _untrue(item, facts):
            parsed.remove(holder, item)
        elif number := _fact(item, facts):
            parsed.set(item, number)
    if facts.turned > 1:
        _turn_regions(parsed, facts)
    return (_serialised(parsed) if parsed.changed else packet), list(dict.fromkeys(parsed.left_out))


def merged(packets: list[bytes]) -> tuple[bytes, list[str]]:
    """One packet of the properties of all, and the names of what could not be put into it: packets that are no XML."""
    first, *others = packets
    main, left_out = _parse(first), []
    roots = main.document.getElementsByTagNameNS(RDF, "RDF") if main else []
    for number, other in enumerate(others, 2):
        more = _parse(other)
        if main is None or more is None or not roots:
            left_out.append(f"XMP packet {number} of {len(packets)}")
            continue
        for root in more.document.getElementsByTagNameNS(RDF, "RDF"):
            inherited = {**_namespaces(root.parentNode), **_namespaces(root)}
            for child in [node for node in root.childNodes if isinstance(node, Element)]:
                for name, uri in inherited.items():
                    if not child.hasAttribute(name):
                        child.setAttribute(name, uri)
                roots[0].appendChild(main.document.importNode(child, True))
                main.changed = True
    if main and main.changed:
        return _serialised(main), left_out
    return first, left_out


def extended_guid(packet: bytes) -> str | None:
    """The GUID of the extended packet that a packet announces."""
    found = re.search(rb"HasExtendedXMP\s*(?:=\s*[\"']|>\s*)([0-9A-Fa-f]{32})", packet)
    return found[1].decode() if found else None


def divided(packet: bytes) -> tuple[bytes, bytes, str] | None:
    """A packet too long for one segment of a JPEG as (main packet, extended packet, its GUID), the longest properties in the latter.

    None where it is no XML, or would not become short enough.
    """
    main, rest = _parse(packet), _parse(packet)
    if main is None or rest is None:
        return None
    sizes = [len((item.toxml() if isinstance(item, Element) else item.value).encode()) for _, item in main.properties()]
    order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
    excess, moved = len(packet) - MAIN_MAX + 200, set()
    for index in order:
        if excess <= 0:
            break
        moved.add(index)
        excess -= sizes[index]
    for parsed, keep in ((main, False), (rest, True)):
        for index, (holder, item) in enumerate(list(parsed.properties())):
            if (index in moved) != keep:
                parsed.remove(holder, item)
    extended = _serialised(rest, wrapped=False)
    guid = hashlib.md5(extended, usedforsecurity=False).hexdigest().upper()
    if not main.descriptions:
        return None
    main.descriptions[0].setAttribute("xmlns:xmpNote", NOTE)
    main.descriptions[0].setAttributeNS(NOTE, "xmpNote:HasExtendedXMP", guid)
    short = _serialised(main)
    return (short, extended, guid) if len(short) <= MAIN_MAX + 400 else None


def _parse(packet: bytes) -> Packet | None:
    """The packet's document; None where it is no XML or declares entities, which XMP never does."""
    text = packet.strip(b"\0 \t\r\n")
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", text.replace(b"\0", b"")):
        return None
    try:
        document = minidom.parseString(text)
    except (ExpatError, ValueError, LookupError, RecursionError):
        return None
    return Packet(document)


def _serialised(parsed: Packet, wrapped: bool = True) -> bytes:
    root = "".join(node.toxml() for node in parsed.document.childNodes if isinstance(node, Element)).encode("utf-8", "xmlcharrefreplace")
    return WRAPPER % root if wrapped else root


def _text(item: Attr | Element) -> str:
    if isinstance(item, Attr):
        return item.value
    return "".join(node.data for node in item.childNodes if node.nodeType in {node.TEXT_NODE, node.CDATA_SECTION_NODE})


def _namespaces(node: object) -> dict[str, str]:
    """The namespace declarations that stand at an element."""
    attributes = node.attributes.values() if isinstance(node, Element) else ()
    return {attribute.name: attribute.value for attribute in attributes if attribute.name.startswith("xmlns:")}


def _companion(item: Attr | Element) -> str | None:
    """What a property speaks of that does not stay with the picture, or holds of its pixels; None for all others."""
    namespace, name = item.namespaceURI or "", item.localName or ""
    if namespace == CAMERA and name.startswith(("MotionPhoto", "MicroVideo")):
        return "motion-photo video"
    if namespace == BASIC and name == "Thumbnails":
        return "thumbnail"
    for start, what in COMPANIONS.items():
        if namespace.startswith(start):
            semantics = re.findall(r'Semantic(?:="|>)(\w+)', item.toxml()) if isinstance(item, Element) else []
            return next((SEMANTICS[semantic] for semantic in semantics if semantic in SEMANTICS), what)
    return "thumbnail" if embedded.in_text(item.value if isinstance(item, Attr) else item.toxml()) else None


def _untrue(item: Attr | Element, facts: Facts) -> bool:
    """Whether a property tells of colours or samples that the picture has no more, or of an extended packet: that is announced when one is made."""
    name = (item.namespaceURI, item.localName)
    untrue = {(NOTE, "HasExtendedXMP")}
    untrue |= {(PHOTOSHOP, "ICCProfile"), *((TIFF, word) for word in COLOURS)} if facts.srgb else set()
    untrue |= {(TIFF, "BitsPerSample")} if facts.rounded or facts.cmyk else set()
    untrue |= {(TIFF, "PhotometricInterpretation"), (TIFF, "SamplesPerPixel")} if facts.cmyk else set()
    return name in untrue


def _fact(item: Attr | Element, facts: Facts) -> str | None:
    """What a property has to say of the picture; None where it says nothing that can have become untrue."""
    width, height = str(facts.width), str(facts.height)
    name = (item.namespaceURI, item.localName)
    if name == (TIFF, "Orientation") and facts.upright:
        return "1"
    if name == (EXIF, "ColorSpace") and facts.srgb:
        return "1"
    if name == (PHOTOSHOP, "ColorMode") and facts.cmyk:
        return "3"  # RGB
    sizes = {(TIFF, "ImageWidth"): width, (TIFF, "ImageLength"): height, (EXIF, "PixelXDimension"): width, (EXIF, "PixelYDimension"): height}
    return sizes.get((item.namespaceURI or "", item.localName))


def _turn_regions(parsed: Packet, facts: Facts) -> None:
    """Turn with the picture its resolution and the regions of faces and things; those in pixels or of other shapes are left out."""
    if facts.on_its_side:
        for node in parsed.descriptions:
            _swap(parsed, node, TIFF, "XResolution", "YResolution")
    for holder, item in list(parsed.properties()):
        if not isinstance(item, Element):
            continue
        if (item.namespaceURI, item.localName) == (REGIONS, "Regions"):
            turned = sum(not _turn_area(parsed, node, facts.turned) for node in _holders(item, AREA, "x")) == 0
            if turned and facts.on_its_side:
                for node in _holders(item, DIMENSIONS, "w"):
                    _swap(parsed, node, DIMENSIONS, "w", "h")
        elif any(_holders(item, MICROSOFT_REGION, "Rectangle")):
            turned = sum(not _turn_rectangle(parsed, node, facts.turned) for node in _holders(item, MICROSOFT_REGION, "Rectangle")) == 0
        elif (item.namespaceURI, item.localName) in {(EXIF, "SubjectArea"), (EXIF, "SubjectLocation")}:
            turned = _turn_subject(parsed, item, facts)
        elif (item.namespaceURI, item.localName) == (IPTC_EXTENSION, "ImageRegion"):
            turned = False
        else:
            continue
        parsed.changed = True
        if not turned:
            parsed.left_out.append("regions of faces or things")
            parsed.remove(holder, item)


def _holders(item: Element, namespace: str, name: str) -> list[Element]:
    """The elements in a property that have a field, as an attribute or as an element within them."""
    nodes = [item, *[node for node in item.getElementsByTagName("*") if isinstance(node, Element)]]
    return [node for node in nodes if _field(node, namespace, name) is not None]


def _field(node: Element, namespace: str, name: str) -> Attr | Element | None:
    attribute = node.getAttributeNodeNS(namespace, name)
    if attribute is not None:
        return attribute
    children = [child for child in node.childNodes if isinstance(child, Element)]
    return next((child for child in children if (child.namespaceURI, child.localName) == (namespace, name)), None)


def _turn_area(parsed: Packet, node: Element, orientation: int) -> bool:
    """Turn a region of the Metadata Working Group: its centre and extent, in parts of the picture."""
    fields = {name: _field(node, AREA, name) for name in ("x", "y", "w", "h", "unit")}
    unit = fields["unit"]
    try:
        across, down = (float(_text(fields[name])) for name in ("x", "y"))  # type: ignore[arg-type]
    except (TypeError, ValueError, AttributeError):
        return False
    if unit is not None and _text(unit).strip() != "normalized":
        return False
    for name, value in zip(("x", "y"), turned_point(orientation, across, down), strict=True):
        parsed.set(fields[name], f"{value:.6g}")  # type: ignore[arg-type]
    if orientation >= 5 and fields["w"] is not None and fields["h"] is not None:
        _swap(parsed, node, AREA, "w", "h")
    return True


def _turn_rectangle(parsed: Packet, node: Element, orientation: int) -> bool:
    """Turn a region of Microsoft's: its left, top, width and height, in parts of the picture."""
    item = _field(node, MICROSOFT_REGION, "Rectangle")
    try:
        left, top, width, height = (float(part) for part in _text(item).split(","))  # type: ignore[arg-type]
    except ValueError:
        return False
    corners = [turned_point(orientation, left, top), turned_point(orientation, left + width, top + height)]
    (first, last), (upper, lower) = (sorted(pair) for pair in zip(*corners, strict=True))
    parsed.set(item, f"{first:.6g}, {upper:.6g}, {last - first:.6g}, {lower - upper:.6g}")  # type: ignore[arg-type]
    return True


def _turn_subject(parsed: Packet, item: Element, facts: Facts) -> bool:
    """Turn EXIF's place of the subject, a sequence of whole numbers."""
    parts = [node for node in item.getElementsByTagNameNS(RDF, "li") if isinstance(node, Element)]
    try:
        numbers = [int(_text(part)) for part in parts]
    except ValueError:
        return False
    for part, number in zip(parts, turned_area(facts.turned, numbers, facts.width, facts.height), strict=True) if len(parts) >= 2 else ():
        parsed.set(part, str(number))
    return len(parts) >= 2


def _swap(parsed: Packet, node: Element, namespace: str, first: str, second: str) -> None:
    one, other = _field(node, namespace, first), _field(node, namespace, second)
    if one is not None and other is not None:
        texts = _text(one), _text(other)
        parsed.set(one, texts[1])
        parsed.set(other, texts[0])
