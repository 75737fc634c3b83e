"""Film grain: Gaussian noise through an autoregressive filter, as in AV1's film grain synthesis (Norkin and Birkbeck, DCC 2018).

As there, a tile of grain is made once, and a place in it is drawn for each photo; the strength is a curve of luma (``camo.filter.looks``).
"""

from typing import Final

import torch
from torch import Tensor, nn

SEED = 0  # of the tile
TILE = 1024  # grains on each side of it
GRAINS = 768  # along a photo's short side, where that has as many pixels


def autoregressive_tile(texture: float) -> Tensor:
    """A field x of zero mean and unit variance with (1 - a L)(1 - a U) x = white noise, L and U the left and upper neighbours, without borders.

    A grain's correlation with the one ``d`` to the side and ``e`` up is a^(d + e). The recursion on a torus is a division in the frequency domain.
    The tile is always the same.

    Shape: -> (TILE, TILE) float.

    Args:
        texture: a, from 0 to below 1.
    """
    white = torch.randn(TILE, TILE, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    shift = 1 - texture * torch.exp(-2j * torch.pi * torch.arange(TILE, dtype=torch.float64) / TILE)
    grain = torch.fft.ifft2(torch.fft.fft2(white) / (shift[:, None] * shift)).real
    return ((grain - grain.mean()) / grain.std()).float()


class Grain(nn.Module):
    """Grain for a part of a photo's rows, of unit variance at every pixel.

    A grain is as large as a pixel on photos whose short side has up to ``GRAINS`` px, and grows with larger ones, so that the grain is as coarse on a
    photo of any size once it is shown at one size.

    Args:
        texture: correlation of neighbouring grains.
    """

    TILE: Final = TILE
    GRAINS: Final = GRAINS

    tile: Tensor

    def __init__(self, texture: float) -> None:
        super().__init__()
        self.texture = texture
        self.register_buffer("tile", autoregressive_tile(texture), persistent=False)

    def forward(self, seed: Tensor, rows: Tensor, columns: Tensor, short: Tensor) -> Tensor:
        """The grain at some rows and columns. Shape: -> (B, 1, rows, columns) float.

        Args:
            seed: (B,) int64, not negative: which place of the tile each photo gets.
            rows, columns: (rows,) and (columns,) float, pixels counted from the photo's edges.
            short: () float, the photo's short side in pixels.
        """
        ratio = (self.GRAINS / short).clamp(max=1)
        above, down = self._weights((rows + 0.5) * ratio - 0.5)
        left, right = self._weights((columns + 0.5) * ratio - 0.5)
        lines = torch.remainder(above[None] + (seed // self.TILE)[:, None], self.TILE)
        tile = self.tile[lines] * down[0][:, None] + self.tile[torch.remainder(lines + 1, self.TILE)] * down[1][:, None]  # (B, rows, TILE)
        side = (left[None] + seed[:, None])[:, None]
        before, after = (torch.remainder(side + step, self.TILE).expand(-1, lines.shape[1], -1) for step in (0, 1))
        return (tile.gather(2, before) * right[0] + tile.gather(2, after) * right[1])[:, None]

    def _weights(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """The grain at or before each place, (N,) int64, and the weights of it and its neighbour, (2, N), that keep the variance of their sum."""
        before = place.floor()
        after = place - before
        weights = torch.stack([1 - after, after])
        deviation = (1 - 2 * (1 - self.texture) * after * (1 - after)).sqrt()  # of neighbours with this correlation
        return before.long(), weights / deviation
