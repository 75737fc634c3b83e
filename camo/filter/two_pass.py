"""What the filter does to a photo as a whole: a residual for all of it, and for large photos a second one in the centre.

The filter plans a large photo's residual on a reduced copy, as most scorers look at it. In a cut-out at full resolution that residual is smooth and
does little. So the filter looks once more at the centre, as KonCept512 does, and adds a second residual there, of details so fine that they vanish
when the whole is reduced: the two hardly meddle with each other.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from camo.filter.generator import Filter, opaque


def least_large_area(photo_filter: Filter) -> int:
    """Pixels of the smallest photo that gets the second pass."""
    return math.ceil(photo_filter.centre.reduction**2 * photo_filter.working_area)


def fade_in(places: Tensor, length: int, fade: int) -> Tensor:
    """Weight of the second residual at some places along one side of its window: 1 inside, falling to 0 over ``fade`` px at both ends, 0 outside.

    Shape: (N,) float, pixels counted from the window's edge -> (N,) in [0, 1].
    """
    return torch.minimum(places + 0.5, length - 0.5 - places).div(fade).clamp(0, 1)


def pixels_at(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Some rows and columns of an image; a slice would make torch.export ask whether it lies inside. Shape: (B, C, H, W) -> (B, C, rows, columns)."""
    return image.index_select(2, rows).index_select(3, columns)


class TwoPass(nn.Module):
    """Both passes at once, for export: photos of any size on any device, values not rounded, memory in proportion to the photo.

    ``FullSize`` does the same, to 8-bit pixels and in bounded memory.

    Shape: (B, 3, H, W) float RGB in [0, 1], sides of 16 px or more -> the same.

    Args:
        photo_filter: in eval mode.
    """

    def __init__(self, photo_filter: Filter) -> None:
        super().__init__()
        self.filter = photo_filter
        centre = photo_filter.centre
        self.height, self.width, self.louder, self.fade = centre.height, centre.width, centre.louder, centre.fade
        self.smallest, self.least_area = photo_filter.unet.STRIDE, least_large_area(photo_filter)

    def forward(self, original: Tensor, strength: float = 1.0) -> Tensor:
        """Filter a batch; ``strength`` as for the filter."""
        height, width = original.shape[-2], original.shape[-1]
        residual = self.filter.whole_residual(original)
        large, rows, columns = self.window(height, width)
        if torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what is joined to it)
            if large == 0:
                return (original + strength * residual).clamp(0, 1)
        # A graph of torch.export or ONNX has no branch: there a small photo gets a window of 16x16 px, whose residual is multiplied by 0.
        top, left = (height - rows) // 2, (width - columns) // 2
        down, right = torch.arange(height, device=original.device) - top, torch.arange(width, device=original.device) - left
        part = pixels_at(original, top + torch.arange(rows, device=original.device), left + torch.arange(columns, device=original.device))
        second = self.filter(part, strength) - part
        second = pixels_at(second, down.clamp(min=0).clamp(max=rows - 1), right.clamp(min=0).clamp(max=columns - 1))  # outside they weigh 0
        weights = fade_in(down.float(), rows, self.fade)[:, None] * (large * fade_in(right.float(), columns, self.fade))
        return (original + (1 + (self.louder - 1) * large) * strength * residual + second * weights).clamp(0, 1)

    def window(self, height: int, width: int) -> tuple[int, int, int]:
        """Whether a photo is large, 1 or 0, and its window's height and width, without a branch on the size except in TorchScript."""
        if torch.jit.is_scripting():
            return min(1, height * width // self.least_area), min(self.height, height), min(self.width, width)
        else:
            large: Any = torch.sym_min(1, height * width // self.least_area)
            rows: Any = self.smallest + large * (torch.sym_min(self.height, height) - self.smallest)
            columns: Any = self.smallest + large * (torch.sym_min(self.width, width) - self.smallest)
            if torch.compiler.is_exporting():
                rows, columns = opaque(rows), opaque(columns)
            return large, rows, columns
