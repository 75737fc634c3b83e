"""The verb ``score``: scores and classes of photos, of one quality model or several side by side, before and after a real JPEG.

Photos pass one by one: each line of the table is printed, and each entry of the JSON and CSV files written, as soon as it is known. The two files
appear under their names at the end, whole; an interrupted run leaves neither.

- ``--json``: a list with an object for each photo. With one model ``{"path", "score", "score_after"}``; with several
  ``{"path", "scores": {MODEL: {"score", "score_after"}}}``, MODEL being what ``--biqa`` named. ``score_after`` is null without ``--jpeg``.
- ``--csv``: columns ``path, model, score, score_after`` and a line for each photo and model; ``score_after`` is empty without ``--jpeg``.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from camo import CamoError
from camo.photos.files import atomic_write, reason
from camo.photos.images import find_photos, jpeg_roundtrip, read, to_float
from camo.quality import models

SELF_CHECK_TOLERANCE = 0.1  # points; the published scores have five decimals, decoders of JPEG differ a little
UNSCORABLE = (OSError, RuntimeError, torch.jit.Error)  # a side too long for JPEG, too little memory, a size that a foreign model refuses

Scores = dict[str, dict[str, float | None]]  # model -> score and score_after, the latter None without a JPEG quality
Sink = Callable[[Path, Scores], None]  # takes the scores of one photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="photos, or folders of them, recursively")
    parser.add_argument(
        "--biqa", action="append", metavar="MODEL", help="bundled, koncept512[:FILE] or FILE.ts; give it again for more models (default: bundled)"
    )
    parser.add_argument("--jpeg", type=jpeg_quality, metavar="Q", help="score again after Pillow's JPEG 4:2:0 at this quality, 1..100")
    parser.add_argument("--threshold", type=float, default=models.THRESHOLD, help="high quality starts above this score (default: 50)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write a list of objects with path, score and score_after there; with several models path and scores: {MODEL: {score, score_after}}",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write path, model, score and score_after there, a line for each photo and model")
    parser.add_argument("--overwrite", action="store_true", help="replace the --json and --csv files if they exist")
    parser.add_argument("--self-check", action="store_true", help="compare KonCept512 with its four published scores")
    parser.add_argument("--koniq", type=Path, metavar="DIR", help="folder with KonIQ-10k's 512x384 images, for --self-check")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")


def jpeg_quality(text: str) -> int:
    """Parse a JPEG quality, 1..100; argparse tells the user when it is none."""
    quality = int(text)
    if not 1 <= quality <= 100:
        raise argparse.ArgumentTypeError(f"{quality} is not a JPEG quality, 1..100")
    return quality


def check_device(device: str) -> None:
    """Raise CamoError for a device that torch does not know or cannot use here, such as cuda without a GPU."""
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError) as error:  # the one where torch was built without it, the other where it is not there
        raise CamoError(f"--device {device}: cannot be used: {reason(error):.200}") from error


def run(args: argparse.Namespace) -> int:
    """Score; the exit status is 1 when a photo could not be scored or the self-check failed.

    Raises:
        CamoError: no photo is named, a path, model or device is not there, or a file to write exists or cannot be written.
    """
    check_device(args.device)
    if args.self_check:
        return self_check(args)
    if not args.paths:
        raise CamoError("name the photos or folders to score")
    photos = find_photos(args.paths)
    faults = 0
    with ExitStack() as stack:  # the files come before the models, whose loading takes longer than a refusal
        files = ((json_sink, args.json), (csv_sink, args.csv))
        sinks = [stack.enter_context(sink(file, args.overwrite)) for sink, file in files if file]
        scorers = {spec: models.load(spec, args.device) for spec in dict.fromkeys(args.biqa or ["bundled"])}
        table = Table(scorers, args.jpeg, args.threshold)
        for photo in tqdm(photos, desc="score", unit="photo", disable=None):
            try:
                scores = score_file(scorers, photo.path, args.jpeg, args.device)
            except CamoError as error:
                tqdm.write(f"error: {error}", file=sys.stderr)
                faults += 1
                continue
            for take in (table.add, *sinks):
                take(photo.path, scores)
    table.print_summary()
    return 1 if faults else 0


@torch.inference_mode()
def score_file(scorers: Mapping[str, nn.Module], path: Path, quality: int | None, device: str) -> Scores:
    """Score one photo with every model, also after JPEG if a quality, 1..100, is given. Raises CamoError where it cannot be read or scored."""
    try:
        image = to_float(read(path).pixels)[None].to(device)
        after = jpeg_roundtrip(image, quality) if quality else None
        return {
            spec: {"score": finite(scorer(image).item()), "score_after": None if after is None else finite(scorer(after).item())}
            for spec, scorer in scorers.items()
        }
    except UNSCORABLE as error:
        raise CamoError(f"{str(path)!r}: cannot be scored: {said(error)}") from error


def said(error: Exception) -> str:
    """One of ``UNSCORABLE`` in a line of 200 characters at most."""
    text = str(error).splitlines()[-1] if isinstance(error, torch.jit.Error) else reason(error)  # TorchScript's begin with a traceback
    return text[:200]


def finite(score: float) -> float:
    """The score. Raises RuntimeError where a foreign model gave none: JSON has no NaN, and no mean could hold it."""
    if not math.isfinite(score):
        raise RuntimeError(f"the quality model gave {score}")
    return score


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
    """Prints a header, a line a photo (score and class by each model, the same after JPEG, path), and at the end a line a model."""

    def __init__(self, specs: Iterable[str], quality: int | None, threshold: float) -> None:
        self.quality = quality
        kinds = ("score", "score_after") if quality else ("score",)
        self.tallies = {spec: {kind: Tally(threshold) for kind in kinds} for spec in specs}
        headings = [spec if kind == "score" else f"JPEG{quality:3}" for spec in self.tallies for kind in kinds]
        self.widths = [max(7, len(heading)) for heading in headings]
        self._print([f"{heading:>{width}}  class" for heading, width in zip(headings, self.widths, strict=True)], "photo")

    def add(self, photo: Path, scores: Scores) -> None:
        """Print a photo's line and count its scores."""
        columns = [(tally, scores[spec][kind]) for spec, tallies in self.tallies.items() for kind, tally in tallies.items()]
        cells = []
        for (tally, score), width in zip(columns, self.widths, strict=True):
            tally.add(score)
            cells.append(f"{score:{width}.2f}  {'high' if score > tally.threshold else 'low':5}")
        self._print(cells, str(photo))

    def print_summary(self) -> None:
        """Print the number of photos, the mean score and the share above the threshold by each model."""
        for spec, tallies in self.tallies.items():
            before, *after = tallies.values()
            print(f"{spec}: {before.count} photos, {before}" + "".join(f"; after JPEG {self.quality}: {tally}" for tally in after))

    def _print(self, cells: list[str], name: str) -> None:
        tqdm.write("   ".join([*cells, name]))
        sys.stdout.flush()  # through a pipe too, lines should come as they are known


