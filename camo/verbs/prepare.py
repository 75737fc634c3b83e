"""The verb ``prepare``: build the 2020 task's image sets from the official archives."""

import argparse
import sys
from functools import partial
from pathlib import Path

from camo import CamoError
from camo.task.image_sets import prepare_koniq, prepare_places
from camo.task.lists import LISTS_SOURCE
from camo.task.pictures import LARGE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.epilog = f"Either set can be built alone. --download fetches the archives; {LISTS_SOURCE}."
    parser.add_argument("--koniq", type=Path, metavar="ZIP", help="the official archive (default: OUT/archives/koniq10k_512x384.zip)")
    parser.add_argument("--koniq-metadata", type=Path, metavar="CSV", help="koniq10k_distributions_sets.csv or MEPP20dev.csv")
    parser.add_argument(
        "--koniq-large", type=Path, metavar="ZIP", help="koniq10k_1024x768.zip: build the same photos at that size too, to train on, in OUT/dev_large"
    )
    parser.add_argument("--places", type=Path, metavar="TAR", help="the official archive (default: OUT/archives/val_large.tar)")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder with MEPP20test.csv and MEPP20test_manual.csv")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("data/task"), help="where the sets go (default: %(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch archives that are not there yet, resuming broken downloads")


def run(args: argparse.Namespace) -> int:
    """Build the sets whose lists are given; return 0 when they are complete, 1 when an image is missing (each is named on stderr).

    Raises:
        CamoError: the options name no list, or an archive without its list.
    """
    if args.koniq and not args.koniq_metadata:
        raise CamoError(f"--koniq needs --koniq-metadata; {LISTS_SOURCE}")
    if args.koniq_large and not args.koniq_metadata:
        raise CamoError(f"--koniq-large needs --koniq-metadata; {LISTS_SOURCE}")
    if args.places and not args.labels:
        raise CamoError(f"--places needs --labels; {LISTS_SOURCE}")
    jobs = []
    if args.koniq_metadata:
        jobs.append(partial(prepare_koniq, args.koniq_metadata, args.koniq, args.out, args.download))
    if args.koniq_large:
        jobs.append(partial(prepare_koniq, args.koniq_metadata, args.koniq_large, args.out, args.download, LARGE))
    if args.labels:
        jobs.append(partial(prepare_places, args.labels, args.places, args.out, args.download))
    if not jobs:
        raise CamoError(f"nothing to prepare without --koniq-metadata or --labels; {LISTS_SOURCE}")
    faults: list[str] = []
    for job in jobs:
        try:
            faults += job()
        except CamoError as error:  # the other set goes on
            faults.append(str(error))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0
