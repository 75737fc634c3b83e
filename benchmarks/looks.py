"""What each look costs and what the filter protects on it: ``python -m benchmarks.looks FOLDER [--limit 40]``. No files are written.

For each look: the share protected after JPEG 90 and 75 and at half the size, of the photos that score above 50 in this look; PSNR and SSIM against
the photo in this look; the control, which is what the look does by itself to photos that score above 50 without it; CPU time of look and filter
together, as a multiple of the filter's; and what can be measured of appeal. The first row is the filter without a look. The last row is no look:
"film, in its grain" holds the residual to the strength of the grain and weakens the grain so far that the sum is as strong as the grain alone.
Photos are used as they are, on the CPU.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.common import tell
from camo.camouflage.looks import OneLook, SuitableLook
from camo.camouflage.memory import keep_freed_memory
from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
from camo.filter.full_size import FullSize
from camo.filter.look_pixels import LookPixels
from camo.filter.look_settings import AUTO, LOOKS
from camo.filter.looks import Look
from camo.measure.after import scores_after
from camo.measure.appeal import colourfulness, contrast, newly_clipped
from camo.measure.figures import summarise_protected
from camo.measure.metrics import psnr, ssim
from camo.measure.operations import HEADLINE
from camo.photos.images import Photo, find_photos, read, to_float, to_uint8
from camo.quality import models

PLAIN, IN_GRAIN = "none", "film, in its grain"
OPERATIONS = (*HEADLINE, "resize 0.5 and back")


class InGrain:
    """``in_grain(pixels)``: photos in the look "film", their grain shaped into the camouflage. Shape: (B, 3, H, W) uint8 -> the same.

    Strength is the energy in a window of 15x15 px.

    Args:
        photo_filter: runs on the photos without their grain.
        strength: of the filter.
    """

    def __init__(self, photo_filter: FullSize, strength: float) -> None:
        self.photo_filter, self.strength = photo_filter, strength
        self.grained, self.smooth = LookPixels(Look(LOOKS["film"])), LookPixels(Look(replace(LOOKS["film"], grain=0.0)))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Dress and camouflage."""
        ungrained = self.smooth(pixels)
        smooth, grain = to_float(ungrained), to_float(self.grained(pixels)) - to_float(ungrained)
        residual = to_float(self.photo_filter(ungrained, self.strength)) - smooth
        room = self.energy(grain)
        residual = residual * (room / self.energy(residual)).clamp(max=1).sqrt()
        kept = (1 - self.energy(residual) / room).clamp(0, 1).sqrt()
        return to_uint8((smooth + residual + kept * grain).clamp(0, 1))

    @staticmethod
    def energy(field: Tensor) -> Tensor:
        """Mean square around each pixel, (B, 3, H, W) -> (B, 1, H, W)."""
        return F.avg_pool2d(F.pad(field.square().mean(1, keepdim=True), (7, 7, 7, 7), mode="reflect"), 15, 1) + 1e-9


@torch.inference_mode()
def measure(photo: Photo, look: OneLook | SuitableLook | None, camouflage: Callable[[Tensor, Tensor], Tensor], scorer: nn.Module) -> dict[str, Any]:
    """Figures of one photo in one look; ``camouflage`` maps its pixels before and in the look to those of the result, all (1, 3, H, W) uint8."""
    start = time.process_time()
    name, dressed = look(photo) if look else (PLAIN, photo)
    begin = time.process_time()
    filtered = camouflage(photo.pixels[None], dressed.pixels[None])
    end = time.process_time()
    before, after = to_float(dressed.pixels[None]), to_float(filtered)
    return {
        "chosen": name,
        "scores": {operation: scores_after(scorer, [dressed.pixels, filtered[0]], operation) for operation in OPERATIONS},
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
    for operation in OPERATIONS:
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
    looks[IN_GRAIN] = OneLook("film", 1.0)
    in_grain = InGrain(photo_filter, args.strength)
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in looks}
    for path in tqdm(photos, unit="photo", disable=None):
        photo = read(path)
        for name, look in looks.items():
            camouflage = (lambda plain, looked: in_grain(plain)) if name == IN_GRAIN else (lambda plain, looked: photo_filter(looked, args.strength))
            figures[name].append(measure(photo, look, camouflage, scorer))
    rows = [row(name, found, figures[PLAIN]) for name, found in figures.items()]
    for name in set(args.looks) & {AUTO}:
        chosen = [one["chosen"] for one in figures[name]]
        print(f"{name} chose: " + ", ".join(f"{look} {chosen.count(look)}" for look in sorted(set(chosen))))
    tell("looks", rows, args.json)


if __name__ == "__main__":
    main()
