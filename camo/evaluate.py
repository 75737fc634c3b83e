"""The verb ``evaluate``: what a filter did, measured on the files it wrote: read again, passed through the real JPEG, scored."""

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn
from tqdm import tqdm

from camo import CamoError, __version__, biqa
from camo.images import find_photos, jpeg_roundtrip, read, to_float
from camo.metrics import psnr, ssim
from camo.report import SheetRow, contact_sheet

LARGEST_PSNR = 100.0  # dB, for files that are equal, so that means stay finite


@dataclass(frozen=True)
class Measured:
    """Figures of one pair of files. Scores are after JPEG at each of the qualities asked for."""

    name: str
    score_clean: list[float]
    score_filtered: list[float]
    psnr: float
    ssim: float
    size_ratio: float  # bytes of the filtered file to those of the original


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("originals", type=Path, help="folder of the original photos")
    parser.add_argument("filtered", type=Path, nargs="+", help="folders of the same photos, camouflaged (a run code before the name is understood)")
    parser.add_argument("--out", type=Path, required=True, help="folder for summary.json, images.csv and contact_sheet.png; replaces those")
    parser.add_argument("--biqa", default="bundled", help="bundled, koncept512[:FILE] or FILE.ts (default: bundled)")
    parser.add_argument("--jpeg", type=int, nargs="+", default=[90, 75], metavar="Q", help="JPEG qualities before scoring (default: 90 75)")
    parser.add_argument("--threshold", type=float, default=biqa.THRESHOLD, help="protected means below this score (default: 50)")
    parser.add_argument("--rows", type=int, default=6, help="photos on the contact sheet, of the first folder (default: 6)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Measure every folder, print a table, write the files; the exit status is 1 when a photo has no partner or cannot be measured."""
    if bad := [quality for quality in args.jpeg if not 1 <= quality <= 100]:
        raise CamoError(f"--jpeg {bad[0]}: should be 1..100")
    scorer = biqa.load(args.biqa, args.device)
    faults: list[str] = []
    results: dict[str, list[Measured]] = {}
    paired: dict[str, list[tuple[Path, Path]]] = {}
    for folder in args.filtered:
        paired[str(folder)] = pair(args.originals, folder, faults)
        results[str(folder)] = measure_all(paired[str(folder)], scorer, args.jpeg, args.device, faults)
    summary = {name: summarise(measured, args.jpeg, args.threshold) for name, measured in results.items() if measured}
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if not summary:
        raise CamoError(f"{args.filtered[0]}: nothing could be measured")
    print_table(summary, args.jpeg)
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"version": __version__, "biqa": args.biqa, "jpeg": args.jpeg, "threshold": args.threshold, "originals": str(args.originals)}
    (args.out / "summary.json").write_text(json.dumps({"settings": settings, "results": summary, "faults": faults}, indent=1) + "\n")
    write_csv(args.out / "images.csv", results, args.jpeg)
    first = next(iter(summary))
    rate, quality = summary[first][f"protected_q{args.jpeg[0]}"], args.jpeg[0]
    title = f"{summary[first]['photos']} photos, {rate:.0%} protected; scores of the {args.biqa} model after JPEG {quality}"
    contact_sheet(sheet_rows(results[first], paired[first], args.rows), title).save(args.out / "contact_sheet.png")
    print(f"contact sheet: {args.out / 'contact_sheet.png'}")
    return 1 if faults else 0


def pair(originals: Path, filtered: Path, faults: list[str]) -> list[tuple[Path, Path]]:
    """Pairs (original, filtered) of equal stem, the filtered one's run code left aside; what has no partner is added to ``faults``."""
    sources = {photo.path.stem: photo.path for photo in find_photos([originals])}
    pairs = []
    for photo in find_photos([filtered]):
        parts = photo.path.stem.split("_")
        stem = next((tail for tail in ("_".join(parts[i:]) for i in range(len(parts))) if tail in sources), None)
        if stem is None:
            faults.append(f"{photo.path}: no original of this name in {originals}")
        else:
            pairs.append((sources.pop(stem), photo.path))
    faults += [f"{path}: not in {filtered}" for path in sources.values()]
    return pairs


