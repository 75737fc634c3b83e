"""camo: quality camouflage for photographs, in one forward pass."""

__version__ = "0.1.0"


class CamoError(Exception):
    """A fault in what the user gave (a file, a value), told in one line; command lines print it without a traceback."""
