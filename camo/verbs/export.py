"""The verb ``export``: the filter, or a quality model, as files that run without this package."""

import argparse
from pathlib import Path

from camo import CamoError
from camo.export.export import export_biqa, export_filter
from camo.export.parts import export_parts
from camo.filter.checkpoint import SHIPPED_FILTER
from camo.filter.look_settings import LOOK_HELP
from camo.verbs.arguments import look


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files")
    what = "the filter, a quality model, or both in the parts that the page in the browser runs (default: filter)"
    parser.add_argument("--what", choices=("filter", "biqa", "page"), default="filter", help=what)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter to export (default: the shipped one)")
    parser.add_argument("--look", type=look, metavar="NAME[:AMOUNT]", help=f"put a look before the filter, into the same files: {LOOK_HELP}")
    parser.add_argument("--biqa", metavar="SPEC", help="the quality model to export, bundled or koncept512[:FILE] (default: bundled)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    """Export; return 0. Raises CamoError like ``export_filter``, ``export_biqa`` and ``export_parts``."""
    if args.look is not None and args.what != "filter":
        elsewhere = "; --what page exports every look that the page offers" if args.what == "page" else ""
        raise CamoError(f"--look {args.look} goes with --what filter{elsewhere}")
    if args.biqa is not None and args.what != "biqa":
        raise CamoError(f"--biqa {args.biqa} goes with --what biqa")
    if args.checkpoint is not None and args.what == "biqa":
        raise CamoError(f"--checkpoint {args.checkpoint} goes with --what filter or page")
    if args.what == "filter":
        export_filter(args.checkpoint or SHIPPED_FILTER, args.out, args.overwrite, args.look)
    elif args.what == "page":
        export_parts(args.checkpoint or SHIPPED_FILTER, args.out, args.overwrite)
    else:
        export_biqa(args.biqa or "bundled", args.out, args.overwrite)
    return 0
