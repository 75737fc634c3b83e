"""The interface that all per-image attacks share, and what they are built from.

One interface, ``Attack``: a frozen dataclass of settings, called with a scorer and photos. A scorer maps (B, 3, H, W) float RGB in [0, 1] to (B,)
scores, 0..100, and is differentiable; ``camo.attacks.through_jpeg`` puts a platform's JPEG before one. Results are not rounded to 8 bits; whoever
writes the files does that. Each image's result depends on that image alone, not on its batch, as far as the scorer's own arithmetic allows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

Scorer = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]  # called with the number of steps done and their total


class Result(NamedTuple):
    """What an attack returns.

    images: (B, 3, H, W) in [0, 1], on the device of the originals and in their dtype (float32 for half precision), no gradient.
    scores: (B,) of these images, by the scorer that was attacked; where one is not below the target, nothing better was found.
    steps: (B,) int64, how often the scorer saw each image on the way.
    """

    images: Tensor
    scores: Tensor
    steps: Tensor


class Attack(Protocol):
    """The interface of all methods here."""

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Lower the scores of (B, 3, H, W) float RGB images in [0, 1]. Raises ValueError for another shape, dtype or range."""
        ...


class Best:
    """The best attempt so far at each image: the nearest of those that succeeded; until there is one, that of the lowest score."""

    def __init__(self, images: Tensor) -> None:
        self.images = images.clone()
        self.distances = images.new_full((len(images),), math.inf)
        self.scores = torch.full_like(self.distances, math.inf)
        self.steps = torch.zeros_like(self.distances, dtype=torch.int64)

    @torch.no_grad()
    def update(self, rows: Tensor, attempts: Tensor, distances: Tensor, scores: Tensor, success: Tensor) -> None:
        """Count an attempt at the images numbered ``rows``, (N,), and keep it where it is better."""
        self.steps[rows] += 1
        distances = torch.where(success, distances, math.inf)
        failed_so_far = self.distances[rows].isinf()
        better = (distances < self.distances[rows]) | (failed_so_far & (scores < self.scores[rows]))
        chosen = rows[better]
        self.images[chosen] = attempts[better]
        self.distances[chosen] = distances[better]
        self.scores[chosen] = scores[better].to(self.scores)

    def result(self) -> Result:
        """What was kept."""
        return Result(self.images, self.scores, self.steps)


@torch.no_grad()
def finished(scorer: Scorer, images: Tensor, steps: int) -> Result:
    """Score finished images."""
    return Result(images.detach(), scorer(images), torch.full((len(images),), steps, device=images.device))


def checked(images: Tensor) -> Tensor:
    """The images without history, in float32 at least: 0.999999 would be 1 in half precision."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"expected (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected values in [0, 1], got {images.min().item():g} to {images.max().item():g}")
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))
