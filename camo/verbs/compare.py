"""The verb ``compare``: the filter beside per-image attacks and other generators, in one run: the same photos and channel, measured on files."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from camo import CamoError
from camo.attacks.adam import AdamL2
from camo.attacks.apply import apply, show_steps
from camo.attacks.attack import Attack, Scorer
from camo.attacks.carlini_wagner import CarliniWagner, jnd_weight
from camo.attacks.colour_curves import ColorFilter
from camo.attacks.distortion import at_distortion
from camo.attacks.one_pass import OnePass
from camo.attacks.pgd import Pgd
from camo.attacks.through_jpeg import through_jpeg
from camo.attacks.universal import Universal, universal
from camo.device import choose
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.filter.full_size import FullSize
from camo.measure.comparison import SCALED, Row, plot, print_row, write_table
from camo.measure.figures import Evaluator, summarise
from camo.measure.operations import HEADLINE
from camo.measure.provenance import versions
from camo.photos.files import atomic_write, sha256
from camo.photos.images import Photo, find_photos, read, to_float, to_uint8, write
from camo.quality import SPEC_HELP, models
from camo.training.crops import CentreCrops, list_photos
from camo.verbs.arguments import add_device, add_max_pixels, jpeg_quality, positive, refuse_existing

PER_IMAGE = ("cw", "cw-jnd", "pgd", "adam", "color")
METHODS = ("filter", *PER_IMAGE, "universal")
OUTPUTS = ("compare.json", "table.csv", "plot.svg")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="photos, or folders of them")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="M", help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {', '.join(OUTPUTS)} and the files of every method")
    parser.add_argument("--generator", nargs="+", default=[], metavar="NAME=FILE", help="more trained generators to compare with the shipped filter")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N photos only; per-image methods are slow")
    parser.add_argument(
        "--through-jpeg", type=jpeg_quality, metavar="Q", help="also run the per-image methods with this JPEG quality, 1..100, in their loop"
    )
    parser.add_argument("--biqa", default="bundled", metavar="MODEL", help=f"{SPEC_HELP} (default: bundled)")
    parser.add_argument("--dev", type=Path, default=Path("data/sample/dev"), help="photos to train universal on (default: data/sample/dev)")
    parser.add_argument("--batch-size", type=positive, default=4, help="photos of one size that are attacked together (default: 4)")
    add_device(parser)
    add_max_pixels(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the results that --out holds already")
    defaults, attack = CarliniWagner(), parser.add_argument_group("Carlini-Wagner, as the task's team ran it")
    attack.add_argument(
        "--cw-targets", type=float, nargs="+", default=[defaults.target], metavar="T", help="scores to reach, one row each (default: 50)"
    )
    for name in ("binary_search_steps", "max_iterations", "learning_rate", "initial_const", "confidence"):
        value = getattr(defaults, name)
        kind = positive if isinstance(value, int) else float
        attack.add_argument(f"--cw-{name.replace('_', '-')}", type=kind, default=value, metavar="X", help=f"(default: {value:g})")
    attack.add_argument("--cw-no-abort-early", action="store_true", help="run every descent to its end")
    other = parser.add_argument_group("the other per-image methods")
    other.add_argument("--steps", type=positive, default=60, help="of pgd, adam and color (default: 60)")
    other.add_argument("--target", type=float, default=AdamL2().target, help="score below which pgd, adam and color aim (default: 30)")
    other.add_argument("--epsilon", type=float, default=4.0, help="largest change of pgd and universal, in units of 1/255 (default: 4)")


def run(args: argparse.Namespace) -> int:
    """Run every method, write and measure its files, print and write the table; exit status 1 when a photo could not be read or measured.

    Raises:
        CamoError: a model, device, generator or folder cannot be used, --out holds results already, a method cannot be run, or no photo is left.
    """
    refuse_existing(args.out, OUTPUTS, args.overwrite)
    if "universal" in args.methods and not args.dev.exists():
        raise CamoError(f"--dev {args.dev}: no such folder; name photos to train the method universal on, or leave it out with --methods")
    args.device = choose(args.device)
    scorer = models.load(args.biqa, args.device)
    evaluator = Evaluator({args.biqa: scorer}, HEADLINE, device=args.device, max_pixels=args.max_pixels)
    faults: list[str] = []
    photos = read_all([photo.path for photo in find_photos(args.photos)][: args.limit], evaluator, faults)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not photos:
        raise CamoError(f"{args.photos[0]}: no photo to compare on")
    originals = [to_float(photo.pixels) for photo in photos.values()]
    args.out.mkdir(parents=True, exist_ok=True)  # where nothing can be written, that is reported before the work
    methods = dict(build(args, scorer))  # trains universal, so it comes after what can be refused at once
    rows: list[Row] = []
    for name, (attack, seen) in methods.items():
        changed, seconds = apply(attack, seen, originals, args.batch_size, args.device, name)
        results = {name: changed}
        if rows and rows[0]["method"] == "filter":
            results[name + SCALED] = at_distortion(originals, changed, rows[0]["psnr"])
        for method, images in results.items():
            times = {"seconds": seconds, "times_the_first": seconds / rows[0]["seconds"] if rows else 1.0}
            rows.append({"method": method, **times, **measured(method, photos, images, evaluator, args)})
            print_row(rows[-1], first=len(rows) == 1)
    save(args, rows)
    return 1 if faults else 0


def checkpoints(args: argparse.Namespace) -> dict[str, Path]:
    """The files of the trained generators by the names of their rows. Raises CamoError for one without a name of its own."""
    files = {"filter": SHIPPED_FILTER} if "filter" in args.methods else {}
    for generator in args.generator:
        name, _, file = generator.partition("=")
        if not file or name in METHODS or name in files:
            raise CamoError(f"--generator {generator}: should be NAME=FILE, with a name of its own")
        if not name[:1].isalnum() or not name.isprintable() or "/" in name or "\\" in name:
            raise CamoError(f"--generator {generator!r}: NAME becomes a folder's name; it should begin with a letter or digit and hold no slash")
        files[name] = Path(file)
    return files


def build(args: argparse.Namespace, scorer: nn.Module) -> Iterator[tuple[str, tuple[Attack, Scorer]]]:
    """(name, (method, the scorer that it attacks)) of every row asked for, the filter first. Raises CamoError for a generator that does not load."""
    for name, file in checkpoints(args).items():
        yield name, (OnePass(FullSize(load_filter(file, args.device))), scorer)
    channels: dict[str, Scorer] = {"": scorer}
    if args.through_jpeg:
        channels[f" through JPEG {args.through_jpeg}"] = through_jpeg(scorer, args.through_jpeg)
    for method in (method for method in PER_IMAGE if method in args.methods):
        for suffix, seen in channels.items():
            for label, attack in per_image(method, args):
                yield label + suffix, (attack, seen)
    if "universal" in args.methods:
        crops = DataLoader(CentreCrops(list_photos([args.dev]), (384, 512)), batch_size=8)
        batches = [to_float(pixels).to(args.device) for pixels in crops]
        with tqdm(desc="universal, training", unit="epoch", disable=None) as bar:
            perturbation = universal(scorer, batches, args.epsilon, progress=show_steps(bar))
        yield "universal", (Universal(perturbation), scorer)


def per_image(method: str, args: argparse.Namespace) -> Iterator[tuple[str, Attack]]:
    """(label, attack) of a per-image method, one for each of --cw-targets."""
    if method == "pgd":
        yield method, Pgd(epsilon=args.epsilon, steps=args.steps, target=args.target)
    elif method == "adam":
        yield method, AdamL2(target=args.target, steps=args.steps)
    elif method == "color":
        yield method, ColorFilter(target=args.target, steps=args.steps)
    else:
        for target in args.cw_targets:
            settings = {
                "binary_search_steps": args.cw_binary_search_steps,
                "max_iterations": args.cw_max_iterations,
                "learning_rate": args.cw_learning_rate,
                "initial_const": args.cw_initial_const,
                "confidence": args.cw_confidence,
                "abort_early": not args.cw_no_abort_early,
                "weight": jnd_weight if method == "cw-jnd" else None,
            }
            yield f"{method} {target:g}", CarliniWagner(target, **settings)


def read_all(paths: Sequence[Path], evaluator: Evaluator, faults: list[str]) -> dict[Path, Photo]:
    """Photos by path; one line is added to ``faults`` for each that cannot be read or measured.

    Raises:
        CamoError: two photos would share a name in the output.
    """
    photos: dict[Path, Photo] = {}
    for path in paths:
        if twin := next((other for other in photos if other.stem == path.stem), None):
            raise CamoError(f"{str(path)!r}: would be written to the same file as {str(twin)!r}")
        try:
            evaluator.measure(path, path)  # a refusal after hours of attacks would cost their results
            photos[path] = read(path, evaluator.max_pixels)
        except CamoError as error:
            faults.append(str(error))
    return photos


def measured(method: str, photos: dict[Path, Photo], images: Sequence[Tensor], evaluator: Evaluator, args: argparse.Namespace) -> dict[str, Any]:
    """Write the images as PNG under the method's name, and summarise the figures of these files as ``evaluate`` does."""
    figures = []
    for (path, photo), image in zip(photos.items(), images, strict=True):
        file = args.out / method.replace(" ", "-").replace("'", "") / f"{path.stem}.png"
        write(Photo(to_uint8(image), "PNG", photo.alpha, icc_profile=photo.icc_profile), file, args.overwrite)
        figures.append(evaluator.measure(path, file))
    return summarise(figures, HEADLINE, models.THRESHOLD)


def save(args: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Write compare.json (settings and all figures), table.csv and plot.svg."""
    results, table, chart = (args.out / name for name in OUTPUTS)
    settings = versions(args.biqa) | {"threads": torch.get_num_threads()}
    settings["checkpoints_sha256"] = {name: sha256(file) for name, file in checkpoints(args).items()}
    settings |= vars(args)
    with atomic_write(results, args.overwrite) as part:
        part.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False, default=str) + "\n")
    with atomic_write(table, args.overwrite) as part:
        write_table(part, rows)
    if drawing := plot(rows):
        with atomic_write(chart, args.overwrite) as part:
            part.write_text(drawing, encoding="utf-8")
    else:
        chart.unlink(missing_ok=True)  # of an earlier run
    print(f"results: {results}")
