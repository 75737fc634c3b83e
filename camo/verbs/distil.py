"""The verb ``distil``: train a quality model of the bundled one's architecture to score as another does (``camo.training.distillation``).

The student serves as the filter's trunk (``train.py --trunk``) and, where the other model is a black box, as the model to train against.
"""

import argparse
import json
import os
from dataclasses import fields
from pathlib import Path

from camo import CamoError
from camo.device import choose
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.quality import SPEC_HELP, models
from camo.quality.efficientnet import BACKBONES, load_quality
from camo.quality.training import add_setting_arguments
from camo.training.crops import hold_out, list_photos
from camo.training.distillation import Settings, distil
from camo.training.workers import supervise_workers
from camo.verbs.arguments import add_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--biqa", required=True, metavar="MODEL", help=f"the target, which needs no gradient: {SPEC_HELP}")
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="folders of photos to learn from")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the student's file, whose name ends in .safetensors")
    parser.add_argument("--init", type=Path, metavar="FILE", help="start from this student instead of the bundled model, to go on with a run")
    parser.add_argument(
        "--filter",
        type=Path,
        nargs="+",
        default=[SHIPPED_FILTER],
        metavar="FILE",
        help="filters whose photos are among those that the student learns from (default: the shipped one)",
    )
    add_device(parser)
    add_setting_arguments(parser, Settings)


def run(args: argparse.Namespace) -> int:
    """Train the student, write it, and print its agreement with the target as JSON.

    Raises:
        CamoError: settings, a folder, model, filter or device that cannot be used, a target that gives no scores to learn from, or a file that
            exists or is no name of a student's.
    """
    settings = Settings(**{setting.name: getattr(args, setting.name) for setting in fields(Settings)})
    if args.out.suffix != ".safetensors":
        raise CamoError(f"--out {args.out}: should end in .safetensors")
    if os.path.lexists(args.out):
        raise CamoError(f"{args.out}: exists already; choose another --out, and give this file to --init to go on with it")
    if missing := [folder for folder in args.data if not folder.exists()]:
        raise CamoError(f"{missing[0]}: no such folder")
    training, held = hold_out(list_photos(args.data), settings.hold_out)
    if len(held) < 2:
        raise CamoError(f"--hold-out {settings.hold_out}: leaves fewer than 2 photos to validate on")
    device = choose(args.device)
    target = models.load(args.biqa, device)
    student = load_quality(args.init) if args.init else models.load_bundled()
    if student.name != BACKBONES[0]:
        raise CamoError(f"--init {args.init}: a model on {student.name}; a student is on {BACKBONES[0]}")
    filters = [load_filter(file, device) for file in args.filter]
    args.out.parent.mkdir(parents=True, exist_ok=True)  # where nothing can be written, that is reported before the work
    provenance = {"target": args.biqa, "filters": [file.name for file in args.filter]}
    with supervise_workers():
        reached = distil(target, student.to(device), (training, held), filters, settings, args.out, provenance)
    print(json.dumps({"student": str(args.out), **reached}))
    return 0
