"""Just-noticeable-difference (JND) map: how much each pixel may change before an eye sees it.

Luminance adaptation (Chou and Li, "A perceptually tuned subband image coder", 1995) and contrast masking, combined by the nonlinear additivity
model, in the form of Wu et al., "Enhanced just noticeable difference estimation for images with pattern complexity", IEEE TIP 2017. That model
doubles the adaptation from mid-grey to white; here it stays, since what it allows in bright skies was seen.

That paper's complexity of patterns says that contrast hides little where it has one direction only. Here the structure tensor tells how far a place
is one straight, strong edge (Förstner and Gülch, "A fast operator for detection and precise location of distinct points", 1987).
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo.filter.settings import JNDSettings


def sums(x: Tensor, size: int, dim: int) -> Tensor:
    """Sums of ``size`` neighbours along one dimension, which gets shorter by ``size - 1``.

    For one channel, two to ten times as fast on a CPU as a convolution with ones, and the more so the wider the image.
    """
    length = x.shape[dim] - size + 1
    total = x.narrow(dim, 0, length)
    for first in range(1, size):
        total = total + x.narrow(dim, first, length)
    return total


class JustNoticeableDifference(nn.Module):
    """JND of each pixel's luminance.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B, 1, H, W) in the same unit, about 0.0014 (flat mid-grey) to 0.1 (busy texture).

    Args:
        settings: where the map departs from the published models.
    """

    REACH: Final = 5  # px to each side that a pixel's value depends on: half of the 9 px below, and of the 3 px before
    EDGE: Final = 12.0  # of 255 per px: slope at which a straight edge counts half
    BLUR: Final = 1.5  # px, standard deviation: what lies within it is one place

    luma: Tensor
    gaussian: Tensor

    def __init__(self, settings: JNDSettings = JNDSettings()) -> None:  # noqa: B008 (it is frozen)
        super().__init__()
        self.darkest, self.flat, self.overlap, self.edges = settings.darkest, settings.flat, settings.overlap, settings.edges  # for TorchScript
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1), persistent=False)
        gaussian = torch.exp(-torch.arange(-4.0, 5.0).square() / (2 * self.BLUR**2))
        self.register_buffer("gaussian", (gaussian / gaussian.sum()).expand(3, 1, 1, 9).clone(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The map of an image; gradients do not flow through it."""
        luminance = 255 * (image.detach().float() * self.luma).sum(1, keepdim=True)
        mean = self.background(luminance)
        adaptation = self.flat * (17 * (1 - (mean / 127).clamp(0, 1).sqrt()) + 3).clamp(max=self.darkest)
        slopes = self.slopes(luminance)
        contrast = slopes.square().sum(1, keepdim=True).sqrt()
        masking = 0.115 * 16 * contrast.pow(2.4) / (contrast.square() + 26**2)
        seen = (adaptation + masking - self.overlap * torch.minimum(adaptation, masking)) / 255
        return seen * (1 - self.edges * self.straightness(self.structure(slopes))) if self.edges > 0 else seen

    def background(self, luminance: Tensor) -> Tensor:
        """Chou and Li's weighted mean of the pixels around each: 2 for the eight next to it, 1 for the sixteen around these. Shape: as the input."""
        near = F.pad(luminance, (2, 2, 2, 2), mode="replicate")
        wide = sums(sums(near, 5, 2), 5, 3)
        near = near[..., 1:-1, 1:-1]
        return (wide + sums(sums(near, 3, 2), 3, 3) - 2 * luminance) / 32

    def slopes(self, luminance: Tensor) -> Tensor:
        """Sobel's slopes to the right and down, per px. Shape: (B, 1, H, W) -> (B, 2, H, W)."""
        near = F.pad(luminance, (1, 1, 1, 1), mode="replicate")
        down, right = sums(sums(near, 2, 3), 2, 3), sums(sums(near, 2, 2), 2, 2)  # [1, 2, 1] across the slope's own direction
        return torch.cat([right[..., 2:] - right[..., :-2], down[..., 2:, :] - down[..., :-2, :]], dim=1) / 8

    def structure(self, slopes: Tensor) -> Tensor:
        """The structure tensor, local means of right², down² and right x down. Shape: slopes (B, 2, H, W), right, down -> (B, 3, H, W)"""
        right, down = slopes[:, :1], slopes[:, 1:]
        products = F.pad(torch.cat([right * right, down * down, right * down], dim=1), (4, 4, 4, 4), mode="replicate")
        products = products.contiguous(memory_format=torch.channels_last)  # a CPU's convolutions by channel are seven times as fast so
        return F.conv2d(F.conv2d(products, self.gaussian, groups=3), self.gaussian.transpose(2, 3), groups=3)

    def straightness(self, tensor: Tensor) -> Tensor:
        """How far each place is one straight, strong edge, 0 to 1. Shape: structure tensor of slopes in 1/255, (B, 3, H, W) -> (B, 1, H, W)."""
        energy = tensor[:, :1] + tensor[:, 1:2]
        one_way = (tensor[:, :1] - tensor[:, 1:2]).square() + 4 * tensor[:, 2:].square()
        return one_way / (energy.square() + 1e-6) * energy / (energy + self.EDGE**2)
