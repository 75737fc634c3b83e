"""The verb ``compare``: the filter beside per-image attacks and other generators: the same photos, the same channel, one run, measured on files."""

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from camo import CamoError, __version__
from camo.attacks import attacks
from camo.attacks.attacks import Attack, Progress, Result, Scorer
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.filter.full_size import FullSize
from camo.measure.charts import labelled
from camo.measure.metrics import psnr
from camo.measure.report import HEADLINE, percent
from camo.photos.images import Photo, find_photos, read, to_float, to_uint8, write
from camo.quality import models
from camo.training.crops import CentreCrops, list_photos
from camo.verbs.evaluate import measure, sha256, summarise, weights_of
from camo.verbs.score import UNSCORABLE, check_device, jpeg_quality, said

PER_IMAGE = ("cw", "cw-jnd", "pgd", "adam", "color")
METHODS = ("filter", *PER_IMAGE, "universal")
TOLERANCE = 0.1  # dB, of the rows at equal distortion


@dataclass(frozen=True)
class OnePass:
    """A trained generator in the attacks' interface. It never asks the scorer on its way."""

    model: FullSize

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Filter; (B, 3, H, W) in [0, 1], at multiples of 1/255, as files hold them."""
        filtered = to_float(self.model(to_uint8(images).cpu())).to(images.device)
        nothing = torch.zeros(len(images))
        return Result(filtered, nothing, nothing.long())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS", help="photos, or folders of them")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="M", help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder for compare.json, table.csv, plot.svg and every method's files")
    parser.add_argument("--generator", nargs="+", default=[], metavar="NAME=FILE", help="more trained generators to stand beside the shipped filter")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first N photos only; per-image methods are slow")
    parser.add_argument(
        "--through-jpeg", type=jpeg_quality, metavar="Q", help="also run the per-image methods with this JPEG quality, 1..100, in their loop"
    )
    parser.add_argument("--biqa", default="bundled", help="bundled, koncept512[:FILE] or FILE.ts (default: bundled)")
    parser.add_argument("--dev", type=Path, default=Path("data/sample/dev"), help="photos to train universal on (default: data/sample/dev)")
    parser.add_argument("--batch-size", type=positive, default=4, help="photos of one size attacked together (default: 4)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that --out holds already")
    defaults, attack = attacks.CarliniWagner(), parser.add_argument_group("Carlini-Wagner, as the task's team ran it")
    attack.add_argument(
        "--cw-targets", type=float, nargs="+", default=[defaults.target], metavar="T", help="scores to reach, a row each (default: 50)"
    )
    for name in ("binary_search_steps", "max_iterations", "learning_rate", "initial_const", "confidence"):
        value = getattr(defaults, name)
        kind = positive if isinstance(value, int) else float
        attack.add_argument(f"--cw-{name.replace('_', '-')}", type=kind, default=value, metavar="X", help=f"(default: {value:g})")
    attack.add_argument("--cw-no-abort-early", action="store_true", help="run every descent to its end")
    other = parser.add_argument_group("the other per-image methods")
    other.add_argument("--steps", type=positive, default=60, help="of pgd, adam and color (default: 60)")
    other.add_argument("--target", type=float, default=attacks.AdamL2().target, help="score that adam and color aim below (default: 30)")
    other.add_argument("--epsilon", type=float, default=4.0, help="largest change of pgd and universal, in units of 1/255 (default: 4)")


def positive(text: str) -> int:
    """Parse a number of 1 or more; argparse tells the user when it is none."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def run(args: argparse.Namespace) -> int:
    """Run every method, write and measure its files, print and write the table; exit status 1 when a photo could not be read or measured."""
    if (args.out / "compare.json").exists() and not args.overwrite:
        raise CamoError(f"{args.out}: holds results already; give --overwrite or another --out")
    if "universal" in args.methods and not args.dev.exists():
        raise CamoError(f"--dev {args.dev}: no such folder; name photos to train the method universal on, or leave it out with --methods")
    check_device(args.device)
    scorer = models.load(args.biqa, args.device)
    faults: list[str] = []
    photos = read_all([photo.path for photo in find_photos(args.photos)][: args.limit], scorer, args.device, faults)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not photos:
        raise CamoError(f"{args.photos[0]}: no photo to compare on")
    originals = [to_float(photo.pixels) for photo in photos.values()]
    args.out.mkdir(parents=True, exist_ok=True)  # where nothing can be written, that is told before the work
    methods = dict(build(args, scorer))  # trains universal, so it comes after what can be refused at once
    rows: list[dict[str, Any]] = []
    for name, (attack, seen) in methods.items():
        changed, seconds = apply(attack, seen, originals, args.batch_size, args.device, name)
        versions = {name: changed}
        if rows and rows[0]["method"] == "filter":
            versions[f"{name} at the filter's PSNR"] = at_distortion(originals, changed, rows[0]["psnr"])
        for version, images in versions.items():
            times = {"seconds": seconds, "times_the_first": seconds / rows[0]["seconds"] if rows else 1.0}
            rows.append({"method": version, **times, **measured(version, photos, images, scorer, args)})
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
        files[name] = Path(file)
    return files


