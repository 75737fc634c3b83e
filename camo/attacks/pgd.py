"""Projected gradient descent within a bound on the change of each value."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from camo.attacks.attack import Progress, Result, Scorer, checked, finished


@dataclass(frozen=True)
class Pgd:
    """Projected gradient descent within an L-infinity ball: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.

    The defaults are the paper's for CIFAR-10. The last iterate is returned.

    Args:
        epsilon: largest change of a value, in units of 1/255. A whole number also holds after 8-bit rounding of 8-bit originals.
        steps: number of gradient steps.
        rel_stepsize: step as a share of epsilon.
        target: score below which an image is pushed no further; minus infinity descends all the way.
        seed: of a random start within the ball, the same for all images of a size; None starts at the image itself.
    """

    epsilon: float = 8.0
    steps: int = 20
    rel_stepsize: float = 0.25
    target: float = -math.inf
    seed: int | None = None

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Descend within the ball; progress counts the steps."""
        images = checked(images)
        bound = self.epsilon / 255
        pixels = images.clone()
        if self.seed is not None:
            start = 2 * torch.rand(1, *images.shape[1:], generator=Generator().manual_seed(self.seed)) - 1
            pixels = (images + bound * start.to(images)).clamp(0, 1)
        pixels.requires_grad_()
        for step in range(self.steps):
            (gradient,) = torch.autograd.grad((scorer(pixels) - self.target).relu().sum(), pixels)
            with torch.no_grad():
                pixels -= self.rel_stepsize * bound * gradient.sign()
                pixels.clamp_(images - bound, images + bound).clamp_(0, 1)
            if progress:
                progress(step + 1, self.steps)
        return finished(scorer, pixels, self.steps)
