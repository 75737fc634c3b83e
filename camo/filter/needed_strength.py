"""The strength that each photo needs, foretold in the same pass: many are protected with room to spare, and a change beyond that only shows."""

from typing import Final

import torch
from torch import Tensor, nn

from camo.filter.trunk import Trunk


def map_statistics(maps: list[Tensor]) -> Tensor:
    """Mean and standard deviation of every channel of several maps, (B, C_i, H_i, W_i) -> (B, 2 * sum of C_i) float."""
    statistics: list[Tensor] = []
    for one in maps:
        variance, mean = torch.var_mean(one.float(), dim=(2, 3), correction=0)
        statistics += [mean, (variance + 1e-6).sqrt()]
    return torch.cat(statistics, dim=1)


class NeededStrength(nn.Module):
    """A linear map of the trunk's statistics to the logarithm of the strength, as ``camo.training.needed_strength`` fits it.

    Shape: ``map_statistics`` of the trunk's maps, (B, 352) -> (B, 1, 1, 1), ``LEAST``..``MOST`` times the residual that was trained.
    """

    LEAST: Final = 0.25
    MOST: Final = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * sum(Trunk.CHANNELS), 1)

    def forward(self, statistics: Tensor) -> Tensor:
        """Foretell."""
        return self.linear(statistics).exp().clamp(self.LEAST, self.MOST)[:, :, None, None]