def build(args: argparse.Namespace, scorer: nn.Module) -> Iterator[tuple[str, tuple[Attack, Scorer]]]:
    """(name, (method, the scorer that it attacks)) of every row asked for, the filter first. Raises CamoError for a generator that does not load."""
    for name, file in checkpoints(args).items():
        yield name, (OnePass(FullSize(load_filter(file, args.device))), scorer)
    channels = {"": scorer}
    if args.through_jpeg:
        channels[f" through JPEG {args.through_jpeg}"] = attacks.through_jpeg(scorer, args.through_jpeg)
    for method in (method for method in PER_IMAGE if method in args.methods):
        for suffix, seen in channels.items():
            for label, attack in per_image(method, args):
                yield label + suffix, (attack, seen)
    if "universal" in args.methods:
        crops = DataLoader(CentreCrops(list_photos([args.dev]), (384, 512)), batch_size=8)
        batches = [to_float(pixels).to(args.device) for pixels in crops]
        with tqdm(desc="universal, training", unit="epoch", disable=None) as bar:
            perturbation = attacks.universal(scorer, batches, args.epsilon, progress=telling(bar))
        yield "universal", (attacks.Universal(perturbation), scorer)


def per_image(method: str, args: argparse.Namespace) -> Iterator[tuple[str, Attack]]:
    """(label, attack) of a per-image method, one for each of --cw-targets."""
    if method == "pgd":
        yield method, attacks.Pgd(epsilon=args.epsilon, steps=args.steps, target=args.target)
    elif method == "adam":
        yield method, attacks.AdamL2(target=args.target, steps=args.steps)
    elif method == "color":
        yield method, attacks.ColorFilter(target=args.target, steps=args.steps)
    else:
        for target in args.cw_targets:
            settings = {
                "binary_search_steps": args.cw_binary_search_steps,
                "max_iterations": args.cw_max_iterations,
                "learning_rate": args.cw_learning_rate,
                "initial_const": args.cw_initial_const,
                "confidence": args.cw_confidence,
                "abort_early": not args.cw_no_abort_early,
                "weight": attacks.jnd_weight if method == "cw-jnd" else None,
            }
            yield f"{method} {target:g}", attacks.CarliniWagner(target, **settings)


def read_all(paths: Sequence[Path], scorer: nn.Module, device: str, faults: list[str]) -> dict[Path, Photo]:
    """Photos by path, those that cannot be read or measured told in ``faults``. Raises CamoError where two would share a name in the output."""
    photos: dict[Path, Photo] = {}
    for path in paths:
        if twin := next((other for other in photos if other.stem == path.stem), None):
            raise CamoError(f"{str(path)!r}: would be written to the same file as {str(twin)!r}")
        try:
            measure(path, path, scorer, HEADLINE, device=device)  # a refusal after hours of attacks would cost their results
            photos[path] = read(path)
        except CamoError as error:
            faults.append(str(error))
    return photos


def apply(attack: Attack, scorer: Scorer, originals: Sequence[Tensor], batch_size: int, device: str, name: str) -> tuple[list[Tensor], float]:
    """Changed photos, (3, H, W) on the CPU each, and seconds a photo; neighbours of one size go together. One pass is timed photo by photo.

    Raises CamoError for photos that the method or the scorer refuses, or that do not fit into memory.
    """
    try:
        return _apply(attack, scorer, originals, batch_size, device, name)
    except (*UNSCORABLE, ValueError) as error:
        raise CamoError(f"{name}: cannot be run: {said(error)}") from error


def _apply(attack: Attack, scorer: Scorer, originals: Sequence[Tensor], batch_size: int, device: str, name: str) -> tuple[list[Tensor], float]:
    if isinstance(attack, OnePass):
        # The first pass allocates and compiles, which is not what a folder costs; a GPU has done it only when the result is here.
        attack(scorer, originals[0][None].to(device)).images.cpu()
        batch_size = 1
    changed: list[Tensor] = []
    with tqdm(total=len(originals), desc=name, unit="photo", disable=None) as progress:
        start = time.perf_counter()
        for _, group in groupby(originals, key=lambda image: image.shape):
            for batch in torch.stack(list(group)).split(batch_size):
                changed += attack(scorer, batch.to(device), telling(progress)).images.cpu()
                progress.update(len(batch))
        seconds = (time.perf_counter() - start) / len(originals)
    return changed, seconds


