"""What the filter is trained for: as little to see as possible, while the score after the channel stays low enough."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from camo.measure.metrics import psnr
from camo.training.channel import Channel


class Objective(nn.Module):
    """``objective(original, filtered, step) -> (loss, terms)``; the terms add up to the loss, apart from those named ``stat/...``.

    The least visible change that satisfies a constraint: the mean square of the points by which scores after the channel exceed ``target`` may be
    ``slack`` at most. The weight of the score follows the constraint (``adapt``), as in GECO (Rezende and Viola, "Taming VAEs", 2018): it is large at
    first, falls while the constraint holds, so that the change fades as fast as the filter learns, and rises where too many photos slip through.

    - ``score``: the constrained excess. Squared, so that the hardest photos count most and one far below the target buys nothing.
    - the perceptual terms.

    Args:
        scorer: frozen quality model, (B, 3, H, W) in [0, 1] -> (B,), 0..100.
        perceptual: (original, filtered) -> named scalar terms.
        channel: (image, generator) -> image; none: the scorer sees what the filter gave.
        target: score at which the excess begins.
        slack: excess allowed, in units of (10 points) squared.
        seed: of the channel's randomness, with the step: the same step draws the same channel, so a resumed run repeats an undisturbed one.
    """

    POINTS = 10.0  # score points that weigh 1
    HEAVIEST, LIGHTEST = 15.0, 0.1  # weight of the score against all other terms; it starts with the heaviest
    PACE = 0.01  # largest relative change of the weight in a step

    def __init__(self, scorer: nn.Module, perceptual: nn.Module, channel: Channel | None, target: float, slack: float, seed: int = 0) -> None:
        super().__init__()
        self.scorer, self.perceptual, self.channel = scorer, perceptual, channel
        self.target, self.slack, self.seed = target, slack, seed
        self.weight = self.HEAVIEST

    def forward(self, original: Tensor, filtered: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Shape: two (B, 3, H, W) float RGB in [0, 1] and the step's number -> scalar loss, named scalars (``stat/score_each`` is (B,))."""
        rng = Generator().manual_seed(self.seed * 1_000_003 + step)
        score = self.scorer(self.channel(filtered, rng) if self.channel else filtered).float()
        excess = F.relu((score - self.target) / self.POINTS).square().mean()
        terms = {"score": self.weight * excess, **self.perceptual(original, filtered)}
        terms = {name: term / (1 + self.weight) for name, term in terms.items()}  # a loss of one size, whatever the weight
        stats = {
            "stat/excess": excess.detach(),
            "stat/weight": excess.new_tensor(self.weight),
            "stat/psnr": psnr(original, filtered).detach().mean(),
            "stat/score_each": score.detach(),
        }
        return torch.stack(list(terms.values())).sum(), terms | stats

    def adapt(self, excess: float) -> None:
        """Move the weight of the score by the excess just seen (of all processes)."""
        error = max(-1.0, min(1.0, excess / self.slack - 1))
        self.weight = max(self.LIGHTEST, min(self.HEAVIEST, self.weight * (1 + self.PACE * error)))
