"""What the filter is trained for: a low score after the channel, within a budget of distortion that shrinks, and little to see."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from camo.channel import Channel
from camo.metrics import psnr


class Objective(nn.Module):
    """``objective(original, filtered, step) -> (loss, terms)``; the terms add up to the loss, apart from those named ``stat/...``.

    - ``score``: hinge on the score after the channel, down to ``target`` and not further: a score far below the threshold buys nothing.
    - ``budget``: dB by which an image's PSNR falls short of the budget. The budget rises from ``budget_start`` to ``budget_end``: strong first, since
      the score falls fast while the residual may be visible, then weak.
    - the perceptual terms, whole from the step at which the budget is reached, in proportion before.

    Args:
        scorer: frozen quality model, (B, 3, H, W) in [0, 1] -> (B,), 0..100.
        perceptual: (original, filtered) -> named scalar terms.
        channel: (image, generator) -> image.
        target: score at which the hinge ends.
        budget_start, budget_end: PSNR in dB.
        budget_steps: steps over which the budget rises, linearly in dB.
        seed: of the channel's randomness, with the step: the same step draws the same channel, so a resumed run repeats an undisturbed one.
    """

    POINTS = 10.0  # score points that weigh 1
    DECIBELS = 3.0  # dB short of the budget that weigh 1

    def __init__(
        self,
        scorer: nn.Module,
        perceptual: nn.Module,
        channel: Channel,
        target: float,
        budget_start: float,
        budget_end: float,
        budget_steps: int,
        perceptual_weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.scorer, self.perceptual, self.channel = scorer, perceptual, channel
        self.target, self.budget_start, self.budget_end, self.budget_steps = target, budget_start, budget_end, budget_steps
        self.perceptual_weight, self.seed = perceptual_weight, seed

    def forward(self, original: Tensor, filtered: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Shape: two (B, 3, H, W) float RGB in [0, 1] and the step's number -> scalar loss, named scalars (``stat/score_each`` is (B,))."""
        rng = Generator().manual_seed(self.seed * 1_000_003 + step)
        progress = min(1.0, step / max(1, self.budget_steps))
        budget = self.budget_start + (self.budget_end - self.budget_start) * progress
        score = self.scorer(self.channel(filtered, rng)).float()
        decibels = psnr(original, filtered)
        terms = {
            "score": F.relu(score - self.target).mean() / self.POINTS,
            "budget": F.relu(budget - decibels).mean() / self.DECIBELS,
        }
        for name, term in self.perceptual(original, filtered).items():
            terms[name] = self.perceptual_weight * progress * term
        loss = torch.stack(list(terms.values())).sum()
        return loss, terms | {"stat/psnr": decibels.detach().mean(), "stat/budget": loss.new_tensor(budget), "stat/score_each": score.detach()}
