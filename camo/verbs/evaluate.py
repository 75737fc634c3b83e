"""The verb ``evaluate``: what a filter did, measured on the files it wrote: read again, passed through real operations, scored."""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import PIL
import torch
from torch import nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from tqdm import tqdm

from camo import CamoError, __version__
from camo.measure.metrics import psnr, ssim, wilson_interval, worst_patch_psnr
from camo.measure.operations import GRID, QUICK
from camo.measure.report import HEADLINE, SheetRow, contact_sheet, percent, write_report
from camo.photos.images import PhotoFile, find_photos, read, to_float
from camo.quality import models
from camo.training import perceptual
from camo.verbs.score import UNSCORABLE, check_device, finite, said

LARGEST_PSNR = 100.0  # dB, for files that are equal, so that means stay finite
LATEX_SPECIALS = str.maketrans(
    {character: rf"\{character}" for character in "#$%&_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}
)


@dataclass(frozen=True)
class Measured:
    """Figures of one pair of files.

    Attributes:
        name, original, filtered: the filtered file's name, below its folder where that was measured, and both paths.
        clean_scores, filtered_scores: by operation, of the original and the filtered photo after it.
        psnr, worst_patch_psnr: dB, of the whole photo and of its worst 64x64 patch; at most 100.
        ssim, lpips: similarity -1..1; perceptual distance, None where LPIPS's weights are not at hand.
        largest_change: of a channel of a pixel, in 8-bit steps.
        size_ratio: bytes of the filtered file to those of the original.
    """

    name: str
    original: Path
    filtered: Path
    clean_scores: dict[str, float]
    filtered_scores: dict[str, float]
    psnr: float
    worst_patch_psnr: float
    ssim: float
    lpips: float | None
    largest_change: int
    size_ratio: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("originals", type=Path, help="folder of the original photos")
    parser.add_argument("filtered", type=Path, nargs="+", help="folders of the same photos, camouflaged (a run code before the name is understood)")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, summary.json, images.csv, table.tex, contact_sheet.png")
    parser.add_argument("--biqa", default="bundled", help="bundled, koncept512[:FILE] or FILE.ts (default: bundled)")
    parser.add_argument("--threshold", type=float, default=models.THRESHOLD, help="protected means below this score (default: 50)")
    parser.add_argument("--quick", action="store_true", help=f"only a few operations: {', '.join(QUICK)}")
    parser.add_argument("--only", nargs="+", choices=GRID, metavar="OP", help=f"only {' and '.join(HEADLINE)} and these operations of the grid")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter that wrote the files; its hash goes into summary.json")
    parser.add_argument("--rows", type=int, default=6, help="photos on the contact sheet and in the gallery, of the first folder (default: 6)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace the figures that --out holds already")


def run(args: argparse.Namespace) -> int:
    """Measure every folder, print a table, write the files; the exit status is 1 when a photo has no partner or cannot be measured."""
    if (args.out / "summary.json").exists() and not args.overwrite:
        raise CamoError(f"{args.out}: holds figures already; give --overwrite or another --out")
    check_device(args.device)
    scorer = models.load(args.biqa, args.device)
    distance = perceptual.Lpips("alex").to(args.device).network if perceptual.lpips_at_hand("alex") else None
    operations = tuple(dict.fromkeys((*HEADLINE, *args.only))) if args.only else QUICK if args.quick else tuple(GRID)
    settings = describe(args)
    args.out.mkdir(parents=True, exist_ok=True)  # where nothing can be written, that is told before the work
    faults: list[str] = []
    results: dict[str, list[Measured]] = {}
    for folder in args.filtered:
        pairs = pair(args.originals, folder, faults)
        if measured := measure_all(pairs, scorer, operations, distance, args.device, faults):
            results[str(folder)] = measured
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not results:
        raise CamoError(f"{args.filtered[0]}: nothing could be measured")
    summary = {name: summarise(measured, operations, args.threshold) for name, measured in results.items()}
    print_table(summary)
    document = {"settings": settings, "results": summary, "faults": faults}
    (args.out / "summary.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_csv(args.out / "images.csv", results, operations)
    (args.out / "table.tex").write_text(latex_table(summary), encoding="utf-8")
    rows = sheet_rows(next(iter(results.values())), args.rows, args.threshold)
    contact_sheet(rows, sheet_title(next(iter(summary.values())), args.biqa)).save(args.out / "contact_sheet.png")
    write_report(args.out / "report.html", document, results, rows)
    print(f"report: {args.out / 'report.html'}\ncontact sheet: {args.out / 'contact_sheet.png'}")
    return 1 if faults else 0


def describe(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for and with what, for summary.json. Raises CamoError where --checkpoint names no file."""
    if args.checkpoint and not args.checkpoint.is_file():
        raise CamoError(f"{args.checkpoint}: no such checkpoint")
    return {
        "camo": __version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "biqa": args.biqa,
        "biqa_sha256": sha256(weights_of(args.biqa)),
        "threshold": args.threshold,
        "originals": str(args.originals),
        "checkpoint": str(args.checkpoint) if args.checkpoint else None,
        "checkpoint_sha256": sha256(args.checkpoint) if args.checkpoint else None,
    }


def sha256(file: Path) -> str:
    """The file's hash, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def weights_of(spec: str) -> Path:
    """The file that ``camo.quality.models.load`` reads the weights of a quality model from."""
    name, _, file = spec.partition(":")
    if spec == "bundled":
        return models.BUNDLED_WEIGHTS
    if name == "koncept512":
        return Path(file) if file else models.KONCEPT512_WEIGHTS
    return Path(spec)


def pair(originals: Path, filtered: Path, faults: list[str]) -> list[tuple[Path, PhotoFile]]:
    """Pairs (original, filtered) of equal name, the filtered one's run code left aside; what has no partner, or might have several, is a fault.

    An original in the same sub-folder comes first, there one of the same suffix. Where that sub-folder has none, one anywhere will do.
    """
    places: dict[Path | tuple[Path, str] | str, list[Path]] = {}
    for photo in find_photos([originals]):
        for place in (photo.relative, (photo.relative.parent, photo.relative.stem), photo.relative.stem):
            places.setdefault(place, []).append(photo.path)
    pairs: dict[Path, PhotoFile] = {}
    ambiguous: set[Path] = set()
    for photo in find_photos([filtered]):
        folder, parts = photo.relative.parent, photo.relative.stem.split("_")
        names = ["_".join(parts[i:]) for i in range(len(parts))]
        here = [place for name in names for place in (folder / (name + photo.relative.suffix), (folder, name))]
        found = next((places[place] for place in [*here, *names] if place in places), [])
        if len(found) > 1:
            faults.append(f"{str(photo.path)!r}: ambiguous, it could be of {' or '.join(repr(str(path)) for path in found)}")
            ambiguous.update(found)
        elif not found:
            faults.append(f"{str(photo.path)!r}: no original of this name in {str(originals)!r}")
        elif found[0] in pairs:
            faults.append(f"{str(photo.path)!r}: ambiguous, its original {str(found[0])!r} is already that of {str(pairs[found[0]].path)!r}")
        else:
            pairs[found[0]] = photo
    everything = (path for place, paths in places.items() if isinstance(place, Path) for path in paths)
    faults += [f"{str(path)!r}: not in {str(filtered)!r}" for path in everything if path not in pairs and path not in ambiguous]
    return list(pairs.items())


def measure_all(
    pairs: list[tuple[Path, PhotoFile]],
    scorer: nn.Module,
    operations: Sequence[str],
    distance: nn.Module | None,
    device: str,
    faults: list[str],
) -> list[Measured]:
    """Figures of every pair that can be measured; the others' faults are added to ``faults``."""
    measured = []
    for original, filtered in tqdm(pairs, desc="evaluate", unit="photo", disable=None):
        try:
            figures = measure(original, filtered.path, scorer, operations, distance, device)
            measured.append(replace(figures, name=str(filtered.relative)))
        except CamoError as error:
            faults.append(str(error))
    return measured


@torch.inference_mode()
def measure(
    original: Path, filtered: Path, scorer: nn.Module, operations: Sequence[str], distance: nn.Module | None = None, device: str = "cpu"
) -> Measured:
    """Figures of one pair; ``distance`` is LPIPS's network. Raises CamoError: a file that cannot be read or scored, sizes that differ."""
    try:
        return _measure(original, filtered, scorer, operations, distance, device)
    except UNSCORABLE as error:
        raise CamoError(f"{str(filtered)!r}: cannot be measured: {said(error)}") from error


def _measure(original: Path, filtered: Path, scorer: nn.Module, operations: Sequence[str], distance: nn.Module | None, device: str) -> Measured:
    pixels = [read(path).pixels for path in (original, filtered)]
    if pixels[0].shape != pixels[1].shape:
        sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in pixels)
        raise CamoError(f"{str(filtered)!r}: not the size of its original ({sizes})")
    before, after = (to_float(p)[None].to(device) for p in pixels)
    pictures = [to_pil_image(p) for p in pixels]
    scores = {
        name: scorer(torch.stack([to_float(pil_to_tensor(GRID[name](picture))) for picture in pictures]).to(device)).tolist() for name in operations
    }
    return Measured(
        name=filtered.name,
        original=original,
        filtered=filtered,
        clean_scores={name: finite(clean) for name, (clean, _) in scores.items()},
        filtered_scores={name: finite(score) for name, (_, score) in scores.items()},
        psnr=min(LARGEST_PSNR, psnr(before, after).item()),
        worst_patch_psnr=min(LARGEST_PSNR, worst_patch_psnr(before, after).item()),
        ssim=ssim(before, after).item(),
        lpips=distance(before, after, normalize=True).item() if distance else None,
        largest_change=(pixels[1].int() - pixels[0].int()).abs().max().item(),
        size_ratio=filtered.stat().st_size / original.stat().st_size,
    )


def summarise(measured: list[Measured], operations: Sequence[str], threshold: float) -> dict[str, Any]:
    """Means over the photos, and under ``operations`` the figures of every cell of the grid.

    ``protected`` is the share that scores below the threshold after the operation, of the photos whose clean version scores above it after the same
    operation, None where there are none; the others are counted in ``low_when_clean``. ``accuracy`` is the task's measure: the share of all photos
    that is still called good.
    """

    def mean(of: Callable[[Measured], float]) -> float:
        return fmean(map(of, measured))

    grid = {}
    for name in operations:
        high = [one for one in measured if one.clean_scores[name] > threshold]
        protected = sum(one.filtered_scores[name] < threshold for one in high)
        grid[name] = {
            "protected": protected / len(high) if high else None,
            "interval": wilson_interval(protected, len(high)),
            "low_when_clean": len(measured) - len(high),
            "accuracy": mean(lambda one: one.filtered_scores[name] > threshold),  # noqa: B023 (used at once)
            "score_clean": mean(lambda one: one.clean_scores[name]),  # noqa: B023
            "score_filtered": mean(lambda one: one.filtered_scores[name]),  # noqa: B023
        }
    return {
        "photos": len(measured),
        "psnr": mean(lambda one: one.psnr),
        "psnr_lowest": min(one.psnr for one in measured),
        "psnr_5th_percentile": torch.tensor([one.psnr for one in measured]).quantile(0.05).item(),
        "worst_patch_psnr": mean(lambda one: one.worst_patch_psnr),
        "ssim": mean(lambda one: one.ssim),
        "lpips": mean(lambda one: one.lpips) if measured[0].lpips is not None else None,
        "largest_change": max(one.largest_change for one in measured),
        "size_ratio": mean(lambda one: one.size_ratio),
        "operations": grid,
    }


def print_table(summary: dict[str, dict[str, Any]]) -> None:
    """A line a folder with the headline figures, then a line an operation."""
    print("photos  PSNR dB (lowest, worst patch)    SSIM  LPIPS  size  folder")
    for name, row in summary.items():
        lpips = "    -" if row["lpips"] is None else f"{row['lpips']:.3f}"
        patch = f"{row['psnr']:7.2f} ({row['psnr_lowest']:.2f}, {row['worst_patch_psnr']:.2f})"
        print(f"{row['photos']:6}  {patch:31}  {row['ssim']:.4f}  {lpips}  {row['size_ratio']:4.2f}  {name}")
    width = max(map(len, GRID))
    for name, row in summary.items():
        print(f"\n{name}\n{'after':{width}}  protected  95% interval  accuracy left  score clean > filtered  low when clean")
        for operation, cell in row["operations"].items():
            low, high = cell["interval"]
            print(
                f"{operation:{width}}  {percent(cell['protected']):>9}  {low:5.0%} - {high:4.0%}  {cell['accuracy']:13.1%}"
                f"  {cell['score_clean']:11.1f} > {cell['score_filtered']:8.1f}  {cell['low_when_clean']:14}"
            )


def write_csv(path: Path, results: dict[str, list[Measured]], operations: Sequence[str]) -> None:
    """A line a pair, all figures."""
    figures = ("psnr", "worst_patch_psnr", "ssim", "lpips", "largest_change", "size_ratio")
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:  # a file name need not be valid Unicode
        writer = csv.writer(file)
        writer.writerow(["folder", "name", *figures, *(f"{which} {name}" for name in operations for which in ("clean", "filtered"))])
        for folder, measured in results.items():
            for one in measured:
                scores = [scores[name] for name in operations for scores in (one.clean_scores, one.filtered_scores)]
                writer.writerow([folder, one.name, *(getattr(one, figure) for figure in figures), *scores])


def latex_table(summary: dict[str, dict[str, Any]]) -> str:
    """The headline rows as a LaTeX tabular (booktabs)."""
    lines = [
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        " & ".join(["", *(f"{name} (\\%)" for name in HEADLINE), "PSNR (dB)", "worst patch (dB)", "SSIM"]) + r" \\",
        r"\midrule",
    ]
    for name, row in summary.items():
        rates = [percent(row["operations"][operation]["protected"]).removesuffix("%") for operation in HEADLINE]
        escaped = (Path(name).name or name).encode(errors="backslashreplace").decode().translate(LATEX_SPECIALS)
        lines.append(" & ".join([escaped, *rates, f"{row['psnr']:.1f}", f"{row['worst_patch_psnr']:.1f}", f"{row['ssim']:.3f}"]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def sheet_rows(measured: list[Measured], count: int, threshold: float) -> list[SheetRow]:
    """The photos to show, the worst first: those not protected at JPEG 90 by their score, then those with the worst patch."""

    def worst_first(one: Measured) -> tuple[float, float]:
        return -max(threshold, one.filtered_scores[HEADLINE[0]]), one.worst_patch_psnr

    rows = []
    for one in sorted(measured, key=worst_first)[: max(1, count)]:
        original, filtered = (read(path).pixels for path in (one.original, one.filtered))
        rows.append(SheetRow(one.name, original, filtered, one.clean_scores[HEADLINE[0]], one.filtered_scores[HEADLINE[0]], one.psnr))
    return rows


def sheet_title(row: dict[str, Any], model: str) -> str:
    """The contact sheet's title."""
    rate = row["operations"][HEADLINE[0]]["protected"]
    return f"{row['photos']} photos, {percent(rate, 0)} protected; scores of the {model} model after {HEADLINE[0]}"
