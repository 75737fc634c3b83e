"""One perturbation for all photos: trained once, then added."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from camo.attacks.attack import Progress, Result, Scorer, checked, finished


@dataclass(frozen=True, eq=False)  # tensors have no single answer to ==
class Universal:
    """One perturbation for all photos, (1, 3, h, w) float, from ``universal``; repeated from the top left corner and cut to each photo's size."""

    perturbation: Tensor

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Add the perturbation; the scorer is only asked for the result's scores."""
        images = checked(images)
        result = finished(scorer, _add_tiled(images, self.perturbation), 0)
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
            scores = scorer(_add_tiled(checked(images), perturbation.roll(offset, (2, 3))))
            (perturbation.grad,) = torch.autograd.grad((scores - target).relu().mean(), perturbation)
            adam.step()
            with torch.no_grad():
                perturbation.clamp_(-bound, bound)
        if empty:
            raise ValueError(f"epoch {epoch + 1} found no batch; batches must be a collection that can be gone through again")
        if progress:
            progress(epoch + 1, epochs)
    return perturbation.detach()


def _add_tiled(images: Tensor, perturbation: Tensor) -> Tensor:
    height, width = images.shape[2:]
    repeats = (1, 1, -(-height // perturbation.shape[2]), -(-width // perturbation.shape[3]))
    return (images + perturbation.to(images).repeat(repeats)[..., :height, :width]).clamp(0, 1)
