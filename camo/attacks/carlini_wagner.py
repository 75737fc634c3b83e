"""The attack of Carlini and Wagner (2017), which the 2020 task's own team ran; plain, and weighted by what an eye notices."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from camo.attacks.attack import Best, Progress, Result, Scorer, checked
from camo.filter.jnd import JustNoticeableDifference
from camo.quality.models import THRESHOLD


def jnd_weight(images: Tensor) -> Tensor:
    """Sensitivity of the eye at each pixel, for ``CarliniWagner.weight``: the inverse of the just-noticeable difference (``camo.filter.jnd``).

    Shape: (B, 3, H, W) float RGB in [0, 1] -> (B, 1, H, W); its mean square is 1 in each image, so that noise that is the same everywhere keeps its
    distance.
    """
    sensitivity = 1 / JustNoticeableDifference().to(images.device)(images)
    return sensitivity / sensitivity.square().mean((1, 2, 3), keepdim=True).sqrt()


@dataclass(frozen=True)
class CarliniWagner:
    """The L2 attack of Carlini and Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017.

    The score s becomes the logits [50 + s - t, 50 - s + t] of two classes, high and low quality, for the target t, and the attack aims at the second:
    it minimises ||w (x - x0)||^2 + c max(0, 2 (s - t) + confidence) with Adam, x = (tanh(z) + 1) / 2, and searches c for each image. Of all x with
    2 (s - t) + confidence < 0 it returns the one of the least distance; where there is none, the one of the lowest score.

    The start is (tanh(atanh(0.999999 (2 x0 - 1))) + 1) / 2, within 1e-6 of x0, pure black and white included; those hardly move, because the slope of
    tanh is 2e-6 there. Adam starts anew for each c. As in the authors' code a descent ends early when, after a tenth of the iterations, its loss is
    above 0.9999 of what it was; here that is judged for each image, there for the batch.

    Args:
        target: score to get below; the task's threshold. The task's team also ran 30 and 20.
        binary_search_steps: values of c that are tried.
        max_iterations: of Adam, for each c. The team ran 100 of the 1000 that are usual with these settings.
        learning_rate: of Adam, in tanh space.
        initial_const: first c; ten times as much after a failure, until one succeeds.
        confidence: how far the second logit must be above the first, that is, the score confidence / 2 below the target.
        abort_early: end a descent that stalls.
        weight: (B, 3, H, W) originals -> weights w of the change, (B, 1 or 3, H, W), such as ``jnd_weight``; none: the plain distance.
    """

    target: float = THRESHOLD
    binary_search_steps: int = 5
    max_iterations: int = 100
    learning_rate: float = 5e-3
    initial_const: float = 1e-2
    confidence: float = 0.0
    abort_early: bool = True
    weight: Callable[[Tensor], Tensor] | None = None

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Find the nearest image below the target; progress counts the values of c."""
        images = checked(images)
        weights = torch.ones_like(images[:, :1]) if self.weight is None else self.weight(images)
        best = Best(images)
        const = images.new_full((len(images),), self.initial_const)
        lower, upper = torch.zeros_like(const), torch.full_like(const, math.inf)
        for step in range(self.binary_search_steps):
            found = self._minimise(scorer, images, weights, const, best)
            lower, upper = torch.where(found, lower, const), torch.where(found, const, upper)
            const = torch.where(upper.isinf(), 10 * const, (lower + upper) / 2)
            if progress:
                progress(step + 1, self.binary_search_steps)
        return best.result()

    def _minimise(self, scorer: Scorer, images: Tensor, weights: Tensor, const: Tensor, best: Best) -> Tensor:
        """Descend once for one c an image, (B,); say for which images, (B,), that succeeded."""
        start = torch.atanh(0.999999 * (2 * images - 1))
        origin = _from_tanh_space(start)
        modifier = torch.zeros_like(start, requires_grad=True)
        adam = torch.optim.Adam([modifier], lr=self.learning_rate)
        found, previous = torch.zeros_like(const, dtype=torch.bool), torch.full_like(const, math.inf)
        rows = (best.distances > 0).nonzero().flatten()  # an image that is low as it is needs no search
        for iteration in range(self.max_iterations):
            if not len(rows):
                break
            attempts = _from_tanh_space(start[rows] + modifier[rows])
            distances = (weights[rows] * (attempts - origin[rows])).square().sum((1, 2, 3))
            scores = scorer(attempts)
            margins = 2 * (scores - self.target) + self.confidence
            losses = distances + const[rows] * margins.relu()
            (modifier.grad,) = torch.autograd.grad(losses.sum(), modifier)
            adam.step()
            found[rows] |= margins < 0
            best.update(rows, attempts, distances, scores, margins < 0)
            if self.abort_early and iteration % max(1, self.max_iterations // 10) == 0:
                improving = (losses <= 0.9999 * previous[rows]) & (best.distances[rows] > 0)
                previous[rows] = losses.detach()
                rows = rows[improving]
        return found


def _from_tanh_space(values: Tensor) -> Tensor:
    return (torch.tanh(values) + 1) / 2
