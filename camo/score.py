"""The verb ``score``: scores and classes of photos, before and after a real JPEG."""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from camo import CamoError, biqa
from camo.images import find_photos, jpeg_roundtrip, read, to_float

SELF_CHECK_TOLERANCE = 0.1  # points; the published scores have five decimals, decoders of JPEG differ a little


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="photos, or folders of them")
    parser.add_argument("--biqa", default="bundled", help="bundled, koncept512[:FILE] or FILE.ts (default: bundled)")
    parser.add_argument("--jpeg", type=jpeg_quality, metavar="Q", help="score again after Pillow's JPEG 4:2:0 at this quality, 1..100")
    parser.add_argument("--threshold", type=float, default=biqa.THRESHOLD, help="high quality starts above this score (default: 50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a list of objects with path, score and score_after there")
    parser.add_argument("--self-check", action="store_true", help="compare KonCept512 with its four published scores")
    parser.add_argument("--koniq", type=Path, metavar="DIR", help="folder with KonIQ-10k's 512x384 images, for --self-check")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")


def jpeg_quality(text: str) -> int:
    """Parse a JPEG quality, 1..100; argparse tells the user when it is none."""
    quality = int(text)
    if not 1 <= quality <= 100:
        raise argparse.ArgumentTypeError(f"{quality} is not a JPEG quality, 1..100")
    return quality


def run(args: argparse.Namespace) -> int:
    """Score; the exit status is 1 when a photo could not be read or the self-check failed."""
    if args.self_check:
        return self_check(args)
    if not args.paths:
        raise CamoError("name the photos or folders to score")
    photos = [photo.path for photo in find_photos(args.paths)]
    scorer = biqa.load(args.biqa, args.device)
    rows, faults = [], []
    for path in tqdm(photos, desc="score", unit="photo", disable=None):
        try:
            rows.append(score_file(scorer, path, args.jpeg, args.device))
        except CamoError as error:
            faults.append(str(error))
    print_table(rows, args.threshold, args.jpeg)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if faults else 0


@torch.inference_mode()
def score_file(scorer: nn.Module, path: Path, quality: int | None, device: str) -> dict[str, str | float | None]:
    """``path``, ``score`` and ``score_after`` (None without a quality) of one photo. Raises CamoError where it cannot be read."""
    image = to_float(read(path).pixels)[None].to(device)
    after = scorer(jpeg_roundtrip(image, quality)).item() if quality else None
    return {"path": str(path), "score": scorer(image).item(), "score_after": after}


def print_table(rows: list[dict[str, str | float | None]], threshold: float, quality: int | None) -> None:
    """A line a photo: score, class, the same after JPEG, path."""

    def cell(score: float) -> str:
        return f"{score:7.2f}  {'high' if score > threshold else 'low':4}"

    print("  score  class" + (f"   JPEG{quality:3}  class" if quality else "") + "   photo")
    for row in rows:
        print(cell(row["score"]) + (f"   {cell(row['score_after'])}" if quality else "") + f"   {row['path']}")


def self_check(args: argparse.Namespace) -> int:
    """Score KonIQ-10k's four images whose scores were published; exit status 0 when all agree."""
    if args.koniq is None:
        raise CamoError("--self-check needs --koniq DIR, the folder with KonIQ-10k's 512x384 images")
    spec = args.biqa if args.biqa.startswith("koncept512") else "koncept512"
    missing = [name for name in biqa.KONCEPT512_PUBLISHED if not (args.koniq / name).is_file()]
    if missing:
        raise CamoError(f"{args.koniq}: {missing[0]} is not there; --koniq names the folder 512x384 of koniq10k_512x384.zip")
    scorer = biqa.load(spec, args.device)
    apart = []
    for name, published in biqa.KONCEPT512_PUBLISHED.items():
        score = score_file(scorer, args.koniq / name, None, args.device)["score"]
        apart.append(abs(score - published))
        print(f"{name:16}  published {published:.5f}  here {score:.5f}  apart {apart[-1]:.5f}")
    agree = max(apart) <= SELF_CHECK_TOLERANCE
    print(f"{'agrees' if agree else 'DISAGREES'} within {SELF_CHECK_TOLERANCE} points")
    return 0 if agree else 1
