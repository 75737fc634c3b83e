"""The verb ``looks``: a contact sheet of a photo in all looks, each camouflaged, with scores and what can be measured of its appeal."""

import argparse
import os
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from camo import CamoError
from camo.camouflage.looks import OneLook
from camo.device import choose, device_of
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.filter.full_size import FullSize
from camo.filter.look_settings import LOOKS, MOST
from camo.measure.after import scores_after, unscorable
from camo.measure.appeal import colourfulness, contrast, newly_clipped
from camo.measure.metrics import psnr
from camo.measure.operations import HEADLINE
from camo.measure.sheet import picture_grid
from camo.photos.files import atomic_write
from camo.photos.images import read, to_float
from camo.quality import SPEC_HELP, models
from camo.quality.models import Frozen
from camo.verbs.arguments import add_device

PLAIN = "no look"
SMALLEST = 16  # px, the filter's smallest input


def amount(text: str) -> float:
    """Parse an amount of the looks; argparse reports any other value as wrong usage."""
    value = float(text)
    if not 0 < value <= MOST:
        raise argparse.ArgumentTypeError(f"{text}: should be above 0 and at most {MOST:g}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="the photo to try the looks on")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the contact sheet, a PNG file")
    parser.add_argument("--amount", type=amount, default=1.0, metavar="A", help=f"how much of each look, above 0 and up to {MOST:g} (default: 1)")
    parser.add_argument("--width", type=int, default=512, metavar="PX", help="largest width of a picture on the sheet (default: 512)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter's weights (default: the shipped ones)")
    parser.add_argument("--biqa", default="bundled", metavar="MODEL", help=f"quality model: {SPEC_HELP} (default: bundled)")
    add_device(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the sheet if it exists")
    parser.epilog = f"Each picture is camouflaged. Captions give the scores of the look alone and of the picture, both after {HEADLINE[0]}."


def run(args: argparse.Namespace) -> int:
    """Print a table, write the sheet; return 0.

    Raises:
        CamoError: a photo, model, device or checkpoint cannot be used, the photo is too small, the sheet is no PNG, exists or cannot be written.
    """
    if args.out.suffix.lower() != ".png":
        raise CamoError(f"--out {args.out}: the sheet is a PNG file; its name should end in .png")
    if os.path.lexists(args.out) and not args.overwrite:
        raise CamoError(f"{args.out} exists; --overwrite replaces it")
    device = choose(args.device)
    photo = read(args.photo)
    height, width = photo.pixels.shape[-2:]
    if min(height, width) < SMALLEST:
        raise CamoError(f"{str(args.photo)!r}: {width}x{height} px; the filter needs {SMALLEST} px or more on each side")
    photo_filter, scorer = FullSize(load_filter(args.checkpoint or SHIPPED_FILTER, device)), models.load(args.biqa, device)
    looked = {PLAIN: photo.pixels}
    pictures: dict[str, Tensor] = {}
    print(f"{'look':12}  score alone > camouflaged  PSNR dB  colourfulness  contrast  newly clipped")
    for name in tqdm((PLAIN, *LOOKS), desc="looks", unit="look", disable=None):
        if name != PLAIN:
            looked[name] = OneLook(name, args.amount, device)(photo)[1].pixels
        with unscorable(f"{str(args.photo)!r}: cannot be scored"):
            caption, line, pixels = tried(looked[name], photo.pixels, photo_filter, scorer)
        pictures[f"{name}: {caption}"] = pixels
        tqdm.write(f"{name:12}  {line}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.out, args.overwrite) as part:
        picture_grid(pictures, width=args.width).save(part, "PNG")
    print(f"contact sheet: {args.out}")
    return 0


def tried(looked: Tensor, original: Tensor, photo_filter: FullSize, scorer: Frozen) -> tuple[str, str, Tensor]:
    """Camouflage a photo in a look: the caption, the table's line, and the camouflaged pixels. Shape: two (3, H, W) uint8 -> ..., (3, H, W) uint8."""
    filtered = photo_filter(looked[None])[0]
    alone, after = scores_after(scorer, [looked, filtered], HEADLINE[0], device_of(photo_filter))
    image = to_float(looked[None])
    distance = psnr(image, to_float(filtered[None])).item()
    figures = colourfulness(image).item(), contrast(image).item(), newly_clipped(original[None], looked[None]).item()
    line = f"{alone:11.1f} > {after:11.1f}  {distance:7.1f}  {figures[0]:13.1f}  {figures[1]:8.3f}  {figures[2]:13.2%}"
    return f"{alone:.0f} alone, {after:.0f} camouflaged", line, filtered
