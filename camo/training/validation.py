"""Validation during training, on what a file would hold: 8-bit pixels, then the real JPEG 90."""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from camo.measure.metrics import psnr, ssim
from camo.photos.images import jpeg_roundtrip, to_float, to_uint8
from camo.quality.models import THRESHOLD


@torch.inference_mode()
def validate(model: nn.Module, scorer: nn.Module, loader: DataLoader[Tensor], device: torch.device) -> tuple[dict[str, float], Tensor]:
    """Filter, round, compress, score.

    Args:
        model: the filter, (B, 3, H, W) in [0, 1] -> the same.
        scorer: quality model, (B, 3, H, W) in [0, 1] -> (B,).
        loader: batches of (B, 3, H, W) uint8 photos.
        device: where model and scorer are.

    Returns:
        figures: means over the photos; ``protected_rate`` and ``merit`` over those that score high when clean (PSNR in dB of the protected, 0 dB
            for the unprotected: what "best" means).
        rows: up to four pictures original | filtered | 10x residual, (N, 3, H, 3 W) in [0, 1].
    """
    clean, after, decibels, similarity, rows = [], [], [], [], []
    for pixels in loader:
        original = to_float(pixels).to(device)
        filtered = to_float(to_uint8(model(original)))
        clean.append(scorer(jpeg_roundtrip(original, 90)))
        after.append(scorer(jpeg_roundtrip(filtered, 90)))
        decibels.append(psnr(original, filtered))
        similarity.append(ssim(original, filtered))
        rows.append(torch.cat([original, filtered, (0.5 + 10 * (filtered - original)).clamp(0, 1)], dim=3).cpu())
    clean, after, decibels = torch.cat(clean), torch.cat(after), torch.cat(decibels).clamp(max=100)
    high = clean > THRESHOLD  # images that score low when clean need no protection
    protected = after[high] < THRESHOLD
    figures = {
        "protected_rate": protected.float().mean().item(),
        "score_clean": clean.mean().item(),
        "score_after": after.mean().item(),
        "psnr": decibels.mean().item(),
        "ssim": torch.cat(similarity).mean().item(),
        "merit": (decibels[high] * protected).mean().item(),
    }
    return figures, torch.cat(rows)[:4]
