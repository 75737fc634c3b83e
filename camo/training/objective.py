"""The training objective: the least visible change whose scores after the channel are low enough."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from camo.measure.metrics import psnr
from camo.training.channel import Channel


class Objective(nn.Module):
    """``objective(original, filtered) -> (loss, terms)``; the terms add up to the loss, apart from those named ``stat/...``.

    It asks for the least visible change that satisfies one constraint per quality model: the mean square of the points by which its scores after the
    channel exceed its target may be ``slack`` at most. The weight of each model's scores follows its constraint (``adapt``), as in GECO (Rezende and
    Viola, "Taming VAEs", 2018): it is large at first, falls while the constraint holds, so that the change fades as fast as the filter learns, and
    rises when too many photos score above the target. So no model lags behind the others: the harder one is to fool, the more it weighs.

    - ``score``: the constrained excess, summed over the models. Squared, so that the hardest photos count most and one far below the target buys
      nothing.
    - the perceptual terms.

    Args:
        scorers: frozen quality models by name, (B, 3, H, W) in [0, 1] -> (B,), 0..100.
        perceptual: (original, filtered) -> named scalar terms.
        channel: (image, generator) -> image; None: the scorers see the filter's output itself.
        targets: for each model, the score at which the excess begins.
        slack: excess allowed, in units of (10 points) squared.
        seed: with ``step``, it decides what the channel draws, so that a resumed run draws what an undisturbed one does.
        in_turn: only one model scores in each step.

    Attributes:
        step: how often the objective was called. Set it, and ``weights``, to resume.
        weights: of each model's scores, against all other terms.
    """

    POINTS = 10.0  # points of excess that count as 1
    HEAVIEST, LIGHTEST = 45.0, 0.1  # range of the weights of the scores; they start with the heaviest
    PACE = 0.01  # largest relative change of a weight in one call of ``adapt``

    def __init__(
        self,
        scorers: Mapping[str, nn.Module],
        perceptual: nn.Module,
        channel: Channel | None,
        targets: Sequence[float],
        slack: float,
        seed: int = 0,
        in_turn: bool = False,
    ) -> None:
        super().__init__()
        self.scorers, self.perceptual, self.channel = dict(scorers), perceptual, channel
        self.targets, self.slack, self.seed, self.in_turn = targets, slack, seed, in_turn
        self.step, self.weights = 0, [self.HEAVIEST] * len(self.scorers)

    def forward(self, original: Tensor, filtered: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Shape: two (B, 3, H, W) float RGB in [0, 1] -> scalar loss, named scalars.

        Beside the scalars, ``stat/score MODEL`` is (B,), and ``stat/excess`` (M,), NaN for a model that did not score in this step.
        """
        rng = Generator().manual_seed(self.seed * 1_000_003 + self.step)
        shared = self.channel(filtered, rng) if self.channel else filtered
        excesses = original.new_full((len(self.scorers),), math.nan)
        scores, stats = original.new_zeros(()), dict[str, Tensor]()
        for number, (name, scorer) in enumerate(self.scorers.items()):
            if self.in_turn and number != self.step % len(self.scorers):
                continue
            score = scorer(shared).float()
            excess = F.relu((score - self.targets[number]) / self.POINTS).square().mean()
            scores = scores + self.weights[number] * excess
            excesses[number] = excess.detach()
            stats |= {f"stat/score {name}": score.detach(), f"stat/weight {name}": original.new_tensor(self.weights[number])}
        self.step += 1
        terms = {"score": scores, **self.perceptual(original, filtered)}
        total = sum(weight for weight, excess in zip(self.weights, excesses.isfinite().tolist(), strict=True) if excess)
        terms = {name: term / (1 + total) for name, term in terms.items()}  # a loss of one size, whatever the weights
        stats |= {"stat/excess": excesses, "stat/psnr": psnr(original, filtered).detach().mean()}
        return torch.stack(list(terms.values())).sum(), terms | stats

    def adapt(self, excesses: Sequence[float]) -> None:
        """Move the weights of the scores, once per update of the filter, by the mean excesses of all crops that the update is made from.

        A model whose excess is NaN, since it did not score, keeps its weight.
        """
        for number, excess in enumerate(excesses):
            if not math.isnan(excess):
                error = max(-1.0, min(1.0, excess / self.slack - 1))
                self.weights[number] = max(self.LIGHTEST, min(self.HEAVIEST, self.weights[number] * (1 + self.PACE * error)))
