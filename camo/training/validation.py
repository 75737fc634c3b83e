"""Validation during training, on what a file would hold: 8-bit pixels, then a real JPEG file of quality 90."""

import math
from collections.abc import Mapping, Sequence
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
        scorers: quality models by name, (B, 3, H, W) float RGB in [0, 1] -> (B,).
        thresholds: for each model, the score above which a photo is of high quality. A photo that any model scores so is protected where all of them
            score it less once filtered.
        batch_size: photos that are filtered and scored at once.
        device: where the scorers and the filters are.

    Raises CamoError where no photo scores above a model's threshold, since there is then nothing to protect, and where a photo cannot be read.
    """

    QUALITY = 90  # of the JPEG, as the task's organisers compress
    PICTURES = 4

    def __init__(
        self, photos: list[Path], scorers: Mapping[str, nn.Module], thresholds: Sequence[float], batch_size: int, device: torch.device
    ) -> None:
        self.loader = DataLoader(CentreCrops(photos, (384, 512)), batch_size)
        self.scorers, self.device = scorers, device
        self.thresholds = torch.tensor(thresholds, device=device)
        with torch.inference_mode():
            self.clean = torch.cat([self._scores(to_float(pixels).to(device)) for pixels in self.loader])
        for name, threshold, highest in zip(scorers, thresholds, self.clean.amax(0).tolist(), strict=True):
            if not highest > threshold:
                raise CamoError(
                    f"{name}: none of the {len(photos)} validation photos scores above --threshold {threshold} (the highest score is {highest:.1f}),"
                    " so there is nothing to protect: validate on other photos (--val) or lower the threshold"
                )

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> tuple[dict[str, float], Tensor]:
        """Validate a filter, (B, 3, H, W) float RGB in [0, 1] -> the same.

        Returns:
            figures: means over the photos; ``protected_rate`` and ``merit`` over those that score high when clean. The merit, by which the best
                filter is chosen, is the PSNR in dB of the protected photos and 0 dB for the others. Those that end in a model's name are about
                its scores alone.
            pictures: original, filtered and the residual ten times as strong, side by side, of up to four photos: (N, 3, 384, 3 x 512) in [0, 1].

        Raises CamoError where a figure is not finite.
        """
        scores, decibels, similarity = [], [], []
        pictures: list[Tensor] = []
        for pixels in self.loader:
            original = to_float(pixels).to(self.device)
            filtered = to_float(to_uint8(model(original)))
            scores.append(self._scores(filtered))
            decibels.append(psnr(original, filtered).clamp(max=100))  # an unchanged photo's is infinite
            similarity.append(ssim(original, filtered))
            if len(pictures) < self.PICTURES:
                pictures.extend(torch.cat([original, filtered, (0.5 + 10 * (filtered - original)).clamp(0, 1)], dim=3).cpu())
        after, distance = torch.cat(scores), torch.cat(decibels)
        high, low = self.clean > self.thresholds, after < self.thresholds
        protected = low.all(1)[high.any(1)].float()
        figures = {
            "protected_rate": protected.mean().item(),
            "psnr": distance.mean().item(),
            "ssim": torch.cat(similarity).mean().item(),
            "merit": (distance[high.any(1)] * protected).mean().item(),
        }
        for number, name in enumerate(self.scorers):
            figures |= {
                f"protected_rate {name}": low[high[:, number], number].float().mean().item(),
                f"score_clean {name}": self.clean[:, number].mean().item(),
                f"score_after {name}": after[:, number].mean().item(),
            }
        if wrong := [name for name, value in figures.items() if not math.isfinite(value)]:
            raise CamoError(f"validation: {wrong[0]} is {figures[wrong[0]]}")
        return figures, torch.stack(pictures[: self.PICTURES])

    def _scores(self, image: Tensor) -> Tensor:
        """Shape: (B, 3, H, W) float RGB in [0, 1] -> (B, M)."""
        compressed = jpeg_roundtrip(image, self.QUALITY)
        return torch.stack([scorer(compressed).float() for scorer in self.scorers.values()], dim=1)
