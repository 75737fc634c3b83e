"""The task's official lists of image names. Where a file goes follows from them alone, so their names must be plain (``PHOTO_NAME``)."""

import csv
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from camo import CamoError
from camo.photos.files import reason

LISTS_SOURCE = (
    "the MEPP20*.csv lists are in MEPP20labels/ on the task's page, github.com/multimediaeval/2020-Pixel-Privacy-Task; "
    "koniq10k_distributions_sets.csv is in metadata/ on the KonIQ-10k page, github.com/subpic/koniq"
)
PHOTO_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.jpg")


@contextmanager
def opened_list(path: Path) -> Iterator[TextIO]:
    """Open a CSV list to read. Raises CamoError where it is missing or cannot be read, also within the with-block."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError:
        raise CamoError(f"{path}: no such file; {LISTS_SOURCE}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise CamoError(f"{path}: {reason(error)}") from None


def read_list(path: Path, official: int) -> list[str]:
    """Read a list with one name per line and no header; ``official`` is the number of names in the official list. Raises CamoError."""
    with opened_list(path) as file:
        return checked_names(path, (row[0] for row in csv.reader(file) if row), official)


def checked_names(path: Path, names: Iterable[str], official: int) -> list[str]:
    """Return the names, each once, in order; print a warning where their number is not the official one.

    Raises:
        CamoError: a name that is not plain, or no name at all.
    """
    checked = list(dict.fromkeys(names))
    for name in checked:
        if not PHOTO_NAME.fullmatch(name):
            raise CamoError(f"{path}: {reprlib.repr(name)} is not the plain name of a .jpg file")
    if not checked:
        raise CamoError(f"{path}: lists no image")
    if len(checked) != official:
        print(f"warning: {path}: lists {len(checked)} images, the official list {official}", file=sys.stderr)
    return checked
