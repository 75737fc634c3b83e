"""What several verbs do with their arguments: types, ``--device``, and checks of ``--out``."""

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from camo import CamoError
from camo.filter.look_settings import LookChoice, parse_look
from camo.photos import MAX_PIXELS


def jpeg_quality(text: str) -> int:
    """Parse a JPEG quality, 1..100; argparse reports any other value as wrong usage."""
    quality = int(text)
    if not 1 <= quality <= 100:
        raise argparse.ArgumentTypeError(f"{quality} is not a JPEG quality, 1..100")
    return quality


def positive(text: str) -> int:
    """Parse a whole number of 1 or more; argparse reports any other value as wrong usage."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the limit on the size of a photo."""
    help_text = f"pixels of the largest photo that is read (default: {MAX_PIXELS})"
    parser.add_argument("--max-pixels", type=positive, default=MAX_PIXELS, metavar="N", help=help_text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device, whose name ``camo.device.choose`` takes."""
    parser.add_argument("--device", metavar="D", help="cpu, cuda or mps (default: cuda if there is a GPU, else mps, else cpu)")


def look(text: str) -> LookChoice | None:
    """Parse a look, NAME or NAME:AMOUNT; argparse reports anything else as wrong usage."""
    try:
        return parse_look(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def look_or_auto(text: str) -> LookChoice | None:
    """The same, where ``auto`` is a look as well."""
    try:
        return parse_look(text, auto=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def refuse_existing(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raise CamoError where one of the files to write is in the folder already and ``overwrite`` is not set."""
    if not overwrite and (there := [name for name in names if os.path.lexists(folder / name)]):
        raise CamoError(f"{folder}: holds {', '.join(there)} already; give --overwrite or another --out")
