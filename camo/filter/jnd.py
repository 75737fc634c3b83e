"""Just-noticeable-difference (JND) map: how much each pixel may change before an eye sees it.

Luminance adaptation (Chou and Li, "A perceptually tuned subband image coder", 1995) and contrast masking, combined by the nonlinear additivity
model, in the form of Wu et al., "Enhanced just noticeable difference estimation for images with pattern complexity", IEEE TIP 2017. That model
doubles the adaptation from mid-grey to white; here it stays, since what it allows in bright skies was seen.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class JustNoticeableDifference(nn.Module):
    """JND of each pixel's luminance.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B, 1, H, W) in the same unit, about 0.0014 (flat mid-grey) to 0.1 (busy texture).
    """

    DARKEST: Final = 6.0  # of 255; the model allows 20 in the dark, measured on tubes; screens of today show more there
    FLAT: Final = 0.12  # of the adaptation; the model is for noise, and a pattern is seen sooner on a flat ground
    REACH: Final = 2  # px, of a pixel's neighbourhood to each side
    OVERLAP: Final = 0.3  # of the lesser effect, which both would count

    def __init__(self) -> None:
        super().__init__()
        background = torch.tensor([[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 0, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]) / 32
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("background", background[None, None], persistent=False)
        self.register_buffer("gradients", torch.stack([sobel, sobel.T])[:, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The map of an image; gradients do not flow through it."""
        luminance = 255 * (image.detach().float() * self.luma).sum(1, keepdim=True)
        mean = F.conv2d(F.pad(luminance, [self.REACH] * 4, mode="replicate"), self.background)
        adaptation = self.FLAT * (17 * (1 - (mean / 127).clamp(0, 1).sqrt()) + 3).clamp(max=self.DARKEST)
        slopes = F.conv2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), self.gradients)
        contrast = slopes.square().sum(1, keepdim=True).sqrt()
        masking = 0.115 * 16 * contrast.pow(2.4) / (contrast.square() + 26**2)
        return (adaptation + masking - self.OVERLAP * torch.minimum(adaptation, masking)) / 255
