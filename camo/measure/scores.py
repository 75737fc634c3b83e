"""Scores of photos by one quality model or several, before and after a real JPEG, and the table, JSON and CSV that they are written to.

- JSON: a list with one object per photo. With one model ``{"path", "score", "score_after"}``; with several
  ``{"path", "scores": {MODEL: {"score", "score_after"}}}``. ``score_after`` is null without a JPEG.
- CSV: columns ``path, model, score, score_after`` and one line per photo and model; ``score_after`` is empty without a JPEG.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

import torch
from torch import nn
from tqdm import tqdm

from camo.measure.after import scores_after, unscorable
from camo.measure.formats import csv_path, printable
from camo.photos.files import atomic_write
from camo.photos.images import MAX_PIXELS, read

STDOUT = Path("-")


class Score(NamedTuple):
    """The score of a photo, and that of what a JPEG leaves of it; None where no JPEG was asked for."""

    score: float
    score_after: float | None


Scores = Mapping[str, Score]  # by model
Sink = Callable[[Path, Scores], None]  # takes the scores of one photo


def score_file(
    scorers: Mapping[str, nn.Module], path: Path, quality: int | None, device: torch.device | str, max_pixels: int = MAX_PIXELS
) -> dict[str, Score]:
    """Score one photo with every model, also after JPEG 4:2:0 if a quality, 1..100, is given. Raises CamoError where it cannot be read or scored."""
    with unscorable(f"{str(path)!r}: cannot be scored"):
        pixels = read(path, max_pixels).pixels[None]

        def scored(scorer: nn.Module, operation: str | int) -> float:
            (score,) = scores_after(scorer, pixels, operation, device)
            return score

        return {spec: Score(scored(scorer, "none"), scored(scorer, quality) if quality else None) for spec, scorer in scorers.items()}


@dataclass
class Tally:
    """Running figures of a column of scores."""

    threshold: float
    count: int = 0
    total: float = 0.0
    above: int = 0

    def add(self, score: float) -> None:
        """Count one score."""
        self.count += 1
        self.total += score
        self.above += score > self.threshold

    def __str__(self) -> str:
        if not self.count:
            return "none scored"
        return f"mean score {self.total / self.count:.2f}, {self.above / self.count:.1%} above {self.threshold:g}"


class Table:
    """Prints a header, one line per photo (score and class by each model, the same after JPEG, path), and at the end one line per model.

    Args:
        specs: the models' names.
        quality: of the JPEG after which photos are scored again; None where they are not.
        threshold: a photo of a higher score is of high quality.
        out: where to print.
    """

    def __init__(self, specs: Iterable[str], quality: int | None, threshold: float, out: TextIO) -> None:
        self.quality, self.out = quality, out
        columns = 2 if quality else 1
        self.tallies = {spec: [Tally(threshold) for _ in range(columns)] for spec in specs}
        headings = [heading for spec in self.tallies for heading in (printable(spec), f"JPEG{quality:3}" if quality else "")[:columns]]
        self.widths = [max(7, len(heading)) for heading in headings]
        self._print([f"{heading:>{width}}  class" for heading, width in zip(headings, self.widths, strict=True)], "photo")

    def add(self, photo: Path, scores: Scores) -> None:
        """Print a photo's line and count its scores."""
        columns = [tally for tallies in self.tallies.values() for tally in tallies]
        values = [score for spec in self.tallies for score in scores[spec] if score is not None]
        cells = []
        for tally, score, width in zip(columns, values, self.widths, strict=True):
            tally.add(score)
            cells.append(f"{score:{width}.2f}  {'high' if score > tally.threshold else 'low':5}")
        self._print(cells, printable(photo))

    def print_summary(self) -> None:
        """Print the number of photos, the mean score and the share above the threshold by each model."""
        for spec, (before, *after) in self.tallies.items():
            compressed = "".join(f"; after JPEG {self.quality}: {tally}" for tally in after)
            print(f"{printable(spec)}: {before.count} photos, {before}{compressed}", file=self.out)

    def _print(self, cells: list[str], name: str) -> None:
        tqdm.write("   ".join([*cells, name]), file=self.out)
        self.out.flush()  # through a pipe too, lines should come as they are known


@contextmanager
def json_sink(file: Path, overwrite: bool) -> Iterator[Sink]:
    """Write a JSON file, ``-`` for the standard output; the module's text has its form. Raises CamoError as ``atomic_write`` does."""
    with _opened(file, overwrite) as out:
        before = "[\n "

        def add(photo: Path, scores: Scores) -> None:
            nonlocal before
            entries = {spec: score._asdict() for spec, score in scores.items()}
            content = {"scores": entries} if len(entries) > 1 else next(iter(entries.values()))
            out.write(before + json.dumps({"path": str(photo)} | content, allow_nan=False))
            out.flush()
            before = ",\n "

        yield add
        out.write("[]\n" if before.startswith("[") else "\n]\n")


@contextmanager
def csv_sink(file: Path, overwrite: bool) -> Iterator[Sink]:
    """Write a CSV file in UTF-8, ``-`` for the standard output; the module's text has its columns. Raises CamoError as ``atomic_write`` does."""
    with _opened(file, overwrite) as out:
        table = csv.writer(out)
        table.writerow(["path", "model", "score", "score_after"])

        def add(photo: Path, scores: Scores) -> None:
            table.writerows([csv_path(photo), csv_path(spec), *score] for spec, score in scores.items())
            out.flush()

        yield add


@contextmanager
def _opened(file: Path, overwrite: bool) -> Iterator[TextIO]:
    """The file, which appears whole at the end, or the standard output for ``-``; in UTF-8, bytes of a name that are none unchanged."""
    if file == STDOUT:
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="surrogateescape", newline="")
        try:
            yield out
        finally:
            out.detach()  # else the standard output would be closed with it
        return
    with atomic_write(file, overwrite) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        yield out
