"""Synthetic degradations at continuous severity, to train and test quality models.

Every distortion maps a (3, H, W) float32 RGB image in [0, 1] and a severity in [0, 1] (0: hardly any, 1: ruined) to an image of the same shape and
range. Randomness (noise, direction, sign) comes from the generator given.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from kornia.enhance import posterize
from kornia.filters import gaussian_blur2d, motion_blur
from torch import Generator, Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from camo.measure.operations import compress

Distortion = Callable[[Tensor, float, Generator], Tensor]


def _uniform(rng: Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * torch.rand((), generator=rng).item()


def _geometric(severity: float, weak: float, strong: float) -> float:
    """From ``weak`` to ``strong`` in equal ratios, which eyes see as equal steps."""
    return weak * (strong / weak) ** severity


def _encoded(image: Tensor, encoder: str, quality: int) -> Tensor:
    return pil_to_tensor(compress(to_pil_image(image), encoder, quality=quality)).float() / 255


def jpeg(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Pillow's JPEG 4:2:0, quality 95 down to 4."""
    return _encoded(image, "JPEG", round(_geometric(severity, 95, 4)))


def webp(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Lossy WebP, quality 95 down to 1."""
    return _encoded(image, "WEBP", round(_geometric(severity, 95, 1)))


def blur(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Gaussian blur, sigma 0.3 to 6 px."""
    sigma = _geometric(severity, 0.3, 6)
    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(image[None], (size, size), (sigma, sigma))[0]


def motion(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Linear motion blur, 3 to 25 px in a random direction."""
    size = 2 * round(_geometric(severity, 1, 12)) + 1
    return motion_blur(image[None], size, _uniform(rng, 0, 180), 0.0)[0]


def gaussian_noise(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """White noise, sigma 1/255 to 64/255, in colour or in luminance alone."""
    channels = 3 if _uniform(rng) < 0.7 else 1
    return image + _geometric(severity, 1, 64) / 255 * torch.randn(channels, *image.shape[1:], generator=rng)


def sensor_noise(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Shot noise (it grows with the square root of the light), then denoised a little as cameras do, which leaves blotches."""
    noise = torch.randn(image.shape, generator=rng) * image.clamp_min(0.02).sqrt() * _geometric(severity, 2, 110) / 255
    return image + gaussian_blur2d(noise[None], (5, 5), (0.8, 0.8))[0]


def rescale(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Reduced by 1.2 to 9 and enlarged again, bilinear or nearest."""
    height, width = image.shape[1:]
    factor = _geometric(severity, 1.2, 9)
    small = F.interpolate(image[None], (max(2, round(height / factor)), max(2, round(width / factor))), mode="bilinear", antialias=True)
    return F.interpolate(small, (height, width), mode="nearest" if _uniform(rng) < 0.2 else "bilinear")[0]


def banding(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Posterised: 6 bits a channel down to 1."""
    return posterize(image[None].clamp(0, 1), torch.tensor([round(6 - 5 * severity)]))[0]


def impulse_noise(image: Tensor, severity: float, rng: Generator) -> Tensor:
    """Salt and pepper on 0.05 to 12% of the pixels."""
    hit = torch.rand(1, *image.shape[1:], generator=rng) < _geometric(severity, 0.0005, 0.12)
    return torch.where(hit, (torch.rand(1, *image.shape[1:], generator=rng) < 0.5).float(), image)


# They make any photo worse; a lower contrast, another exposure or haze may please.
DEGRADATIONS: tuple[Distortion, ...] = (jpeg, webp, blur, motion, gaussian_noise, sensor_noise, rescale, banding, impulse_noise)
