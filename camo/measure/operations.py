"""What happens to photos once they are shared: real operations on 8-bit pictures (Pillow), for measuring.

Training has its own, ``camo.training.channel``.
"""

import functools
import io
import math
from collections.abc import Callable

from PIL import Image, ImageFilter, ImageOps

from camo.photos.formats import opened

Operation = Callable[[Image.Image], Image.Image]


def compress(picture: Image.Image, file_format: str, **options: int | str) -> Image.Image:
    """The picture after a file of this format with Pillow's ``save`` options, read again."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return opened(buffer.getvalue(), file_format).convert("RGB")


def jpeg(quality: int, subsampling: str = "4:2:0") -> Operation:
    """JPEG at a quality of 1..100."""
    return functools.partial(compress, file_format="JPEG", quality=quality, subsampling=subsampling)


def there_and_back(factor: float) -> Operation:
    """Resized by a factor, then to the old size, bicubic with antialiasing."""

    def operation(picture: Image.Image) -> Image.Image:
        small = picture.resize([max(1, round(side * factor)) for side in picture.size], Image.Resampling.BICUBIC)
        return small.resize(picture.size, Image.Resampling.BICUBIC)

    return operation


def rotate_and_back(degrees: float) -> Operation:
    """Rotated and turned back, bicubic; the margin that fell off the canvas is cut off."""

    def operation(picture: Image.Image) -> Image.Image:
        turned = picture.rotate(degrees, Image.Resampling.BICUBIC).rotate(-degrees, Image.Resampling.BICUBIC)
        margin = math.ceil(math.sin(math.radians(degrees)) * max(picture.size) / 2) + 1
        return ImageOps.crop(turned, min(margin, (min(picture.size) - 1) // 2))

    return operation


def shift(pixels: int) -> Operation:
    """So many pixels cut off at the top and the left: whatever grid a scorer lays starts elsewhere."""
    return lambda picture: picture.crop((pixels, pixels, *picture.size))


def at_most(pixels: int) -> Operation:
    """Reduced until no side is longer than so many pixels, as platforms do with large photos."""
    return lambda picture: ImageOps.contain(picture, (pixels, pixels), Image.Resampling.LANCZOS) if max(picture.size) > pixels else picture


def centre(width: int, height: int) -> Operation:
    """The centre of the picture at full resolution, which is all that KonCept512 sees of a larger photo."""

    def operation(picture: Image.Image) -> Image.Image:
        left, top = max(0, picture.width - width) // 2, max(0, picture.height - height) // 2
        return picture.crop((left, top, min(picture.width, left + width), min(picture.height, top + height)))

    return operation


def in_turn(*operations: Operation) -> Operation:
    """One operation after the other."""
    return lambda picture: functools.reduce(lambda result, operation: operation(result), operations, picture)


GRID: dict[str, Operation] = {
    "none": lambda picture: picture,
    **{f"JPEG {quality}": jpeg(quality) for quality in (95, 90, 85, 80, 75, 70, 60, 50)},
    **{f"JPEG {quality} 4:4:4": jpeg(quality, "4:4:4") for quality in (95, 90, 85, 80, 75, 70, 60, 50)},
    "JPEG 80, then 90": in_turn(jpeg(80), jpeg(90)),
    "WebP 80": functools.partial(compress, file_format="WEBP", quality=80),
    "resize 1.5 and back": there_and_back(1.5),
    "resize 0.75 and back": there_and_back(0.75),
    "resize 0.5 and back": there_and_back(0.5),
    "blur, sigma 0.5": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.5)),
    "blur, sigma 1": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "median 3": lambda picture: picture.filter(ImageFilter.MedianFilter(3)),
    "6 bits": lambda picture: ImageOps.posterize(picture, 6),
    "5 bits": lambda picture: ImageOps.posterize(picture, 5),
    "flip": ImageOps.mirror,
    "2 degrees and back": rotate_and_back(2),
    "shift by 4 px": shift(4),
    "at most 2048 px, JPEG 85": in_turn(at_most(2048), jpeg(85)),
    "centre 512x384, JPEG 90": in_turn(centre(512, 384), jpeg(90)),
}
QUICK = ("none", "JPEG 90", "JPEG 75", "WebP 80", "resize 0.5 and back", "flip")
HEADLINE = ("JPEG 90", "JPEG 75")  # the task's channel, and a rougher platform's
