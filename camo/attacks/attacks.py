"""Per-image methods that lower the score of a frozen blind quality model: what one pass of the filter is measured against.

One interface, ``Attack``: a frozen dataclass of settings, called with a scorer and photos. A scorer maps (B, 3, H, W) float RGB in [0, 1] to (B,)
scores, 0..100, and is differentiable; ``through_jpeg`` puts a platform's JPEG before one. Results are not rounded to 8 bits; whoever writes the files
does that. Each image's result depends on that image alone, not on its batch, as far as the scorer's own arithmetic allows.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from camo.filter.jnd import JustNoticeableDifference
from camo.measure.metrics import MSE_40_DB
from camo.photos.images import jpeg_roundtrip
from camo.quality.models import THRESHOLD
from camo.training.channel import soft_jpeg

Scorer = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]  # called with the steps done and their total


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


def through_jpeg(scorer: Scorer, quality: int = 90) -> Scorer:
    """A scorer that sees each image as 8-bit rounding and Pillow's JPEG (4:2:0, ``quality`` 1..100) leave it.

    Scores are those of the real file: an attack that stops at the threshold would otherwise stop where the file is still above it (kornia's codec is
    44 dB from Pillow's at quality 90, more than many an attack changes). The gradient is the soft codec's: it spends no change on what quantisation
    and chroma subsampling take away again. On three 160x128 crops and the bundled model ``AdamL2`` (target 40, 40 steps, penalty 10) kept 51.5 dB
    with it and 45.7 dB with the gradient of the identity; ``CarliniWagner`` (3 x 30 steps) 56.3 dB and 50.5 dB.
    """

    def score(images: Tensor) -> Tensor:
        soft = soft_jpeg(images, torch.full((len(images),), quality))
        return scorer(soft + (jpeg_roundtrip(images.detach(), quality) - soft).detach())

    return score


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
        images = _checked(images)
        weights = torch.ones_like(images[:, :1]) if self.weight is None else self.weight(images)
        best = _Best(images)
        const = images.new_full((len(images),), self.initial_const)
        lower, upper = torch.zeros_like(const), torch.full_like(const, math.inf)
        for step in range(self.binary_search_steps):
            found = self._minimise(scorer, images, weights, const, best)
            lower, upper = torch.where(found, lower, const), torch.where(found, const, upper)
            const = torch.where(upper.isinf(), 10 * const, (lower + upper) / 2)
            if progress:
                progress(step + 1, self.binary_search_steps)
        return best.result()

    def _minimise(self, scorer: Scorer, images: Tensor, weights: Tensor, const: Tensor, best: "_Best") -> Tensor:
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
        images = _checked(images)
        best, rows = _Best(images), torch.arange(len(images), device=images.device)
        pixels = (images if start is None else _checked(start)).clone().requires_grad_()
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
        images = _checked(images)
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
        return _result(scorer, pixels, self.steps)


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
        images = _checked(images)
        best, rows = _Best(images), torch.arange(len(images), device=images.device)
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


@dataclass(frozen=True, eq=False)  # tensors have no single answer to ==
class Universal:
    """One perturbation for all photos, (1, 3, h, w) float, from ``universal``; repeated from the top left corner and cut to each photo's size."""

    perturbation: Tensor

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Add the perturbation; the scorer is only asked for the result's scores."""
        images = _checked(images)
        result = _result(scorer, _add_tiled(images, self.perturbation), 0)
        if progress:
            progress(1, 1)
        return result


def universal(
    scorer: Scorer,
    batches: Iterable[Tensor],
    epsilon: float = 8.0,
    epochs: int = 5,
    size: tuple[int, int] = (384, 512),
    target: float = -math.inf,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """Train one perturbation that lowers the score of any photo (Moosavi-Dezfooli et al., "Universal adversarial perturbations", CVPR 2017).

    Instead of their minimal step image by image, Adam descends the mean of max(target, score) over a batch, and the perturbation is clamped to the
    bound after each step (as Shafahi et al., "Universal adversarial training", AAAI 2020). It serves other sizes by being repeated, since resizing
    would blur it. A random cyclic offset at each step makes it work wherever the scorer's crop or stride grid begins.

    Args:
        scorer: as everywhere here.
        batches: (B, 3, H, W) float RGB in [0, 1] each, of any size; gone through once an epoch, so a list or a loader, not a generator.
        epsilon: largest change of a value, in units of 1/255.
        epochs: passes over the batches.
        size: height and width of the perturbation in px.
        target: score below which a photo is pushed no further.
        learning_rate: of Adam, as a share of epsilon.
        seed: of the offsets.
        progress: called after each epoch.

    Returns:
        (1, 3, height, width) float32 on the CPU, within epsilon / 255 of zero; for ``Universal``.

    Raises:
        ValueError: a batch has another shape, dtype or range, or an epoch finds no batch.
    """
    rng, bound = Generator().manual_seed(seed), epsilon / 255
    perturbation = torch.zeros(1, 3, *size, requires_grad=True)
    adam = torch.optim.Adam([perturbation], lr=learning_rate * bound)
    for epoch in range(epochs):
        empty = True
        for images in batches:
            empty = False
            offset = [int(torch.randint(side, (), generator=rng)) for side in size]
            scores = scorer(_add_tiled(_checked(images), perturbation.roll(offset, (2, 3))))
            (perturbation.grad,) = torch.autograd.grad((scores - target).relu().mean(), perturbation)
            adam.step()
            with torch.no_grad():
                perturbation.clamp_(-bound, bound)
        if empty:
            raise ValueError(f"epoch {epoch + 1} found no batch; batches must be a collection that can be gone through again")
        if progress:
            progress(epoch + 1, epochs)
    return perturbation.detach()


class _Best:
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
def _result(scorer: Scorer, images: Tensor, steps: int) -> Result:
    """Score finished images."""
    return Result(images.detach(), scorer(images), torch.full((len(images),), steps, device=images.device))


def _checked(images: Tensor) -> Tensor:
    """The images without history, in float32 at least: 0.999999 would be 1 in half precision."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"expected (B, 3, H, W) float, got {tuple(images.shape)} {images.dtype}")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"expected values in [0, 1], got {images.min().item():g} to {images.max().item():g}")
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))


def _from_tanh_space(values: Tensor) -> Tensor:
    return (torch.tanh(values) + 1) / 2


def _tone_curves(images: Tensor, rises: Tensor) -> Tensor:
    """Map the values of each channel, (B, 3, H, W), by a curve of linear pieces of equal width; their rises, (B, 3, K), sum to 1."""
    pieces = rises.shape[2]
    knots = F.pad(rises.cumsum(2), (1, 0))
    places = pieces * images.flatten(2)
    index = places.long().clamp(max=pieces - 1)
    return (knots.gather(2, index) + rises.gather(2, index) * (places - index)).view_as(images).clamp(0, 1)


def _add_tiled(images: Tensor, perturbation: Tensor) -> Tensor:
    height, width = images.shape[2:]
    repeats = (1, 1, -(-height // perturbation.shape[2]), -(-width // perturbation.shape[3]))
    return (images + perturbation.to(images).repeat(repeats)[..., :height, :width]).clamp(0, 1)