@contextmanager
def json_sink(file: Path, overwrite: bool) -> Iterator[Sink]:
    """Write a list to a JSON file, an object a photo; the module's text has its form. Raises CamoError as ``atomic_write`` does."""
    with atomic_write(file, overwrite) as part, part.open("w") as out:
        before = "[\n "

        def add(photo: Path, scores: Scores) -> None:
            nonlocal before
            (only, *others) = scores.values()
            out.write(before + json.dumps({"path": str(photo)} | ({"scores": scores} if others else only), allow_nan=False))
            before = ",\n "

        yield add
        out.write("[]\n" if before.startswith("[") else "\n]\n")


@contextmanager
def csv_sink(file: Path, overwrite: bool) -> Iterator[Sink]:
    """Write a CSV file in UTF-8, a line for each photo and model; the module's text has its columns. Raises CamoError as ``atomic_write`` does."""
    with atomic_write(file, overwrite) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as out:
        table = csv.writer(out)
        table.writerow(["path", "model", "score", "score_after"])

        def add(photo: Path, scores: Scores) -> None:
            table.writerows([photo, spec, one["score"], one["score_after"]] for spec, one in scores.items())

        yield add


def self_check(args: argparse.Namespace) -> int:
    """Score KonIQ-10k's four images whose scores were published; exit status 0 when all agree."""
    if args.koniq is None:
        raise CamoError("--self-check needs --koniq DIR, the folder with KonIQ-10k's 512x384 images")
    spec = next((spec for spec in args.biqa or () if spec.startswith("koncept512")), "koncept512")
    missing = [name for name in models.KONCEPT512_PUBLISHED if not (args.koniq / name).is_file()]
    if missing:
        raise CamoError(f"{args.koniq}: {missing[0]} is not there; --koniq names the folder 512x384 of koniq10k_512x384.zip")
    scorers = {spec: models.load(spec, args.device)}
    apart = []
    for name, published in models.KONCEPT512_PUBLISHED.items():
        score = score_file(scorers, args.koniq / name, None, args.device)[spec]["score"]
        apart.append(abs(score - published))
        print(f"{name:16}  published {published:.5f}  here {score:.5f}  apart {apart[-1]:.5f}")
    agree = max(apart) <= SELF_CHECK_TOLERANCE
    print(f"{'agrees' if agree else 'DISAGREES'} within {SELF_CHECK_TOLERANCE} points")
    return 0 if agree else 1
