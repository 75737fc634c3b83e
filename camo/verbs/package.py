"""The verb ``package``: build the archive of a run for MediaEval 2020 Pixel Privacy, or check one that exists.

An archive is built beside its place, passes the same check as any other, and only then gets its name.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from camo import CamoError
from camo.photos.files import atomic_write
from camo.photos.images import find_photos
from camo.task.package import MAX_RUNS, RUN_CODE, build, check, find_originals, refuse_sixth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("filtered", nargs="?", type=Path, metavar="FILTERED", help="folder of the filtered images, with or without CODE_ before them")
    parser.add_argument("--run-code", metavar="CODE", help="team, underscore, run, such as rteam_base; letters, digits, '_' and '-'")
    parser.add_argument("--originals", type=Path, required=True, metavar="DIR", help="folder of the images that were filtered")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where CODE.zip goes, beside the team's other runs, {MAX_RUNS} at most")
    parser.add_argument("--overwrite", action="store_true", help="replace CODE.zip if it exists")
    parser.add_argument("--check", type=Path, metavar="ZIP", help="check this archive, named CODE.zip, and write nothing")


def run(args: argparse.Namespace) -> int:
    """Build or check an archive; return 0, having printed the number of its images.

    Raises:
        CamoError: the options do not fit together, or the run fails its check; every fault is then printed on a line of its own first.
    """
    building = (args.filtered, args.run_code, args.out)
    if args.check and (any(building) or args.overwrite):
        raise CamoError("--check goes with --originals alone; the run code is the archive's name")
    if not args.check and not all(building):
        raise CamoError("give FILTERED, --run-code and --out to build an archive, or --check ZIP")
    code = args.check.stem if args.check else args.run_code
    if not RUN_CODE.fullmatch(code):
        raise CamoError(f"run code {code!r}: team, underscore, run expected, of letters, digits, '_' and '-'")
    originals = find_originals(args.originals)
    if args.check:
        archive = args.check
        report(check(archive, code, originals), str(archive))
    else:
        archive = args.out / f"{code}.zip"
        refuse_sixth(archive)
        with atomic_write(archive, args.overwrite) as part:
            unreadable = build(find_photos([args.filtered]), code, part)
            report(unreadable + check(part, code, originals), f"{archive}, not written")
    print(f"{archive}: {len(originals)} images, no fault")
    return 0


def report(faults: Sequence[str], subject: str) -> None:
    """Print one line for each fault; raise CamoError with their number if there is one."""
    sys.stderr.writelines(f"error: {fault}\n" for fault in faults)
    if faults:
        raise CamoError(f"{subject}: faults: {len(faults)}")
