"""The verb ``evaluate``: what a filter did, measured on the files it wrote: read again, passed through real operations, scored."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from camo import CamoError
from camo.device import choose
from camo.filter.look_pixels import LookPixels, dress
from camo.filter.look_settings import LOOKS
from camo.filter.looks import Look
from camo.measure.figures import Evaluator, Measured, summarise
from camo.measure.operations import GRID, HEADLINE, QUICK
from camo.measure.pairs import pair
from camo.measure.provenance import checkpoint_hash, model_hash, versions
from camo.measure.report import write_report
from camo.measure.sheet import contact_sheet, sheet_rows, sheet_title
from camo.measure.tables import latex_table, print_models, print_table, write_csv
from camo.photos.files import atomic_write
from camo.photos.images import Photo
from camo.quality import SPEC_HELP, models
from camo.training import perceptual
from camo.verbs.arguments import add_device, add_max_pixels, look, refuse_existing

OUTPUTS = ("report.html", "summary.json", "images.csv", "table.tex", "contact_sheet.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("originals", type=Path, help="folder of the original photos")
    parser.add_argument("filtered", type=Path, nargs="+", help="folders of the same photos, camouflaged; a run code may stand before their names")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {', '.join(OUTPUTS)}")
    parser.add_argument(
        "--biqa", action="append", metavar="MODEL", help=f"a model that the filter was trained against: {SPEC_HELP}; several times (default: bundled)"
    )
    parser.add_argument(
        "--judge", action="append", default=[], metavar="MODEL", help="a model that the filter never saw, as for --biqa; several times"
    )
    parser.add_argument(
        "--look",
        type=look,
        metavar="NAME[:AMOUNT]",
        help="the look that the photos were given: figures are then against the originals in this look, and a control says what the look does alone",
    )
    parser.add_argument("--threshold", type=float, default=models.THRESHOLD, help="protected means below this score (default: 50)")
    parser.add_argument("--quick", action="store_true", help=f"only a few operations: {', '.join(QUICK)}")
    parser.add_argument("--only", nargs="+", choices=GRID, metavar="OP", help=f"only {' and '.join(HEADLINE)} and these operations of the grid")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter that wrote the files; its hash goes into summary.json")
    parser.add_argument("--rows", type=int, default=6, help="photos on the contact sheet and in the gallery, of the first folder (default: 6)")
    add_device(parser)
    add_max_pixels(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the figures that --out holds already")


def run(args: argparse.Namespace) -> int:
    """Measure every folder, print a table, write the files; the exit status is 1 when a photo has no partner or cannot be measured.

    Raises:
        CamoError: a folder, model, device or checkpoint cannot be used, --out holds figures already, or nothing could be measured.
    """
    refuse_existing(args.out, OUTPUTS, args.overwrite)
    args.device = choose(args.device)
    roles = dict.fromkeys(args.biqa or ["bundled"], "target")
    if both := [judge for judge in args.judge if judge in roles]:
        raise CamoError(f"--judge {both[0]}: is a target too; a judge is a model that the filter never saw")
    roles |= dict.fromkeys(args.judge, "judge")
    scorers = {spec: models.load(spec, args.device) for spec in roles}
    lpips = perceptual.Lpips("alex").to(args.device).network if perceptual.lpips_at_hand("alex") else None
    operations = tuple(dict.fromkeys((*HEADLINE, *args.only))) if args.only else QUICK if args.quick else tuple(GRID)
    evaluator = Evaluator(scorers, operations, lpips, args.device, args.max_pixels, looking(args))
    settings = describe(args, roles, scorers)
    args.out.mkdir(parents=True, exist_ok=True)  # where nothing can be written, that is reported before the work
    faults: list[str] = []
    results: dict[str, list[Measured]] = {}
    for folder in args.filtered:
        if measured := evaluator.measure_all(pair(args.originals, folder, faults), faults):
            results[str(folder)] = measured
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not results:
        raise CamoError(f"{args.filtered[0]}: nothing could be measured")
    summary = {name: summarise(measured, operations, args.threshold) for name, measured in results.items()}
    print_table(summary)
    print_models(summary, roles)
    save(args, {"settings": settings, "results": summary, "faults": faults}, results, operations)
    return 1 if faults else 0


def looking(args: argparse.Namespace) -> Callable[[Photo], Photo] | None:
    """What gives a photo the look of --look."""
    return functools.partial(dress, look=LookPixels(Look(LOOKS[args.look.name], args.look.amount))) if args.look else None


def describe(args: argparse.Namespace, roles: Mapping[str, str], scorers: Mapping[str, models.Frozen]) -> dict[str, Any]:
    """What was asked for and with what, for summary.json. Raises CamoError where --checkpoint names no file."""
    described = {spec: {"role": role, "looks_at": scorers[spec].looks_at, "sha256": model_hash(spec)} for spec, role in roles.items()}
    return versions(next(iter(roles))) | {
        "models": described,
        "threshold": args.threshold,
        "look": str(args.look) if args.look else None,
        "originals": str(args.originals),
        "checkpoint": str(args.checkpoint) if args.checkpoint else None,
        "checkpoint_sha256": checkpoint_hash(args.checkpoint) if args.checkpoint else None,
    }


def save(args: argparse.Namespace, document: dict[str, Any], results: dict[str, list[Measured]], operations: Sequence[str]) -> None:
    """Write all of ``OUTPUTS``; ``document`` is the content of summary.json. Raises CamoError where one cannot be written."""
    report, summary, images, table, sheet = (args.out / name for name in OUTPUTS)
    rows = sheet_rows(next(iter(results.values())), args.rows, args.threshold, looking(args))
    with atomic_write(summary, args.overwrite) as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    with atomic_write(images, args.overwrite) as part:
        write_csv(part, results, operations)
    with atomic_write(table, args.overwrite) as part:
        part.write_text(latex_table(document["results"]), encoding="utf-8")
    with atomic_write(sheet, args.overwrite) as part:
        contact_sheet(rows, sheet_title(next(iter(document["results"].values())), document["settings"]["biqa"])).save(part, "PNG")
    with atomic_write(report, args.overwrite) as part:
        write_report(part, document, results, rows)
    print(f"report: {report}\ncontact sheet: {sheet}")
