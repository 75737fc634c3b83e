"""Figures of a pair of files, original and filtered, and of many pairs together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torchvision.transforms.functional import to_pil_image
from tqdm import tqdm

from camo import CamoError
from camo.measure.after import scores_after, unscorable
from camo.measure.metrics import psnr, ssim, wilson_interval, worst_patch_psnr
from camo.measure.operations import HEADLINE
from camo.measure.regularity import regularity
from camo.photos.images import MAX_PIXELS, Photo, PhotoFile, read, to_float

LARGEST_PSNR = 100.0  # dB, for files that are equal, so that means stay finite
METRICS = ("psnr", "worst_patch_psnr", "ssim", "lpips", "largest_change", "size_ratio")  # of ``Measured``, in the order of the CSV file


@dataclass(frozen=True)
class Judgement:
    """One model's scores of a photo after an operation: the original, the filtered photo, and the original under white noise of that PSNR."""

    clean: float
    filtered: float
    noisy: float


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
        regularity, coherence: of the residual in each window of flat ground, see ``camo.measure.regularity``.
        judgements: by model and operation of ``HEADLINE``, what each quality model says.
        plain_scores: by operation, of the photo before the look that the original was given; none without a look.
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
    regularity: tuple[float, ...] = ()
    coherence: tuple[float, ...] = ()
    judgements: Mapping[str, Mapping[str, Judgement]] = field(default_factory=dict)
    plain_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """Measures pairs of files.

    Attributes:
        scorers: quality models by name, each (B, 3, H, W) float RGB in [0, 1] -> (B,). The first is scored after every operation, all of them after
            those of ``HEADLINE``.
        operations: names of ``camo.measure.operations.GRID``; scores are those after each of them.
        lpips: LPIPS's network; None leaves LPIPS out.
        device: where the networks are.
        max_pixels: the most pixels that a photo may have.
        look: gives an original the look that the filtered photo has; the result stands for the original in all figures but ``plain_scores``.
    """

    scorers: Mapping[str, nn.Module]
    operations: Sequence[str]
    lpips: nn.Module | None = None
    device: torch.device | str = "cpu"
    max_pixels: int = MAX_PIXELS
    look: Callable[[Photo], Photo] | None = None

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
            photos = [read(path, self.max_pixels) for path in (original, filtered)]
            plain = to_pil_image(photos[0].pixels)
            if self.look:
                photos[0] = self.look(photos[0])
            pixels = [photo.pixels for photo in photos]
            if pixels[0].shape != pixels[1].shape:
                sizes = " and ".join(f"{p.shape[2]}x{p.shape[1]}" for p in pixels)
                raise CamoError(f"{str(filtered)!r}: not the size of its original ({sizes})")
            before, after = (to_float(p)[None].to(self.device) for p in pixels)
            pictures = [to_pil_image(p) for p in pixels]
            first = next(iter(self.scorers.values()))
            scores = {operation: scores_after(first, pictures, operation, self.device) for operation in self.operations}
            pictures.append(to_pil_image(with_noise(pixels[0], pixels[1])))
            shares, coherences = regularity(before, after)
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
                regularity=tuple(shares.tolist()),
                coherence=tuple(coherences.tolist()),
                judgements={
                    model: {operation: Judgement(*scores_after(scorer, pictures, operation, self.device)) for operation in HEADLINE}
                    for model, scorer in self.scorers.items()
                },
                plain_scores={operation: scores_after(first, [plain], operation, self.device)[0] for operation in self.operations if self.look},
            )


def with_noise(original: Tensor, filtered: Tensor) -> Tensor:
    """The original under white Gaussian noise of the filtered photo's root mean square error, always the same noise for a size.

    The control for what a model's score owes to the mere amount of a change. Shape: two (3, H, W) uint8 -> (3, H, W) uint8.
    """
    deviation = (filtered.float() - original.float()).square().mean().sqrt()
    noise = torch.randn(original.shape, generator=Generator().manual_seed(0))
    return (original + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def summarise(measured: Sequence[Measured], operations: Sequence[str], threshold: float) -> dict[str, Any]:
    """Means over the photos, and under ``operations`` the figures after each operation, as ``summarise_operation`` gives them.

    Where the originals were given a look, ``look`` holds the control by operation: what the look does by itself.
    """

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
        **summarise_regularity(measured),
        "models": {model: summarise_model(measured, model) for model in measured[0].judgements},
        "operations": {name: summarise_operation(measured, name, threshold) for name in operations},
        "look": {name: summarise_look(measured, name, threshold) for name in operations if name in measured[0].plain_scores},
    }


