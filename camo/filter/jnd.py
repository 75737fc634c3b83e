"""Just-noticeable-difference (JND) map: how much each pixel may change before an eye sees it.

Luminance adaptation (Chou and Li, "A perceptually tuned subband image coder", 1995) and contrast masking, combined by the nonlinear additivity
model, in the form of Wu et al., "Enhanced just noticeable difference estimation for images with pattern complexity", IEEE TIP 2017. That model
doubles the adaptation from mid-grey to white; here it stays, since what it allows in bright skies was seen.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo.filter.settings import JNDSettings


class JustNoticeableDifference(nn.Module):
    """JND of each pixel's luminance.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B, 1, H, W) in the same unit, about 0.0014 (flat mid-grey) to 0.1 (busy texture).

    Args:
        settings: where the map departs from the published models.
    """

    REACH: Final = 2  # px to each side that a pixel's value depends on: half of the 5x5 kernel below

    luma: Tensor
    background: Tensor
    gradients: Tensor

    def __init__(self, settings: JNDSettings = JNDSettings()) -> None:  # noqa: B008 (it is frozen)
        super().__init__()
        self.darkest, self.flat, self.overlap = settings.darkest, settings.flat, settings.overlap  # TorchScript knows numbers only
        background = torch.tensor([[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 0, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]) / 32
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("background", background[None, None], persistent=False)
        self.register_buffer("gradients", torch.stack([sobel, sobel.T])[:, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The map of an image; gradients do not flow through it."""
        luminance = 255 * (image.detach().float() * self.luma).sum(1, keepdim=True)
        mean = F.conv2d(F.pad(luminance, [self.REACH] * 4, mode="replicate"), self.background)
        adaptation = self.flat * (17 * (1 - (mean / 127).clamp(0, 1).sqrt()) + 3).clamp(max=self.darkest)
        slopes = F.conv2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), self.gradients)
        contrast = slopes.square().sum(1, keepdim=True).sqrt()
        masking = 0.115 * 16 * contrast.pow(2.4) / (contrast.square() + 26**2)
        return (adaptation + masking - self.overlap * torch.minimum(adaptation, masking)) / 255
