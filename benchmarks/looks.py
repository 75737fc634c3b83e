"""What each look costs and what the filter protects on it: ``python -m benchmarks.looks FOLDER [--limit 40]``. No files are written.

For each look: the share protected after JPEG 90 and 75, of the photos that score above 50 in this look; PSNR and SSIM against the photo in this look;
the control, which is what the look does by itself to photos that score above 50 without it; CPU time of look and filter together, as a multiple of
the filter's; and what can be measured of appeal. The first row is the filter without a look. Photos are used as they are, on the CPU.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.common import tell
from camo.camouflage.looks import OneLook, SuitableLook
from camo.camouflage.memory import keep_freed_memory
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.filter.full_size import FullSize
from camo.filter.look_settings import AUTO, LOOKS
from camo.measure.after import scores_after
from camo.measure.appeal import colourfulness, contrast, newly_clipped
from camo.measure.figures import summarise_protected
from camo.measure.metrics import psnr, ssim
from camo.measure.operations import HEADLINE
from camo.photos.images import Photo, find_photos, read, to_float
from camo.quality import models

PLAIN = "none"


@torch.inference_mode()
def measure(photo: Photo, look: OneLook | SuitableLook | None, photo_filter: FullSize, scorer: nn.Module, strength: float) -> dict[str, Any]:
    """Figures of one photo in one look."""
    start = time.process_time()
    name, dressed = look(photo) if look else (PLAIN, photo)
    begin = time.process_time()
    filtered = photo_filter(dressed.pixels[None], strength)
    end = time.process_time()
    before, after = to_float(dressed.pixels[None]), to_float(filtered)
    return {
        "chosen": name,
        "scores": {operation: scores_after(scorer, [dressed.pixels, filtered[0]], operation) for operation in HEADLINE},
        "psnr": min(100.0, psnr(before, after).item()),
        "ssim": ssim(before, after).item(),
        "colourfulness": colourfulness(before).item(),
        "contrast": contrast(before).item(),
        "newly clipped": newly_clipped(photo.pixels[None], dressed.pixels[None]).item(),
        "look s": begin - start,
        "filter s": end - begin,
    }


def row(name: str, figures: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    """A line of the table: one look on all photos."""

    def mean(key: str) -> float:
        return statistics.fmean(one[key] for one in figures)

    line: dict[str, Any] = {"look": name}
    for operation in HEADLINE:
        alone, filtered = ([one["scores"][operation][index] for one in figures] for index in (0, 1))
        without = [one["scores"][operation][0] for one in plain]
        line[f"protected, {operation}"] = summarise_protected(alone, filtered, models.THRESHOLD)["protected"]
        line[f"look alone, {operation}"] = summarise_protected(without, alone, models.THRESHOLD)["protected"]
        line[f"score alone, {operation}"], line[f"score, {operation}"] = statistics.fmean(alone), statistics.fmean(filtered)
    time_ratio = sum(one["look s"] + one["filter s"] for one in figures) / sum(one["filter s"] for one in figures)
    worst = max(one["newly clipped"] for one in figures)
    return line | {key: mean(key) for key in ("psnr", "ssim", "colourfulness", "contrast")} | {"worst newly clipped": worst, "time ratio": time_ratio}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--looks", nargs="+", choices=[*LOOKS, AUTO], default=list(LOOKS), help="(default: all but auto)")
    parser.add_argument("--limit", type=int, help="the first photos only")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED_FILTER, help="the filter's weights (default: the shipped ones)")
    parser.add_argument("--strength", type=float, default=1.0, help="of the filter (default: 1)")
    parser.add_argument("--biqa", default="bundled", metavar="MODEL", help="quality model (default: bundled)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    keep_freed_memory()  # as infer.py does
    photo_filter, scorer = FullSize(load_filter(args.checkpoint)), models.load(args.biqa)
    photos = [file.path for file in find_photos([args.photos])][: args.limit]
    looks: dict[str, OneLook | SuitableLook | None] = {PLAIN: None}
    for name in args.looks:
        looks[name] = SuitableLook(photo_filter, [scorer], strength=args.strength) if name == AUTO else OneLook(name, 1.0)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in looks}
    for path in tqdm(photos, unit="photo", disable=None):
        photo = read(path)
        for name, look in looks.items():
            figures[name].append(measure(photo, look, photo_filter, scorer, args.strength))
    rows = [row(name, found, figures[PLAIN]) for name, found in figures.items()]
    for name in set(args.looks) & {AUTO}:
        chosen = [one["chosen"] for one in figures[name]]
        print(f"{name} chose: " + ", ".join(f"{look} {chosen.count(look)}" for look in sorted(set(chosen))))
    tell("looks", rows, args.json)


if __name__ == "__main__":
    main()
