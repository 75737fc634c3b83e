"""Full-reference measures of how visible a change is, per image, and the uncertainty of a rate."""

import math

import torch
import torch.nn.functional as F
from kornia.metrics import ssim as ssim_map
from torch import Tensor

MSE_40_DB = 1e-4  # mean squared error of values in [0, 1] at a PSNR of 40 dB


def psnr(original: Tensor, filtered: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal images.

    Shape: two (B, 3, H, W) float RGB in [0, 1] -> (B,).
    """
    return -10 * torch.log10((original - filtered).square().mean((1, 2, 3)))


def ssim(original: Tensor, filtered: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004): Gaussian window of 11, sigma 1.5, mean over RGB channels and pixels.

    Shape: two (B, 3, H, W) float RGB in [0, 1], sides of 11 px or more -> (B,) in -1..1.
    """
    return ssim_map(original, filtered, window_size=11).mean((1, 2, 3))


def worst_patch_psnr(original: Tensor, filtered: Tensor, patch: int = 64) -> Tensor:
    """PSNR in dB of the worst of the windows of ``patch_errors``.

    Shape: two (B, 3, H, W) float RGB in [0, 1] -> (B,).
    """
    return -10 * torch.log10(patch_errors(original, filtered, patch).amax((1, 2, 3)))


def patch_errors(original: Tensor, filtered: Tensor, patch: int = 64) -> Tensor:
    """Mean squared error of every ``patch`` x ``patch`` px window, windows half a patch apart (of the whole side where that is shorter).

    Shape: two (B, 3, H, W) float RGB in [0, 1] -> (B, 1, H', W').
    """
    error = (original - filtered).square().mean(1, keepdim=True)
    return F.avg_pool2d(error, [min(patch, side) for side in error.shape[-2:]], stride=patch // 2)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95% score interval of a rate (Wilson, JASA 1927), which stays within [0, 1] for few trials too; (0, 1) for none."""
    if not trials:
        return 0.0, 1.0
    z, rate = 1.959964, successes / trials
    middle, width = rate + z * z / (2 * trials), z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)
