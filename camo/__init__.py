"""camo: quality camouflage for photographs, in one forward pass.

From Python::

    import camo
    from PIL import Image

    photo = Image.open("photo.jpg")
    filtered = camo.load_filter()(photo)
    print(camo.load_quality()(photo), camo.load_quality()(filtered))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camo.api import load_filter, load_quality

__version__ = "0.1.0"
__all__ = ["CamoError", "load_filter", "load_quality"]


class CamoError(Exception):
    """A fault in what the user gave (a file, a value), told in one line; command lines print it without a traceback."""


def __getattr__(name: str) -> Any:
    """Import the public interface, and torch with it, only once it is used, so that ``import camo`` costs nothing."""
    if name in {"load_filter", "load_quality"}:
        from camo import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