def measure_all(pairs: list[tuple[Path, Path]], scorer: nn.Module, qualities: Sequence[int], device: str, faults: list[str]) -> list[Measured]:
    """Figures of every pair that can be measured; the others' faults are added to ``faults``."""
    measured = []
    for original, filtered in tqdm(pairs, desc="evaluate", unit="photo", disable=None):
        try:
            measured.append(measure(original, filtered, scorer, qualities, device))
        except CamoError as error:
            faults.append(str(error))
    return measured


@torch.inference_mode()
def measure(original: Path, filtered: Path, scorer: nn.Module, qualities: Sequence[int], device: str) -> Measured:
    """Figures of one pair. Raises CamoError where a file cannot be read or the sizes differ."""
    pixels = [read(path).pixels for path in (original, filtered)]
    if pixels[0].shape != pixels[1].shape:
        sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in pixels)
        raise CamoError(f"{filtered}: not the size of its original ({sizes})")
    before, after = (to_float(p)[None].to(device) for p in pixels)

    def scores(image: Tensor) -> list[float]:
        return [scorer(jpeg_roundtrip(image, quality)).item() for quality in qualities]

    return Measured(
        name=filtered.name,
        score_clean=scores(before),
        score_filtered=scores(after),
        psnr=min(LARGEST_PSNR, psnr(before, after).item()),
        ssim=ssim(before, after).item(),
        size_ratio=filtered.stat().st_size / original.stat().st_size,
    )


def summarise(measured: list[Measured], qualities: Sequence[int], threshold: float) -> dict[str, float]:
    """Means over the photos; protected rates over those that score above the threshold when clean, after the same JPEG."""
    summary: dict[str, float] = {"photos": len(measured)}
    for i, quality in enumerate(qualities):
        high = [one for one in measured if one.score_clean[i] > threshold]
        summary[f"low_when_clean_q{quality}"] = len(measured) - len(high)
        summary[f"protected_q{quality}"] = fmean(one.score_filtered[i] < threshold for one in high) if high else math.nan
        summary[f"score_clean_q{quality}"] = fmean(one.score_clean[i] for one in measured)
        summary[f"score_filtered_q{quality}"] = fmean(one.score_filtered[i] for one in measured)
    for name in ("psnr", "ssim", "size_ratio"):
        summary[name] = fmean(getattr(one, name) for one in measured)
    summary["psnr_lowest"] = min(one.psnr for one in measured)
    return summary


def print_table(summary: dict[str, dict[str, float]], qualities: Sequence[int]) -> None:
    """A line a folder: protected rate with scores before and after for each quality, then PSNR and SSIM."""
    print("photos  " + "".join(f"JPEG {quality}: protected, score before > after   " for quality in qualities) + "PSNR dB (lowest)   SSIM   folder")
    for name, row in summary.items():
        cells = "".join(
            f"{row[f'protected_q{q}']:18.1%}  {row[f'score_clean_q{q}']:6.1f} > {row[f'score_filtered_q{q}']:4.1f}          " for q in qualities
        )
        print(f"{row['photos']:6}  {cells}{row['psnr']:7.2f} ({row['psnr_lowest']:.2f})  {row['ssim']:.4f}  {name}")


def write_csv(path: Path, results: dict[str, list[Measured]], qualities: Sequence[int]) -> None:
    """A line a pair, all figures."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        scores = [f"{which}_q{quality}" for which in ("score_clean", "score_filtered") for quality in qualities]
        writer.writerow(["folder", "name", *scores, "psnr", "ssim", "size_ratio"])
        for folder, measured in results.items():
            for one in measured:
                row = asdict(one)
                writer.writerow([folder, one.name, *one.score_clean, *one.score_filtered, row["psnr"], row["ssim"], row["size_ratio"]])


def sheet_rows(measured: list[Measured], pairs: list[tuple[Path, Path]], count: int) -> list[SheetRow]:
    """The photos for the contact sheet, evenly spread from the lowest PSNR to the highest."""
    sources = {filtered.name: (original, filtered) for original, filtered in pairs}
    ranked = sorted(measured, key=lambda one: one.psnr)
    count = max(1, min(count, len(ranked)))
    chosen = [ranked[round(i * (len(ranked) - 1) / max(1, count - 1))] for i in range(count)]
    rows = []
    for one in chosen:
        original, filtered = (read(path).pixels for path in sources[one.name])
        rows.append(SheetRow(one.name, original, filtered, one.score_clean[0], one.score_filtered[0], one.psnr))
    return rows
