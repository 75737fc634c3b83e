"""The verb ``score``: scores and classes of photos, by one quality model or several side by side, before and after a real JPEG.

Photos pass one by one: each line of the table is printed, and each entry of the JSON and CSV files written, as soon as it is known. The two files
appear under their names at the end, whole; an interrupted run leaves neither. ``camo.measure.scores`` describes what they hold.
"""

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from camo import CamoError
from camo.device import choose
from camo.measure.scores import STDOUT, Table, csv_sink, json_sink, score_file
from camo.photos.images import find_photos
from camo.quality import SPEC_HELP, koncept512, models
from camo.verbs.arguments import add_device, add_max_pixels, jpeg_quality

SELF_CHECK_TOLERANCE = 0.1  # points; the published scores have five decimals, decoders of JPEG differ a little


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="photos, or folders of them, recursively")
    parser.add_argument("--biqa", action="append", metavar="MODEL", help=f"{SPEC_HELP}; may be given several times (default: bundled)")
    parser.add_argument("--jpeg", type=jpeg_quality, metavar="Q", help="score again after Pillow's JPEG 4:2:0 at this quality, 1..100")
    parser.add_argument("--threshold", type=float, default=models.THRESHOLD, help="scores above it mean high quality (default: 50)")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write a list of objects with path, score and score_after; with several models, path and scores: {MODEL: {score, score_after}}",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write path, model, score and score_after, one line per photo and model")
    parser.add_argument("--overwrite", action="store_true", help="replace the --json and --csv files if they exist")
    parser.add_argument("--self-check", action="store_true", help="compare KonCept512 with its four published scores")
    parser.add_argument("--koniq", type=Path, metavar="DIR", help="folder with KonIQ-10k's 512x384 images, for --self-check")
    add_device(parser)
    add_max_pixels(parser)
    parser.epilog = "FILE may be - for the standard output; the table then goes to the standard error."


def run(args: argparse.Namespace) -> int:
    """Score; the exit status is 1 when a photo could not be scored or the self-check failed.

    Raises:
        CamoError: no photo is named, a path, model or device is not there, or a file to write exists or cannot be written.
    """
    args.device = choose(args.device)
    if args.self_check:
        return self_check(args)
    if not args.paths:
        raise CamoError("name the photos or folders to score")
    if args.json == args.csv == STDOUT:
        raise CamoError("--json - and --csv -: only one of them can be written to the standard output")
    photos = find_photos(args.paths)
    faults = 0
    with ExitStack() as stack:  # the files come before the models, whose loading takes longer than a refusal
        files = ((json_sink, args.json), (csv_sink, args.csv))
        sinks = [stack.enter_context(sink(file, args.overwrite)) for sink, file in files if file]
        scorers = {spec: models.load(spec, args.device) for spec in dict.fromkeys(args.biqa or ["bundled"])}
        table = Table(scorers, args.jpeg, args.threshold, sys.stderr if STDOUT in (args.json, args.csv) else sys.stdout)
        for photo in tqdm(photos, desc="score", unit="photo", disable=None):
            try:
                scores = score_file(scorers, photo.path, args.jpeg, args.device, args.max_pixels)
            except CamoError as error:
                tqdm.write(f"error: {error}", file=sys.stderr)
                faults += 1
                continue
            for take in (table.add, *sinks):
                take(photo.path, scores)
    table.print_summary()
    return 1 if faults else 0


def self_check(args: argparse.Namespace) -> int:
    """Score KonIQ-10k's four images whose scores were published; exit status 0 when all agree."""
    if args.koniq is None:
        raise CamoError("--self-check needs --koniq DIR, the folder with KonIQ-10k's 512x384 images")
    spec = next((spec for spec in args.biqa or () if spec.startswith("koncept512")), "koncept512")
    missing = [name for name in koncept512.PUBLISHED if not (args.koniq / name).is_file()]
    if missing:
        raise CamoError(f"{args.koniq}: {missing[0]} is not there; --koniq names the folder 512x384 of koniq10k_512x384.zip")
    scorers = {spec: models.load(spec, args.device)}
    apart = []
    for name, published in koncept512.PUBLISHED.items():
        score = score_file(scorers, args.koniq / name, None, args.device)[spec].score
        apart.append(abs(score - published))
        print(f"{name:16}  published {published:.5f}  here {score:.5f}  apart {apart[-1]:.5f}")
    agree = max(apart) <= SELF_CHECK_TOLERANCE
    print(f"{'agrees' if agree else 'DISAGREES'} within {SELF_CHECK_TOLERANCE} points")
    return 0 if agree else 1
