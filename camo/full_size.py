"""Large photos: what is seen of them as a whole, and what a scorer sees that cuts the centre out at full resolution.

The filter plans a large photo's residual on a reduced copy, as most scorers look at it. In a cut-out at full resolution that residual is smooth and
does little. So the filter looks once more at the centre, as KonCept512 does, and adds a second residual there, of details so fine that they vanish
when the whole is reduced: the two hardly meddle with each other.
"""

import torch
from torch import Tensor, nn

from camo.generator import Filter


class FullSize(nn.Module):
    """The filter, and for photos that it reduces by ``REDUCTION`` or more on each axis the filter on their centre 512x384 as well.

    Shape: (B, 3, H, W) float RGB in [0, 1], sides of 16 px or more -> the same.
    """

    HEIGHT, WIDTH = 384, 512  # px, KonCept512's window
    REDUCTION = 2.0  # below it both residuals would lie in the same details
    LOUDER = 1.15  # strength of the first residual there: reducing the photo takes some of it away (chosen on validation photos)
    FADE = 16  # px at the window's border over which the second residual comes in, so that there is no seam

    def __init__(self, photo_filter: Filter) -> None:
        super().__init__()
        self.filter = photo_filter

    def forward(self, original: Tensor, strength: float = 1.0) -> Tensor:
        """Filter a batch; ``strength`` as for the filter."""
        height, width = original.shape[-2:]
        if height * width < self.REDUCTION**2 * self.filter.working_area:
            return self.filter(original, strength)
        filtered = self.filter(original, self.LOUDER * strength)
        top, left = max(0, height - self.HEIGHT) // 2, max(0, width - self.WIDTH) // 2
        window = (..., slice(top, top + self.HEIGHT), slice(left, left + self.WIDTH))
        residual = self.filter(original[window], strength) - original[window]
        fade = self._fade(residual.shape[-2]).outer(self._fade(residual.shape[-1])).to(residual)
        filtered[window] = (filtered[window] + fade * residual).clamp(0, 1)
        return filtered

    def _fade(self, length: int) -> Tensor:
        """Weights along a side of the window: 1, falling to 0 at both ends. Shape: (length,)."""
        return (torch.linspace(0, length - 1, length) + 0.5).minimum(length - 0.5 - torch.arange(length)).div(self.FADE).clamp(max=1)
