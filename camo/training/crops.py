"""Datasets over folders of photographs. Photos stay on disk and pixels stay 8-bit. An item depends on the seed and its
index alone, so that the number of worker processes changes nothing, and a resumed run sees what an undisturbed one sees."""

import functools
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from camo import CamoError
from camo.photos.images import find_photos, read


def list_photos(folders: Iterable[Path]) -> list[Path]:
    """All photos in the folders, recursively, sorted. Raises CamoError for a folder that does not exist or holds no photo."""
    return [photo.path for photo in find_photos(folders)]


def hold_out(photos: list[Path], every: int) -> tuple[list[Path], list[Path]]:
    """Split photos into (for training, for validation): every ``every``-th photograph is held out.

    ``NAME-detail.jpg`` is a second crop of ``NAME.jpg`` and goes where that goes. Raises CamoError when either part would be empty.
    """
    names = sorted({photo.stem.removesuffix("-detail") for photo in photos})
    held = set(names[every // 2 :: every])
    training = [photo for photo in photos if photo.stem.removesuffix("-detail") not in held]
    validation = [photo for photo in photos if photo.stem.removesuffix("-detail") in held]
    if not training or not validation:
        raise CamoError(f"{len(photos)} photos are too few to hold out every {every}th for validation")
    return training, validation


class RandomCrops(Dataset[Tensor]):
    """``length`` random crops: a window of the wanted shape, anywhere, between the largest that fits and one that is to be enlarged ``enlarged``
    times; half are mirrored; colours vary.

    Items: (3, height, width) uint8 RGB. A photo that cannot be read is named in a warning and the next one is taken.

    Args:
        photos: files.
        size: (height, width) of the crops.
        length: number of items.
        seed: item i depends on it and i alone.
        enlarged: how far crops of photos that are large enough are enlarged at most. With 1, a photo of the crops' size has one crop only.
    """

    def __init__(self, photos: list[Path], size: tuple[int, int], length: int, seed: int, enlarged: float = 1.0) -> None:
        if not photos:
            raise CamoError("no photos to train on")
        self.photos, self.size, self.length, self.seed, self.enlarged = photos, size, length, seed, enlarged

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        """Crop ``index``. Every photo comes once per epoch; each epoch has an order of its own."""
        epoch, place = divmod(index, len(self.photos))
        order = _order(len(self.photos), self.seed, epoch)
        rng = Generator().manual_seed(self.seed * 1_000_003 + index)
        for offset in range(len(self.photos)):
            try:
                pixels = read(self.photos[order[(place + offset) % len(order)]]).pixels
            except CamoError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
            else:
                return vary_colour(random_crop(pixels, self.size, rng, self.enlarged), rng)
        raise CamoError(f"none of the {len(self.photos)} photos can be read")


class CentreCrops(Dataset[Tensor]):
    """Each photo reduced or enlarged to cover ``size`` = (height, width), and cut to it about its centre. Items: (3, height, width) uint8 RGB."""

    def __init__(self, photos: list[Path], size: tuple[int, int]) -> None:
        self.photos, self.size = photos, size

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        """Photo ``index``. Raises CamoError where it cannot be read: a validation set must not change silently."""
        pixels = read(self.photos[index]).pixels
        scale = max(wanted / side for wanted, side in zip(self.size, pixels.shape[-2:], strict=True))
        covering = [max(wanted, round(side * scale)) for wanted, side in zip(self.size, pixels.shape[-2:], strict=True)]
        return transforms.center_crop(transforms.resize(pixels, covering, v2.InterpolationMode.BICUBIC, antialias=True), list(self.size))


def random_crop(pixels: Tensor, size: tuple[int, int], rng: Generator, enlarged: float = 1.0) -> Tensor:
    """A window of the shape of ``size``, from 1 / ``enlarged`` of that size (or of the largest that fits, if smaller) to the largest that fits,
    anywhere, scaled to ``size`` and mirrored half of the time.

    Shape: (3, H, W) uint8 -> (3, *size) uint8.
    """
    largest = min(side / wanted for side, wanted in zip(pixels.shape[-2:], size, strict=True))
    chance = torch.rand(4, generator=rng).tolist()
    smallest = min(1.0, largest) / enlarged
    factor = smallest + (largest - smallest) * chance[0]
    height, width = round(size[0] * factor), round(size[1] * factor)
    top, left = round(chance[1] * (pixels.shape[1] - height)), round(chance[2] * (pixels.shape[2] - width))
    crop = transforms.resized_crop(pixels, top, left, height, width, list(size), v2.InterpolationMode.BICUBIC, antialias=True)
    return transforms.horizontal_flip(crop) if chance[3] < 0.5 else crop


def vary_colour(pixels: Tensor, rng: Generator) -> Tensor:
    """Exposure, contrast and saturation varied a little, for half of the crops. Shape: (3, H, W) uint8 -> the same."""
    chance = (torch.rand(4, generator=rng) * 2 - 1).tolist()
    if chance[0] < 0:
        return pixels
    pixels = transforms.adjust_gamma(pixels, 1.25 ** chance[1])
    pixels = transforms.adjust_contrast(pixels, 1.15 ** chance[2])
    return transforms.adjust_saturation(pixels, 1.3 ** chance[3])


def crops_of_process(start: int, stop: int, batch_size: int, rank: int, world: int) -> list[int]:
    """Indices of the crops that process ``rank`` of ``world`` is given in the steps from ``start`` to ``stop``, one batch after another."""
    return [(step * world + rank) * batch_size + i for step in range(start, stop) for i in range(batch_size)]


@functools.lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=Generator().manual_seed(seed * 7919 + epoch)).tolist()