def summarise_regularity(measured: Sequence[Measured]) -> dict[str, float | None]:
    """Median and 90th percentile over the windows of flat ground of all photos; None where there are none."""
    figures: dict[str, float | None] = {}
    for name in ("regularity", "coherence"):
        values = torch.tensor([value for one in measured for value in getattr(one, name)])
        figures |= {key: percentile(values, at) if len(values) else None for key, at in ((name, 0.5), (f"{name}_90th_percentile", 0.9))}
    return figures


def percentile(values: Tensor, at: float) -> float:
    """The value below which the share ``at`` of the values lies; torch's own quantile takes 16 million at most. Shape: (N,), N > 0."""
    return values.kthvalue(max(1, round(at * len(values)))).values.item()


def summarise_model(measured: Sequence[Measured], model: str) -> dict[str, dict[str, float | None]]:
    """What one model says, by operation: means over the photos, and what became of those that it ranked high.

    ``lowered`` is the share of photos that score lower than their original. ``fell`` is the share that fell below the median of the clean scores, of
    the photos above it; ``noise_fell`` is the same for white noise of the same PSNR, which shows what such a share is worth. None for one photo.
    """
    figures = {}
    for operation in HEADLINE:
        judged = [one.judgements[model][operation] for one in measured]
        middle = median(one.clean for one in judged)
        above = [one for one in judged if one.clean > middle]
        figures[operation] = {
            "clean": fmean(one.clean for one in judged),
            "filtered": fmean(one.filtered for one in judged),
            "noisy": fmean(one.noisy for one in judged),
            "lowered": fmean(one.filtered < one.clean for one in judged),
            "fell": fmean(one.filtered < middle for one in above) if above else None,
            "noise_fell": fmean(one.noisy < middle for one in above) if above else None,
        }
    return figures


def summarise_operation(measured: Sequence[Measured], operation: str, threshold: float) -> dict[str, Any]:
    """Figures of the photos after one operation.

    ``protected`` is the share that scores below the threshold after the operation, of the photos whose clean version scores above it after the same
    operation, None where there are none; ``interval`` is its 95% interval; the photos left out are counted in ``low_when_clean``. ``accuracy`` is the
    task's measure: the share of all photos that is still called good. ``score_clean`` and ``score_filtered`` are means over all photos.
    """
    clean, filtered = ([getattr(one, scores)[operation] for one in measured] for scores in ("clean_scores", "filtered_scores"))
    return {
        **summarise_protected(clean, filtered, threshold),
        "accuracy": fmean(score > threshold for score in filtered),
        "score_clean": fmean(clean),
        "score_filtered": fmean(filtered),
    }


def summarise_look(measured: Sequence[Measured], operation: str, threshold: float) -> dict[str, Any]:
    """The control of a look: the same figures for the photos in the look, not filtered, against the photos without it."""
    plain, looked = ([getattr(one, scores)[operation] for one in measured] for scores in ("plain_scores", "clean_scores"))
    return {**summarise_protected(plain, looked, threshold), "score_plain": fmean(plain), "score_looked": fmean(looked)}


def summarise_protected(before: Sequence[float], after: Sequence[float], threshold: float) -> dict[str, Any]:
    """How many of the photos that scored above the threshold before score below it after, with the rate's interval."""
    high = [score for score, first in zip(after, before, strict=True) if first > threshold]
    protected = sum(score < threshold for score in high)
    return {
        "protected": protected / len(high) if high else None,
        "interval": wilson_interval(protected, len(high)),
        "low_when_clean": len(before) - len(high),
    }
