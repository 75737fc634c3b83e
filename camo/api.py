"""The public interface: the filter and a quality model as objects that take photos in memory.

Three kinds of images are accepted, and pixels are taken as sRGB and upright, as they are:

- a ``PIL.Image`` of mode RGB, RGBA, L or LA;
- a NumPy array, (H, W, 3) uint8 RGB;
- a tensor on any device, (B, 3, H, W) RGB, uint8 or floats in [0, 1].

Files are what ``camo infer`` is for: it also turns photos upright, converts wide colour spaces and keeps metadata.
"""

import math
import os
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camo.device import choose
from camo.filter import checkpoint
from camo.filter.full_size import FullSize
from camo.photos.images import to_float, to_uint8
from camo.quality import models

MODES = ("RGB", "RGBA", "L", "LA")  # of Pillow's images; the others hold fewer colours, deeper values or another colour space
SMALLEST = 16  # px, of a side
ROUNDING = 1e-3  # by which floats may leave [0, 1]: resizing them adds errors of this kind

ImageKind = TypeVar("ImageKind", Image.Image, np.ndarray, Tensor)


class PhotoFilter:
    """Camouflages photos in memory, with the bytes that ``camo infer`` gives; made by ``load_filter``.

    Args:
        model: the filter with its second pass for large photos.
    """

    def __init__(self, model: FullSize) -> None:
        self.model = model

    def __call__(self, image: ImageKind, strength: float = 1.0) -> ImageKind:
        """The camouflaged image, of the same kind, size, mode or dtype, and on the same device; the one given is left alone.

        A Pillow image keeps its alpha channel and its ``info`` (profile, resolution, EXIF). Floats come back in 8-bit steps, as a file holds them:
        what ``strength`` 0 gives is the image rounded to multiples of 1/255. No gradient flows through.

        Args:
            image: a Pillow image, (H, W, 3) uint8 array or (B, 3, H, W) tensor, with sides of 16 px or more.
            strength: scale of the change; 0 none, 1 as trained.

        Raises:
            TypeError: another kind of image.
            ValueError: another shape, dtype, mode or range of values, a side below 16 px, a strength that is negative or not finite.
        """
        if not 0 <= strength < math.inf:
            raise ValueError(f"strength {strength}: should be a finite number of 0 or more")
        pixels = _to_tensor(image)
        height, width = pixels.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ValueError(f"an image of {width}x{height} px: the filter needs {SMALLEST} px or more on each side")
        changed = self.model(to_uint8(pixels).cpu() if pixels.is_floating_point() else pixels.cpu(), strength)
        if isinstance(image, Tensor):
            return (to_float(changed) if image.is_floating_point() else changed).to(image)
        array = np.ascontiguousarray(changed[0].numpy().transpose(1, 2, 0))
        if isinstance(image, np.ndarray):
            return array
        result = Image.fromarray(array)
        if image.mode in {"L", "LA"}:
            result = result.convert("L")
        if image.mode in {"RGBA", "LA"}:
            result.putalpha(image.getchannel("A"))
        result.info = image.info.copy()
        return result


class QualityScorer:
    """Scores photos in memory with a frozen quality model; made by ``load_quality``.

    Args:
        model: maps (B, 3, H, W) float RGB in [0, 1] to (B,) scores.
        device: where the model is.
    """

    def __init__(self, model: models.Frozen, device: torch.device) -> None:
        self.model, self.device = model, device

    @overload
    def __call__(self, image: Tensor) -> Tensor: ...

    @overload
    def __call__(self, image: Image.Image | np.ndarray) -> float: ...

    def __call__(self, image: Image.Image | np.ndarray | Tensor) -> float | Tensor:
        """The score on the scale 0..100, higher is better: a number for a Pillow image or array, (B,) for a tensor, on the tensor's device.

        The scores of a float tensor can be differentiated with respect to it. Alpha is ignored.

        Args:
            image: a Pillow image, (H, W, 3) uint8 array or (B, 3, H, W) tensor.

        Raises:
            TypeError: another kind of image.
            ValueError: another shape, dtype, mode or range of values.
        """
        pixels = _to_tensor(image).to(self.device)
        values = pixels if pixels.is_floating_point() else to_float(pixels)
        if isinstance(image, Tensor):
            return self.model(values).to(image.device)
        with torch.inference_mode():
            return self.model(values).item()


def load_filter(path: str | os.PathLike[str] | None = None, device: str | torch.device | None = None) -> PhotoFilter:
    """Load a filter that camouflages Pillow images, arrays and tensors: ``camo.load_filter()(image)``.

    Args:
        path: a checkpoint; None: the shipped filter.
        device: where to run it; None: cuda, else mps, else cpu.

    Raises:
        CamoError: a file that is missing, damaged or no filter of this version, or a device that cannot be used.
    """
    place = choose(None if device is None else str(device))
    weights = checkpoint.SHIPPED_FILTER if path is None else Path(path)
    return PhotoFilter(FullSize(checkpoint.load_filter(weights, place)))


def load_quality(spec: str = "bundled", device: str | torch.device | None = None) -> QualityScorer:
    """Load a quality model that scores Pillow images, arrays and tensors: ``camo.load_quality()(image)``.

    Args:
        spec: the model, as the command line's ``--biqa`` names it; see ``camo.quality.models.load``.
        device: where to run it; None: cuda, else mps, else cpu.

    Raises:
        CamoError: an unknown model, or a file that is missing, damaged or no such model.
    """
    place = choose(None if device is None else str(device))
    return QualityScorer(models.load(spec, place), place)


def _to_tensor(image: Image.Image | np.ndarray | Tensor) -> Tensor:
    """An image of any of the three kinds as (B, 3, H, W), uint8 or float. Raises TypeError and ValueError for what is none."""
    if isinstance(image, Tensor):
        _check_tensor(image)
        return image
    if isinstance(image, Image.Image):
        if image.mode not in MODES:
            raise ValueError(f"an image of mode {image.mode}: convert it to one of {', '.join(MODES)} first")
        if "transparency" in image.info:  # one colour, or grey level, that stands for transparency: changed pixels would no longer match it
            raise ValueError(f"an image of mode {image.mode} with a transparent colour: convert it to RGBA first")
        array = np.asarray(image.convert("RGB"))
    elif isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"expected an (H, W, 3) array of uint8, got {image.shape} of {image.dtype}")
        array = image
    else:
        raise TypeError(f"expected a PIL.Image, a NumPy array or a tensor, got {type(image).__name__}")
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), order="C"))[None]


def _check_tensor(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        raise ValueError(f"expected a (B, 3, H, W) tensor, got {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"expected a tensor of uint8 or floats, got {image.dtype}")
    if image.is_floating_point():
        low, high = torch.stack(image.detach().aminmax()).tolist()
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN too
            raise ValueError(f"expected floats in [0, 1], got {low:.4g} to {high:.4g}")
