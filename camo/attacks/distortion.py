"""Changes scaled to a wanted distortion, so that methods can be compared at equal PSNR."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from camo.measure.metrics import psnr

TOLERANCE = 0.1  # dB


def at_distortion(originals: Sequence[Tensor], changed: Sequence[Tensor], wanted: float) -> list[Tensor]:
    """The changes scaled by one factor, 0.05 to 20, so that the mean PSNR of the 8-bit photos is ``wanted`` dB, within 0.1 dB if that can be had."""
    low, high = 0.05, 20.0
    closest: tuple[float, list[Tensor]] = (math.inf, [])
    while high / low > 1.001 and closest[0] >= TOLERANCE:
        factor = (low * high) ** 0.5
        scaled = [dithered(original + factor * (image - original)) for original, image in zip(originals, changed, strict=True)]
        pairs = zip(originals, scaled, strict=True)
        reached = torch.stack([psnr(original[None], image[None])[0].clamp(max=100) for original, image in pairs]).mean().item()
        closest = min(closest, (abs(reached - wanted), scaled), key=lambda pair: pair[0])
        low, high = (low, factor) if reached < wanted else (factor, high)
    return closest[1]


def dithered(image: Tensor) -> Tensor:
    """8-bit values, each rounded up or down at random (seeded) so that its mean is kept; a change of one step could not be scaled otherwise.

    Shape: (3, H, W) float -> the same, at multiples of 1/255 in [0, 1].
    """
    noise = torch.rand(image.shape, generator=Generator().manual_seed(0))
    return (255 * image + 0.001 + 0.998 * noise).floor().clamp(0, 255) / 255  # whole numbers stay, also where floats fall short of them
