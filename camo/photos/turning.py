"""Orientation, as EXIF numbers it: 1 upright, 2 to 8 mirrored or on its side (CIPA DC-008, tag 274; TIFF 6.0)."""

from collections.abc import Sequence

from PIL import Image

UPRIGHT = {  # orientation -> the operation that turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turned_point(orientation: int, across: float, down: float, width: float = 1, height: float = 1) -> tuple[float, float]:
    """Where a point of the stored picture, of this width and height, comes to lie when the picture is turned upright."""
    mirrored, below = width - across, height - down
    return {
        2: (mirrored, down),
        3: (mirrored, below),
        4: (across, below),
        5: (down, across),
        6: (below, across),
        7: (below, mirrored),
        8: (down, mirrored),
    }.get(orientation, (across, down))


def turned_area(orientation: int, numbers: Sequence[int], width: int, height: int) -> list[int]:
    """EXIF's place of the subject, across and down and perhaps its extent, in a picture that was turned upright to this width and height (px)."""
    stored = (height, width) if orientation >= 5 else (width, height)
    across, down = turned_point(orientation, numbers[0], numbers[1], *stored)
    extent = tuple(reversed(numbers[2:4])) if orientation >= 5 and len(numbers) == 4 else numbers[2:]
    return [min(max(round(value), 0), 65535) for value in (across, down, *extent)]
