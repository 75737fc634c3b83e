"""Looks on 8-bit pixels: dithered, so that smooth skies do not fall into bands, and in strips, so that the memory stays bounded."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from camo.device import device_of
from camo.filter.looks import Look, seed_of
from camo.photos.images import Photo, to_float


def dithered(image: Tensor, original: Tensor, top: int = 0) -> Tensor:
    """Values as 8-bit steps, rounded up or down by a fine even pattern, so that the mean of a few pixels is that of the values.

    The pattern is the R2 sequence (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018) in whole numbers, exact everywhere.
    It is the same in all channels: grey stays grey. Only pixels that had a 0 or a 255 before can have one after: no more of them are clipped.

    Shape: (B, 3, rows, W) float in [0, 1], and the same rows of the photo in 0..255 -> float in 0..255; ``top`` rows are above.
    """
    rows = torch.remainder((top + torch.arange(image.shape[-2], device=image.device)) * 37345, 65536)
    columns = torch.remainder(torch.arange(image.shape[-1], device=image.device) * 49471, 65536)
    pattern = (rows[:, None] / 65536 + columns / 65536).frac()
    least = (original.amin(1, keepdim=True) > 0).to(image)
    most = 254 + (original.amax(1, keepdim=True) >= 255).to(image)
    return torch.minimum(torch.maximum((255 * image + pattern).floor(), least), most)


class LookPixels(nn.Module):
    """A look, from a file's pixels to a file's pixels; strips give what the whole would.

    Shape: (B, 3, H, W) uint8 RGB on the CPU -> the same.

    Args:
        look: on any device.
    """

    STRIP = 2**17  # px that are worked on at once; no setting, since it decides memory and speed only

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> Tensor:
        """The photos in this look."""
        height, width = pixels.shape[-2:]
        step = max(1, self.STRIP // width)
        device = device_of(self.look)
        result, seed = torch.empty_like(pixels), seed_of(pixels).to(device)
        for top in range(0, height, step):
            strip = slice(top, top + step)
            rows = pixels[:, :, strip].to(device)
            result[:, :, strip] = dithered(self.look.part(to_float(rows), seed, top, height), rows, top)
        return result


class Looked(nn.Module):
    """What ``LookPixels`` does, on floats and on whole photos: for export. No gradient passes through its rounding.

    Shape: (B, 3, H, W) float RGB in [0, 1] -> the same, in 8-bit steps.

    Args:
        look: on the device of the photos.
    """

    def __init__(self, look: Look) -> None:
        super().__init__()
        self.look = look

    def forward(self, image: Tensor) -> Tensor:
        """The photos in this look."""
        return dithered(self.look(image), (255 * image).round()) / 255


def greyed(pixels: Tensor, luma: Tensor) -> Tensor:
    """Each pixel's luma in all three channels, in whole steps. Shape: (B, 3, H, W) in 0..255 and weights (1, 3, 1, 1) -> (B, 3, H, W) float."""
    return (pixels * luma).sum(1, keepdim=True).round().expand(-1, 3, -1, -1)


def dress(photo: Photo, look: LookPixels) -> Photo:
    """The photo in a look. A greyscale photo stays one: it gets the tones of the look and none of its colours."""
    pixels = look(photo.pixels[None])[0]
    if photo.greyscale:
        pixels = greyed(pixels[None], look.look.luma.to(pixels.device))[0].to(torch.uint8).contiguous()
    return replace(photo, pixels=pixels)
