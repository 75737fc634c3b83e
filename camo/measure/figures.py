"""Figures of a pair of files, original and filtered, and of many pairs together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from camo import CamoError
from camo.measure.after import scores_after, unscorable
from camo.measure.metrics import psnr, ssim, wilson_interval, worst_patch_psnr
from camo.photos.images import PhotoFile, read, to_float

LARGEST_PSNR = 100.0  # dB, for files that are equal, so that means stay finite
METRICS = ("psnr", "worst_patch_psnr", "ssim", "lpips", "largest_change", "size_ratio")  # of ``Measured``, in the order of the CSV file


@dataclass(frozen=True)
class Measured:
    """Figures of one pair of files.

    Attributes:
        name, original, filtered: what the filtered file is called in tables, and both paths.
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


@dataclass(frozen=True)
class Evaluator:
    """Measures pairs of files.

    Attributes:
        scorer: quality model, (B, 3, H, W) float RGB in [0, 1] -> (B,).
        operations: names of ``camo.measure.operations.GRID``; scores are those after each of them.
        lpips: LPIPS's network; None leaves LPIPS out.
        device: where the networks are.
    """

    scorer: nn.Module
    operations: Sequence[str]
    lpips: nn.Module | None = None
    device: torch.device | str = "cpu"

    def measure_all(self, pairs: Sequence[tuple[Path, PhotoFile]], faults: list[str]) -> list[Measured]:
        """Figures of every pair that can be measured; for each of the others one line is added to ``faults``."""
        measured = []
        for original, filtered in tqdm(pairs, desc="evaluate", unit="photo", disable=None):
            try:
                measured.append(self.measure(original, filtered.path, str(filtered.relative)))
            except CamoError as error:
                faults.append(str(error))
        return measured

    @torch.inference_mode()
    def measure(self, original: Path, filtered: Path, name: str | None = None) -> Measured:
        """Figures of one pair; ``name`` is by default that of the filtered file.

        Raises:
            CamoError: a file that cannot be read or scored, or sizes that differ.
        """
        with unscorable(f"{str(filtered)!r}: cannot be measured"):
            pixels = [read(path).pixels for path in (original, filtered)]
            if pixels[0].shape != pixels[1].shape:
                sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in pixels)
                raise CamoError(f"{str(filtered)!r}: not the size of its original ({sizes})")
            before, after = (to_float(p)[None].to(self.device) for p in pixels)
            pictures = [to_pil_image(p) for p in pixels]
            scores = {operation: scores_after(self.scorer, pictures, operation, self.device) for operation in self.operations}
            return Measured(
                name=filtered.name if name is None else name,
                original=original,
                filtered=filtered,
                clean_scores={operation: clean for operation, (clean, _) in scores.items()},
                filtered_scores={operation: score for operation, (_, score) in scores.items()},
                psnr=min(LARGEST_PSNR, psnr(before, after).item()),
                worst_patch_psnr=min(LARGEST_PSNR, worst_patch_psnr(before, after).item()),
                ssim=ssim(before, after).item(),
                lpips=self.lpips(before, after, normalize=True).item() if self.lpips else None,
                largest_change=int((pixels[1].int() - pixels[0].int()).abs().max()),
                size_ratio=filtered.stat().st_size / original.stat().st_size,
            )


def summarise(measured: Sequence[Measured], operations: Sequence[str], threshold: float) -> dict[str, Any]:
    """Means over the photos, and under ``operations`` the figures after each operation, as ``summarise_operation`` gives them."""

    def mean(of: Callable[[Measured], float]) -> float:
        return fmean(map(of, measured))

    distances = [one.lpips for one in measured if one.lpips is not None]
    return {
        "photos": len(measured),
        "psnr": mean(lambda one: one.psnr),
        "psnr_lowest": min(one.psnr for one in measured),
        "psnr_5th_percentile": torch.tensor([one.psnr for one in measured]).quantile(0.05).item(),
        "worst_patch_psnr": mean(lambda one: one.worst_patch_psnr),
        "ssim": mean(lambda one: one.ssim),
        "lpips": fmean(distances) if distances else None,
        "largest_change": max(one.largest_change for one in measured),
        "size_ratio": mean(lambda one: one.size_ratio),
        "operations": {name: summarise_operation(measured, name, threshold) for name in operations},
    }


def summarise_operation(measured: Sequence[Measured], operation: str, threshold: float) -> dict[str, Any]:
    """Figures of the photos after one operation.

    ``protected`` is the share that scores below the threshold after the operation, of the photos whose clean version scores above it after the same
    operation, None where there are none; ``interval`` is its 95% interval; the photos left out are counted in ``low_when_clean``. ``accuracy`` is the
    task's measure: the share of all photos that is still called good. ``score_clean`` and ``score_filtered`` are means over all photos.
    """
    clean, filtered = ([getattr(one, scores)[operation] for one in measured] for scores in ("clean_scores", "filtered_scores"))
    high = [score for score, before in zip(filtered, clean, strict=True) if before > threshold]
    protected = sum(score < threshold for score in high)
    return {
        "protected": protected / len(high) if high else None,
        "interval": wilson_interval(protected, len(high)),
        "low_when_clean": len(measured) - len(high),
        "accuracy": fmean(score > threshold for score in filtered),
        "score_clean": fmean(clean),
        "score_filtered": fmean(filtered),
    }
