"""The sharing channel: what happens to a photo between the filter and the quality model, differentiable, for training.

Some photos are mirrored, rotated a little or resized; a few pixels are cut off every side, so that the filter cannot rely on where the grid of the
scorer's strides falls, and sides become odd; then comes JPEG at a random quality. The evaluation uses real files only, never this module.
"""

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from kornia.enhance import jpeg_codec_differentiable
from torch import Generator, Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import rotate

from camo.photos.images import jpeg_roundtrip
from camo.quality.models import Frozen
from camo.training.config import TrainConfig


def soft_jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """JPEG 4:2:0 with soft rounding, on kornia's codec (after Shin and Song, "JPEG-resistant adversarial images", 2017).

    Where the codec clips a value to black or white, its gradient would be zero; there the gradient of the identity is used instead.

    Shape: (B, 3, H, W) float RGB in [0, 1], any size, and (B,) qualities 1..100 -> (B, 3, H, W) in [0, 1].
    """
    decoded = jpeg_codec_differentiable(image, quality.to(image))
    clipped = (decoded <= 0) | (decoded >= 1)
    return torch.where(clipped, decoded.detach() + image - image.detach(), decoded)


def straight_through_jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """The real JPEG file (Pillow, 4:2:0, after 8-bit rounding) with the gradient of the identity (Bengio et al., 2013). Shapes as ``soft_jpeg``."""
    real = [jpeg_roundtrip(one[None], round(q)) for one, q in zip(image.detach(), quality.tolist(), strict=True)]
    return image + (torch.cat(real) - image).detach()


def turn(image: Tensor, degrees: float) -> Tensor:
    """The image rotated about its centre, bilinear, without the margin that the rotation leaves black.

    Shape: (B, 3, H, W) -> (B, 3, H', W'), smaller by sin(degrees) of the longer side.
    """
    margin = math.ceil(math.sin(math.radians(abs(degrees))) * max(image.shape[-2:]) / 2)
    turned = rotate(image, degrees, InterpolationMode.BILINEAR)
    return turned[..., margin : image.shape[-2] - margin, margin : image.shape[-1] - margin]


def mirror_out(image: Tensor, least: tuple[int, int]) -> Tensor:
    """The image continued by its mirror image where a side is shorter than ``least`` = (height, width), on both ends alike.

    Shape: (B, 3, H, W) with sides of 2 px or more -> (B, 3, max(H, height), max(W, width)).
    """
    height, width = image.shape[-2:]
    rows, columns = (max(0, wanted - side) for wanted, side in zip(least, (height, width), strict=True))
    if not rows and not columns:
        return image
    # No more than a mirror image at once, so several times where little is there
    borders = ((columns // 2, width), (columns - columns // 2, width), (rows // 2, height), (rows - rows // 2, height))
    return mirror_out(F.pad(image, [min(border, side - 1) for border, side in borders], mode="reflect"), least)


class Channel(nn.Module):
    """A random instance of the channel for a batch: one flip, rotation, resize and crop for all of it, one JPEG quality per image.

    What comes out smaller than a scorer's own window would be scored with a border that no evaluation has (KonCept512 pads with black); it is
    continued by its mirror image instead.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B, 3, H', W') in [0, 1], H' and W' a little different. All randomness comes from the CPU generator
    given to ``forward``.

    Args:
        quality: lowest and highest JPEG quality.
        resize: smallest and largest factor of the resize.
        resize_rate: share of batches that are resized.
        shift: largest number of pixels that are cut off a side.
        real_rate: share of batches that pass through the real JPEG (straight-through gradient) instead of the soft one.
        flip_rate: share of batches that are mirrored.
        turn: largest angle in degrees, in either direction.
        turn_rate: share of batches that are rotated.
        least: height and width below which the result is continued by its mirror image.
    """

    def __init__(
        self,
        quality: tuple[int, int] = (60, 95),
        resize: tuple[float, float] = (0.6, 1.25),
        resize_rate: float = 0.4,
        shift: int = 8,
        real_rate: float = 0.5,
        flip_rate: float = 0.5,
        turn: float = 6.0,
        turn_rate: float = 0.4,
        least: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.quality, self.resize, self.resize_rate, self.shift, self.real_rate = quality, resize, resize_rate, shift, real_rate
        self.flip_rate, self.turn, self.turn_rate = flip_rate, turn, turn_rate
        self.least = least

    def forward(self, image: Tensor, rng: Generator) -> Tensor:
        """Mirror, rotate, resize, crop and compress."""
        if torch.rand((), generator=rng) < self.flip_rate:
            image = image.flip(-1)
        if torch.rand((), generator=rng) < self.turn_rate:
            image = turn(image, self.turn * (2 * torch.rand((), generator=rng).item() - 1))
        if torch.rand((), generator=rng) < self.resize_rate:
            factor = self.resize[0] + (self.resize[1] - self.resize[0]) * torch.rand((), generator=rng).item()
            size = [round(side * factor) for side in image.shape[-2:]]
            image = F.interpolate(image, size, mode="bilinear", antialias=True).clamp(0, 1)
        top, bottom, left, right = torch.randint(self.shift + 1, (4,), generator=rng).tolist()
        image = image[..., top : image.shape[-2] - bottom, left : image.shape[-1] - right]
        image = mirror_out(image, self.least)
        low, high = self.quality
        quality = torch.randint(low, high + 1, (len(image),), generator=rng)
        real = torch.rand((), generator=rng) < self.real_rate
        return straight_through_jpeg(image, quality) if real else soft_jpeg(image, quality)


def sharing_channel(config: TrainConfig, scorers: Collection[Frozen]) -> Channel:
    """The channel of a run's settings, never smaller than what a scorer looks at, and without flips where a scorer tells left from right."""
    least = tuple(map(max, *(scorer.window for scorer in scorers), (1, 1)))
    flips = 0.5 if all(scorer.symmetric for scorer in scorers) else 0.0
    qualities = (config.quality_low, config.quality_high)
    return Channel(qualities, resize_rate=config.resized, turn_rate=config.turned, real_rate=config.real_jpeg, flip_rate=flips, least=least)
