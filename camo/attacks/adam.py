"""Adam on the pixels of each image, with a penalty on the squared change."""

from dataclasses import dataclass

import torch
from torch import Tensor

from camo.attacks.attack import Best, Progress, Result, Scorer, checked
from camo.measure.metrics import MSE_40_DB


@dataclass(frozen=True)
class AdamL2:
    """Adam on the pixels: max(0, score - target) + penalty * mean squared change, the latter in units of that at 40 dB.

    Plainer than Carlini and Wagner's: no tanh space (pixels are clamped after each step), no search for the constant. Of all iterates with a score
    below the target the one with the smallest change is returned; where there is none, the one of the lowest score.

    Args:
        target: score at which the hinge ends; well below the threshold, so that what else happens to a photo does not lift it back.
        steps: of Adam.
        learning_rate: in units of 1/255 a step.
        penalty: score points that the squared change of 40 dB is worth; if it is too large, hard images stay above the target.
    """

    target: float = 30.0
    steps: int = 60
    learning_rate: float = 0.5
    penalty: float = 3.0

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None, start: Tensor | None = None) -> Result:
        """Run Adam, from the images themselves or from ``start``, of their shape; progress counts its steps."""
        images = checked(images)
        best, rows = Best(images), torch.arange(len(images), device=images.device)
        pixels = (images if start is None else checked(start)).clone().requires_grad_()
        adam = torch.optim.Adam([pixels], lr=self.learning_rate / 255)
        for step in range(self.steps):
            scores = scorer(pixels)
            distances = (pixels - images).square().mean((1, 2, 3)) / MSE_40_DB
            losses = (scores - self.target).relu() + self.penalty * distances
            best.update(rows, pixels, distances, scores, scores < self.target)
            (pixels.grad,) = torch.autograd.grad(losses.sum(), pixels)
            adam.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
            if progress:
                progress(step + 1, self.steps)
        return best.result()
