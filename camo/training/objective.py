"""The training objective: the least visible change whose score after the channel is low enough."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from camo.measure.metrics import psnr
from camo.training.channel import Channel


class Objective(nn.Module):
    """``objective(original, filtered) -> (loss, terms)``; the terms add up to the loss, apart from those named ``stat/...``.

    It asks for the least visible change that satisfies a constraint: the mean square of the points by which scores after the channel exceed
    ``target`` may be ``slack`` at most. The weight of the score follows the constraint (``adapt``), as in GECO (Rezende and Viola, "Taming VAEs",
    2018): it is large at first, falls while the constraint holds, so that the change fades as fast as the filter learns, and rises when too many
    photos score above the target.

    - ``score``: the constrained excess. Squared, so that the hardest photos count most and one far below the target buys nothing.
    - the perceptual terms.

    Args:
        scorer: frozen quality model, (B, 3, H, W) in [0, 1] -> (B,), 0..100.
        perceptual: (original, filtered) -> named scalar terms.
        channel: (image, generator) -> image; None: the scorer sees the filter's output itself.
        target: score at which the excess begins.
        slack: excess allowed, in units of (10 points) squared.
        seed: with ``step``, it decides what the channel draws, so that a resumed run draws what an undisturbed one does.

    Attributes:
        step: how often the objective was called. Set it, and ``weight``, to resume.
        weight: of the score, against all other terms.
    """

    POINTS = 10.0  # points of excess that count as 1
    HEAVIEST, LIGHTEST = 15.0, 0.1  # range of the weight of the score; it starts with the heaviest
    PACE = 0.01  # largest relative change of the weight in one call of ``adapt``

    def __init__(self, scorer: nn.Module, perceptual: nn.Module, channel: Channel | None, target: float, slack: float, seed: int = 0) -> None:
        super().__init__()
        self.scorer, self.perceptual, self.channel = scorer, perceptual, channel
        self.target, self.slack, self.seed = target, slack, seed
        self.step, self.weight = 0, self.HEAVIEST

    def forward(self, original: Tensor, filtered: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Shape: two (B, 3, H, W) float RGB in [0, 1] -> scalar loss, named scalars (``stat/score_each`` is (B,))."""
        rng = Generator().manual_seed(self.seed * 1_000_003 + self.step)
        self.step += 1
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
        """Move the weight of the score, once per update of the filter, by the mean excess of all crops that the update is made from."""
        error = max(-1.0, min(1.0, excess / self.slack - 1))
        self.weight = max(self.LIGHTEST, min(self.HEAVIEST, self.weight * (1 + self.PACE * error)))
