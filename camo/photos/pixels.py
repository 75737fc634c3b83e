"""Pixels as tensors, and what a real JPEG file leaves of them. Everything here works on the CPU."""

import io
from typing import Literal

import numpy as np
import torch
from PIL import Image

from camo.photos.formats import opened

Subsampling = Literal["4:4:4", "4:2:2", "4:2:0"]


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """8-bit pixels as values: (..., 3, H, W) uint8 -> the same shape in float32, in [0, 1], on the same device."""
    return pixels.to(torch.float32) / 255


def to_uint8(image: torch.Tensor) -> torch.Tensor:
    """Values as 8-bit pixels: (..., 3, H, W) float -> uint8 on the same device; clamped to [0, 1] and rounded to the nearest step."""
    return image.detach().to(torch.float32).clamp(0, 1).mul_(255).round_().to(torch.uint8)


def jpeg_bytes(pixels: torch.Tensor, quality: int, subsampling: Subsampling = "4:2:0") -> bytes:
    """Encode one picture, (3, H, W) uint8 RGB, as the JPEG file that Pillow (libjpeg) writes at this quality, 1..100."""
    buffer = io.BytesIO()
    to_pillow(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def jpeg_roundtrip(image: torch.Tensor, quality: int, subsampling: Subsampling = "4:2:0") -> torch.Tensor:
    """What is left of each picture after 8-bit rounding and a real JPEG file.

    Args:
        image: (B, 3, H, W) float RGB in [0, 1], any device.
        quality: Pillow's JPEG quality, 1..100.
        subsampling: chroma subsampling; Pillow's own default is 4:2:0.

    Returns:
        (B, 3, H, W) in ``image``'s dtype and on its device, at multiples of 1/255 in [0, 1]; carries no gradient.
    """
    decoded = torch.empty(image.shape, dtype=torch.uint8)
    for pixels, result in zip(to_uint8(image).cpu(), decoded, strict=True):
        result.copy_(from_pillow(opened(jpeg_bytes(pixels, quality, subsampling), "JPEG")))
    return to_float(decoded).to(image)


def from_pillow(picture: Image.Image) -> torch.Tensor:
    """Turn an RGB Pillow picture into (3, H, W) uint8."""
    return torch.from_numpy(np.array(np.asarray(picture).transpose(2, 0, 1), order="C"))


def to_array(pixels: torch.Tensor) -> np.ndarray:
    """Turn (3, H, W) uint8 into a contiguous array (H, W, 3)."""
    return np.ascontiguousarray(pixels.cpu().numpy().transpose(1, 2, 0))


def to_pillow(pixels: torch.Tensor) -> Image.Image:
    """Turn (3, H, W) uint8 into an RGB Pillow picture."""
    return Image.fromarray(to_array(pixels))
