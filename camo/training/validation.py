"""Validation during training, on what a file would hold: 8-bit pixels, then a real JPEG file of quality 90."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from camo import CamoError
from camo.measure.metrics import psnr, ssim
from camo.photos.images import jpeg_roundtrip, to_float, to_uint8
from camo.training.crops import CentreCrops


class Validation:
    """``validation(model) -> (figures, pictures)``: filter the held-out photos, round to 8 bits, compress, score.

    The clean photos are scored once, when this is made: their scores do not change.

    Args:
        photos: files; each is reduced or enlarged to cover 512x384, and cut to it about its centre.
        scorer: quality model, (B, 3, H, W) float RGB in [0, 1] -> (B,).
        threshold: a photo that scores more is of high quality, and protected where it scores less once filtered.
        batch_size: photos that are filtered and scored at once.
        device: where the scorer and the filters are.

    Raises CamoError where no photo scores above the threshold, since there is then nothing to protect, and where a photo cannot be read.
    """

    QUALITY = 90  # of the JPEG, as the task's organisers compress
    PICTURES = 4

    def __init__(self, photos: list[Path], scorer: nn.Module, threshold: float, batch_size: int, device: torch.device) -> None:
        self.loader = DataLoader(CentreCrops(photos, (384, 512)), batch_size)
        self.scorer, self.threshold, self.device = scorer, threshold, device
        with torch.inference_mode():
            self.clean = torch.cat([self._score(to_float(pixels).to(device)) for pixels in self.loader])
        if not (self.clean > threshold).any():
            raise CamoError(
                f"none of the {len(photos)} validation photos scores above --threshold {threshold} (the highest score is {self.clean.max():.1f}),"
                " so there is nothing to protect: validate on other photos (--val) or lower the threshold"
            )

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> tuple[dict[str, float], Tensor]:
        """Validate a filter, (B, 3, H, W) float RGB in [0, 1] -> the same.

        Returns:
            figures: means over the photos; ``protected_rate`` and ``merit`` over those that score high when clean. The merit, by which the best
                filter is chosen, is the PSNR in dB of the protected photos and 0 dB for the others.
            pictures: original, filtered and the residual ten times as strong, side by side, of up to four photos: (N, 3, 384, 3 x 512) in [0, 1].

        Raises CamoError where a figure is not finite.
        """
        scores, decibels, similarity = [], [], []
        pictures: list[Tensor] = []
        for pixels in self.loader:
            original = to_float(pixels).to(self.device)
            filtered = to_float(to_uint8(model(original)))
            scores.append(self._score(filtered))
            decibels.append(psnr(original, filtered).clamp(max=100))  # an unchanged photo's is infinite
            similarity.append(ssim(original, filtered))
            if len(pictures) < self.PICTURES:
                pictures.extend(torch.cat([original, filtered, (0.5 + 10 * (filtered - original)).clamp(0, 1)], dim=3).cpu())
        after, distance = torch.cat(scores), torch.cat(decibels)
        high = self.clean > self.threshold
        protected = after[high] < self.threshold
        figures = {
            "protected_rate": protected.float().mean().item(),
            "score_clean": self.clean.mean().item(),
            "score_after": after.mean().item(),
            "psnr": distance.mean().item(),
            "ssim": torch.cat(similarity).mean().item(),
            "merit": (distance[high] * protected).mean().item(),
        }
        if wrong := [name for name, value in figures.items() if not math.isfinite(value)]:
            raise CamoError(f"validation: {wrong[0]} is {figures[wrong[0]]}")
        return figures, torch.stack(pictures[: self.PICTURES])

    def _score(self, image: Tensor) -> Tensor:
        return self.scorer(jpeg_roundtrip(image, self.QUALITY))
