"""Full-reference measures of how visible a change is, per image."""

import torch
from kornia.metrics import ssim as ssim_map
from torch import Tensor


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