def telling(bar: tqdm) -> Progress:
    """Show the steps of a method beside a progress bar."""
    return lambda step, steps: bar.set_postfix_str(f"step {step}/{steps}")


def at_distortion(originals: Sequence[Tensor], changed: Sequence[Tensor], wanted: float) -> list[Tensor]:
    """The changes scaled by one factor, 0.05 to 20, so that the mean PSNR of the 8-bit photos is ``wanted`` dB, within 0.1 dB if that can be had."""
    low, high = 0.05, 20.0
    closest: tuple[float, list[Tensor]] = (math.inf, [])
    while high / low > 1.001 and closest[0] >= TOLERANCE:
        factor = (low * high) ** 0.5
        scaled = [dithered(original + factor * (image - original)) for original, image in zip(originals, changed, strict=True)]
        pairs = zip(originals, scaled, strict=True)
        reached = torch.stack([psnr(original[None], image[None])[0].clamp(max=100) for original, image in pairs]).mean().item()
        closest = min(closest, (abs(reached - wanted), scaled), key=lambda pair: pair[0])
        low, high = (low, factor) if reached < wanted else (factor, high)
    return closest[1]


def dithered(image: Tensor) -> Tensor:
    """8-bit values, each rounded up or down at random (seeded) so that its mean is kept: a change of one step everywhere could not be scaled else.

    Shape: (3, H, W) float -> the same, at multiples of 1/255 in [0, 1].
    """
    noise = torch.rand(image.shape, generator=Generator().manual_seed(0))
    return (255 * image + 0.001 + 0.998 * noise).floor().clamp(0, 255) / 255  # whole numbers stay, also where floats fall short of them


def measured(name: str, photos: dict[Path, Photo], images: Sequence[Tensor], scorer: nn.Module, args: argparse.Namespace) -> dict[str, Any]:
    """Write the images as PNG under the method's name, and figures of these files: means as ``evaluate`` gives them."""
    figures = []
    for (path, photo), image in zip(photos.items(), images, strict=True):
        file = args.out / name.replace(" ", "-").replace("'", "") / f"{path.stem}.png"
        write(Photo(to_uint8(image), "PNG", photo.alpha, icc_profile=photo.icc_profile), file, args.overwrite)
        figures.append(measure(path, file, scorer, HEADLINE, device=args.device))
    return summarise(figures, HEADLINE, models.THRESHOLD)


def print_row(row: dict[str, Any], first: bool) -> None:
    """A line of the table, with its head before the first."""
    if first:
        print(f"{'method':44} " + "  ".join(HEADLINE) + "  PSNR dB    SSIM  worst patch  s a photo  times the first")
    rates = "  ".join(f"{percent(row['operations'][name]['protected']):>7}" for name in HEADLINE)
    visible = f"{row['psnr']:7.2f}  {row['ssim']:.4f}  {row['worst_patch_psnr']:11.2f}"
    print(f"{row['method']:44} {rates}  {visible}  {row['seconds']:9.3f}  {row['times_the_first']:15.1f}", flush=True)


def save(args: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """Write compare.json (settings and all figures), table.csv and plot.svg."""
    settings = {"camo": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    settings["biqa_sha256"] = sha256(weights_of(args.biqa))
    settings["checkpoints_sha256"] = {name: sha256(file) for name, file in checkpoints(args).items()}
    settings |= {name: value if isinstance(value, int | float | bool | None) else str(value) for name, value in vars(args).items()}
    (args.out / "compare.json").write_text(json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False) + "\n")
    with (args.out / "table.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", *HEADLINE, "psnr", "ssim", "worst_patch_psnr", "seconds", "times_the_first"])
        for row in rows:
            rates = [row["operations"][name]["protected"] for name in HEADLINE]
            writer.writerow([row["method"], *rates, *(row[name] for name in ("psnr", "ssim", "worst_patch_psnr", "seconds", "times_the_first"))])
    shares = {row["method"]: (row["psnr"], row["operations"][HEADLINE[0]]["protected"]) for row in rows if "at the" not in row["method"]}
    points = {name: (decibels, 100 * share) for name, (decibels, share) in shares.items() if share is not None}
    if points:  # no clean photo may have scored high
        drawing = labelled(points, "PSNR dB", f"% protected at {HEADLINE[0]}")
        (args.out / "plot.svg").write_text(drawing, encoding="utf-8", errors="backslashreplace")
    print(f"results: {args.out / 'compare.json'}")
