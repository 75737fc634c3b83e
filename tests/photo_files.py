"""Small photo files for the tests of ``camo.photos``, put together here byte by byte, with as little as possible of what is being tested."""

import base64
import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageCms

from camo.photos.images import read

WIDTH, HEIGHT = 48, 32
SRGB_ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
KINDS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 7: "s", 9: "i"}


def picture(mode="RGB", size=(WIDTH, HEIGHT)):
    """A smooth picture without any symmetry; its alpha is a ramp."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    rgb = np.stack([x * 240 // size[0], y * 220 // size[1], 255 - x * 90 // size[0] - y * 90 // size[1]], axis=-1).astype(np.uint8)
    result = Image.fromarray(rgb).convert(mode)
    if mode.endswith("A"):
        result.putalpha(Image.fromarray((x * 240 // size[0]).astype(np.uint8)))
    return result


PIXELS = torch.from_numpy(np.array(picture())).permute(2, 0, 1).contiguous()


def photo_of(tmp_path, content):
    """What the package reads from a file of this content."""
    (tmp_path / "photo").write_bytes(content)
    return read(tmp_path / "photo")


def saved(image, file_format, **options):
    """The file that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def thumbnail(quality=60):
    """A JPEG of a smaller copy of the picture."""
    return saved(picture(size=(24, 16)), "JPEG", quality=quality)


def tags(*directories, order="<", at=8):
    """A chain of TIFF directories, the first at an offset. Each is {tag: (type, values)}; a dict as the values is a directory that the tag points to.

    A bytes value of a type other than text is written as it is.
    """
    result = b""
    for number, directory in enumerate(directories):
        start = at + len(result)
        heap_at, entries, heap = start + 2 + 12 * len(directory) + 4, b"", b""
        for tag, (kind, values) in sorted(directory.items()):
            if isinstance(values, dict):
                block = tags(values, order=order, at=heap_at + len(heap))
                entries += struct.pack(order + "HHII", tag, 4, 1, heap_at + len(heap))
                heap += block + b"\0" * (len(block) % 2)
                continue
            if isinstance(values, bytes):
                data, count = values, len(values)
            else:
                values = values if isinstance(values, tuple) else (values,)
                data = struct.pack(f"{order}{len(values)}{KINDS[kind][0]}", *values)
                count = len(values) // len(KINDS[kind])
            if len(data) > 4:
                entries += struct.pack(order + "HHII", tag, kind, count, heap_at + len(heap))
                heap += data + b"\0" * (len(data) % 2)
            else:
                entries += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
        last = number == len(directories) - 1
        result += struct.pack(order + "H", len(directory)) + entries + struct.pack(order + "I", 0 if last else heap_at + len(heap)) + heap
    return result


def exif(*directories, order="<"):
    """An EXIF block, beginning with its TIFF header."""
    return struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8) + tags(*directories, order=order)


def exif_with_thumbnail(main, jpeg, order="<", **more):
    """An EXIF block whose second directory is a thumbnail."""
    block = exif(main, {259: (3, 6), 513: (4, 0), 514: (4, len(jpeg))}, order=order)
    return block.replace(struct.pack(order + "HHII", 513, 4, 1, 0), struct.pack(order + "HHII", 513, 4, 1, len(block))) + jpeg


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(*segments, image=None, after=b"", **options):
    """A JPEG file with segments behind JFIF's."""
    content = saved(image or picture(), "JPEG", quality=95, subsampling="4:4:4", **options)
    return content[:20] + b"".join(segments) + content[20:] + after


def jpeg_exif(block):
    return segment(0xE1, b"Exif\0\0" + block)


def jpeg_xmp(packet):
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks, image=None):
    """A PNG file with chunks behind its header."""
    content = saved(image or picture(), "PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def webp_with(kind, content, **options):
    """A WebP file with one more chunk."""
    file = saved(picture(), "WEBP", **options) + kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return file[:4] + struct.pack("<I", len(file) - 8) + file[8:]


def resource(number, content):
    """An image resource of Photoshop's."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(content)) + content + b"\0" * (len(content) % 2)


def iptc(**records):
    """IPTC-IIM: city=, caption= ..."""
    numbers = {"caption": 120, "keyword": 25, "city": 90, "copyright": 116}
    return b"".join(b"\x1c\x02" + struct.pack(">BH", numbers[name], len(value)) + value for name, value in records.items())


def tiff(directory, *more, order="<", image=None):
    """An uncompressed TIFF file: its pixels, a chain of pages (more of them without pixels of their own) and their tags."""
    image = image or picture()
    data = image.tobytes()
    main = {256: (3, image.width), 257: (3, image.height), 258: (3, (8, 8, 8)), 259: (3, 1), 262: (3, 2), 273: (4, 8), 277: (3, 3)}
    main |= {278: (3, image.height), 279: (4, len(data)), 284: (3, 1)}
    pages = [main | directory, *(main | page for page in more)]
    header = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return header + data + tags(*pages, order=order, at=8 + len(data))


def xmp(attributes="", elements=""):
    """An XMP packet with attributes and elements in one description, the usual namespaces declared."""
    names = {
        "dc": "http://purl.org/dc/elements/1.1/",
        "tiff": "http://ns.adobe.com/tiff/1.0/",
        "exif": "http://ns.adobe.com/exif/1.0/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
        "xmpNote": "http://ns.adobe.com/xmp/note/",
        "photoshop": "http://ns.adobe.com/photoshop/1.0/",
        "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
        "Container": "http://ns.google.com/photos/1.0/container/",
        "Item": "http://ns.google.com/photos/1.0/container/item/",
        "GCamera": "http://ns.google.com/photos/1.0/camera/",
        "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
        "GImage": "http://ns.google.com/photos/1.0/image/",
        "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
        "stArea": "http://ns.adobe.com/xmp/sType/Area#",
        "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
        "MP": "http://ns.microsoft.com/photo/1.2/",
        "MPRI": "http://ns.microsoft.com/photo/1.2/t/RegionInfo#",
        "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    }
    declared = " ".join(f'xmlns:{name}="{uri}"' for name, uri in names.items())
    body = f'<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" {declared} {attributes}>{elements}</rdf:Description></rdf:RDF>'
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{body}</x:xmpmeta>'.encode()


def xmp_thumbnails(data):
    text = base64.b64encode(data).decode()
    return (
        '<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource"><xmpGImg:format>JPEG</xmpGImg:format>'
        f"<xmpGImg:image>{text}</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>"
    )
