"""A visible attack: tone curves such as photo editors have, optimised for each image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from camo.attacks.attack import Best, Progress, Result, Scorer, checked


@dataclass(frozen=True)
class ColorFilter:
    """A colour filter such as photo editors have: one monotone tone curve for each channel of each image, the same at all its pixels.

    AdvCF of Zhao, Liu and Larson, "Adversarial color enhancement" (BMVC 2020; "Adversarial image color transformations in explicit color filter
    space", IEEE TIFS 2023): the curve from (0, 0) to (1, 1) has ``pieces`` linear pieces of equal width, whose rises Adam optimises; their squared
    distance from the identity's is the penalty. In place of the paper's search for the penalty's weight, of all iterates with a score below the
    target the one nearest to the identity is returned; where there is none, the one of the lowest score.

    Args:
        target: score at which the hinge max(0, score - target) ends; a little below the threshold, for what rounding to 8 bits does.
        steps: of Adam; the paper runs 1000 for each of 9 weights.
        learning_rate: of Adam on the rises, which start at 1 / pieces.
        pieces: linear pieces of a curve.
        penalty: weight of the sum of squared differences of the rises from 1 / pieces; where the authors' search begins.
    """

    target: float = 45.0
    steps: int = 100
    learning_rate: float = 1e-3
    pieces: int = 64
    penalty: float = 10.0

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Optimise the curves; progress counts Adam's steps."""
        images = checked(images)
        best, rows = Best(images), torch.arange(len(images), device=images.device)
        slopes = images.new_full((len(images), 3, self.pieces), 1 / self.pieces, requires_grad=True)
        adam = torch.optim.Adam([slopes], lr=self.learning_rate)
        for step in range(self.steps):
            rises = slopes / slopes.sum(2, keepdim=True)
            filtered = _tone_curves(images, rises)
            scores = scorer(filtered)
            distances = (rises - 1 / self.pieces).square().sum((1, 2))
            losses = (scores - self.target).relu() + self.penalty * distances
            best.update(rows, filtered, distances, scores, scores < self.target)
            (slopes.grad,) = torch.autograd.grad(losses.sum(), slopes)
            adam.step()
            with torch.no_grad():
                slopes.clamp_(min=1e-6)  # monotone, and the sum is never zero
            if progress:
                progress(step + 1, self.steps)
        return best.result()


def _tone_curves(images: Tensor, rises: Tensor) -> Tensor:
    """Map the values of each channel, (B, 3, H, W), by a curve of linear pieces of equal width; their rises, (B, 3, K), sum to 1."""
    pieces = rises.shape[2]
    knots = F.pad(rises.cumsum(2), (1, 0))
    places = pieces * images.flatten(2)
    index = places.long().clamp(max=pieces - 1)
    return (knots.gather(2, index) + rises.gather(2, index) * (places - index)).view_as(images).clamp(0, 1)
