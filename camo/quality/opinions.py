"""People's opinions of photos: any CSV with a column of file names and one of scores."""

import argparse
import csv
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from camo import CamoError

NAME_COLUMNS = ("image_name", "Image Name", "name", "image")
SCORE_COLUMNS = ("MOS", "mos", "score")


@dataclass(frozen=True)
class Opinion:
    """A photo and the mean of what its observers said, on 0..100, higher is better."""

    path: Path
    score: float


@dataclass(frozen=True)
class Columns:
    """Where a CSV says what.

    Attributes:
        name, score: columns of the file's name and of the mean opinion; empty: the first of ``NAME_COLUMNS``, ``SCORE_COLUMNS`` that is there.
        scale: the mean opinions that become 0 and 100.
        split: a column and the value that it must have, as ("set", "training"); none: every row.
    """

    name: str = ""
    score: str = ""
    scale: tuple[float, float] = (0.0, 100.0)
    split: tuple[str, str] | None = None


def read_opinions(table: Path, folder: Path, columns: Columns, faults: list[str]) -> list[Opinion]:
    """The rows of a table whose photos are in the folder or below it, in the table's order; a name's case does not matter.

    A row that cannot be used (no number, no such photo) is added to ``faults`` in one line.

    Raises CamoError: a file or folder that cannot be read, columns that are not there, no usable row.
    """
    try:
        files = {path.name.lower(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CamoError(f"{str(table)!r}: cannot be read as a table of opinions ({error})") from error
    header = list(rows[0]) if rows else []
    name = _column(table, header, columns.name, NAME_COLUMNS, "name")
    score = _column(table, header, columns.score, SCORE_COLUMNS, "score")
    if columns.split:
        split, wanted = columns.split
        _column(table, header, split, (), "split")
        rows = [row for row in rows if row[split] == wanted]
    low, high = columns.scale
    if low == high:
        raise CamoError(f"--scale {low:g} {high:g}: should be two different opinions")
    opinions = []
    for row in rows:
        try:
            opinion = 100 * (float(row[score]) - low) / (high - low)
            if not math.isfinite(opinion):
                raise ValueError
            opinions.append(Opinion(files[(row[name] or "").strip().lower()], opinion))
        except KeyError:
            faults.append(f"{str(table)!r}: {row[name]!r}: no such photo in {str(folder)!r}")
        except (TypeError, ValueError):
            faults.append(f"{str(table)!r}: {row[name]!r}: its score {row[score]!r} is not a number")
    if not opinions:
        raise CamoError(f"{str(table)!r}: no row with a photo in {str(folder)!r}")
    return opinions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that say where opinions are."""
    parser.add_argument("--opinions", type=Path, required=True, metavar="CSV", help="table with a column of file names and one of mean opinions")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER", help="folder of the photos, searched recursively")
    parser.add_argument("--name-column", default="", metavar="NAME", help=f"default: the first of {', '.join(NAME_COLUMNS)}")
    parser.add_argument("--score-column", default="", metavar="NAME", help=f"default: the first of {', '.join(SCORE_COLUMNS)}")
    parser.add_argument(
        "--scale", type=float, nargs=2, default=(0.0, 100.0), metavar=("LOW", "HIGH"), help="opinions that become 0 and 100 (default: 0 100)"
    )
    parser.add_argument("--split", nargs=2, metavar=("COLUMN", "VALUE"), help="only the rows with this value in this column")


def from_arguments(args: argparse.Namespace) -> list[Opinion]:
    """The opinions that the flags name; rows that cannot be used are reported on the standard error. Raises CamoError like ``read_opinions``."""
    faults: list[str] = []
    split = (args.split[0], args.split[1]) if args.split else None
    opinions = read_opinions(args.opinions, args.photos, Columns(args.name_column, args.score_column, tuple(args.scale), split), faults)
    sys.stderr.writelines(f"left out: {fault}\n" for fault in faults)
    return opinions


def _column(table: Path, header: list[str], wanted: str, usual: Iterable[str], what: str) -> str:
    for name in [wanted] if wanted else usual:
        if name in header:
            return name
    raise CamoError(f"{str(table)!r}: no {what} column {wanted or ' or '.join(usual)!r} among {', '.join(map(repr, header))}")
