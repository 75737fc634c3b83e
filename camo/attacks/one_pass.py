"""The trained filter in the interface of the attacks, to stand beside them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from camo.attacks.attack import Progress, Result, Scorer
from camo.filter.full_size import FullSize
from camo.photos.images import to_float, to_uint8


@dataclass(frozen=True)
class OnePass:
    """A trained generator in the attacks' interface. It never asks the scorer."""

    model: FullSize

    def __call__(self, scorer: Scorer, images: Tensor, progress: Progress | None = None) -> Result:
        """Filter; (B, 3, H, W) in [0, 1], at multiples of 1/255, as files hold them."""
        filtered = to_float(self.model(to_uint8(images).cpu())).to(images.device)
        nothing = torch.zeros(len(images))
        return Result(filtered, nothing, nothing.long())
