"""What an image of the task's sets is: 512x384 pixels, or twice that to train on; how it is checked, and how it is cut from a larger photo."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from camo import CamoError
from camo.photos.files import reason

SIZE = (512, 384)  # (width, height) in pixels of every image of both sets
LARGE = (1024, 768)  # of KonIQ-10k's originals, from which its 512x384 images were made


def checked_jpeg(data: bytes, size: tuple[int, int] = SIZE) -> bytes:
    """Return ``data`` itself, a JPEG of that size (width, height) that decodes; CamoError otherwise."""
    _check_image(io.BytesIO(data), "JPEG", size)
    return data


def cropped_png(data: bytes) -> bytes:
    """Return the centre 512x384 of a JPEG as an RGB PNG, pixels as stored (no rotation by EXIF), odd margins rounded half to even.

    Raises:
        CamoError: ``data`` does not decode as JPEG, or the photo is smaller than the crop (the task's script would pad it with black).
    """
    with _opened(io.BytesIO(data), "JPEG") as image:
        if image.width < SIZE[0] or image.height < SIZE[1]:
            raise CamoError(f"{image.width}x{image.height} pixels, smaller than the crop of {SIZE[0]}x{SIZE[1]}")
        left, top = round((image.width - SIZE[0]) / 2), round((image.height - SIZE[1]) / 2)
        crop = image.convert("RGB").crop((left, top, left + SIZE[0], top + SIZE[1]))
    png = io.BytesIO()
    crop.save(png, "PNG")
    return png.getvalue()


def _check_image(source: Path | io.BytesIO, kind: str, size: tuple[int, int]) -> None:
    with _opened(source, kind) as image:
        if image.size != size:
            raise CamoError(f"{image.width}x{image.height} pixels instead of {size[0]}x{size[1]}")
        image.load()


def is_whole(path: Path, size: tuple[int, int] = SIZE) -> bool:
    """Whether a file, .jpg or .png by its name, is an image of that size (width, height) that decodes."""
    try:
        _check_image(path, {".jpg": "JPEG", ".png": "PNG"}[path.suffix], size)
    except CamoError:
        return False
    return True


@contextmanager
def _opened(source: Path | io.BytesIO, kind: str) -> Iterator[Image.Image]:
    """Open an image without decoding it yet; whatever Pillow finds wrong, now or in the with-block, is a CamoError."""
    errors = (OSError, EOFError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)
    with warnings.catch_warnings(action="ignore"):  # Pillow's remarks on odd EXIF say nothing about the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(source, formats=[kind]) as image:
                yield image
        except UnidentifiedImageError:  # Pillow's text would name a Python object
            raise CamoError(f"not a {kind} image") from None
        except errors as error:
            raise CamoError(f"not a whole {kind} image: {reason(error)}") from None
