"""The frozen part of the U-Net: the first stages of a network that judges quality, forwards, and backwards as its gradient would pass."""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def clamped(x: Tensor, high: float) -> Tensor:
    """Clamp to 0..high, in place; in an exported graph not, which would take ten times as long to trace and saves nothing there."""
    if not torch.jit.is_scripting():  # noqa: SIM102 (TorchScript would compile what is joined to it)
        if torch.compiler.is_exporting():
            return x.clamp(0.0, high)
    return x.clamp_(0.0, high)


class Bottleneck(nn.Module):
    """expand, depthwise, project: the block of which EfficientNet-Lite0 is made (Tan and Le 2019), with the transpose of its Jacobian.

    ReLU6 gates are softened on the way back: a unit half a unit below zero begins to let through. The slope of a network with hard gates is that of
    one point; the slope that leads somewhere is an average over the neighbourhood (as in SmoothGrad, Smilkov et al. 2017). Measured in
    ``docs/experiments.md``.

    Sides should be even where the block halves them. What ``forward`` appends to ``gates``, ``back`` takes off again.
    """

    def __init__(self, expand: nn.Conv2d, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        wide = expand.out_channels
        self.expand = expand
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide)
        self.project = nn.Conv2d(wide, channels, 1)
        self.halves_first, self.halves = expand.stride[0] == 2, stride == 2
        self.first_padding, self.padding = int(expand.padding[0]), kernel // 2
        self.skip = stride == 1 and expand.in_channels == channels

    def forward(self, x: Tensor, gates: list[Tensor]) -> Tensor:
        """Shape: (B, C, H, W) -> (B, C', H', W')."""
        wide = self.expand(x)
        gates.append(self._gate(wide))
        deep = self.depthwise(clamped(wide, 6.0))  # in place: these maps are the largest of the filter
        gates.append(self._gate(deep))
        y = self.project(clamped(deep, 6.0))
        return x + y if self.skip else y

    def back(self, cotangent: Tensor, gates: list[Tensor]) -> Tensor:
        """A cotangent of the output to one of the input. Shape: (B, C', H', W') -> (B, C, H, W)."""
        deep = F.conv2d(cotangent, self.project.weight.transpose(0, 1)).mul_(gates.pop())
        if self.halves:
            wide = F.conv_transpose2d(deep, self.depthwise.weight, None, 2, self.padding, 1, deep.shape[1])
        else:  # the same as a convolution, which is faster
            wide = F.conv2d(deep, self.depthwise.weight.flip(2, 3), None, 1, self.padding, 1, deep.shape[1])
        wide = wide.mul_(gates.pop())
        if self.halves_first:
            x = F.conv_transpose2d(wide, self.expand.weight, None, 2, self.first_padding, 1)
        else:
            x = F.conv2d(wide, self.expand.weight.transpose(0, 1))
        return x + cotangent if self.skip else x

    def _gate(self, x: Tensor) -> Tensor:
        """ReLU6's slope, 1 within 0..6 and 0 outside, rising and falling over one unit."""
        return clamped((x - 3).abs_().neg_().add_(3.5), 1.0)


class Chain(nn.Module):
    """Blocks one after the other; nested rather than listed, because TorchScript walks no list backwards."""

    def __init__(self, blocks: list[Bottleneck]) -> None:
        super().__init__()
        self.first = blocks[0]
        self.rest = Chain(blocks[1:]) if len(blocks) > 1 else End()

    def forward(self, x: Tensor, gates: list[Tensor]) -> Tensor:
        """Shape: as the blocks."""
        return self.rest(self.first(x, gates), gates)

    def back(self, cotangent: Tensor, gates: list[Tensor]) -> Tensor:
        """Shape: as the blocks."""
        return self.first.back(self.rest.back(cotangent, gates), gates)


class End(nn.Module):
    """The end of a chain. Shape: as the input."""

    def forward(self, x: Tensor, gates: list[Tensor]) -> Tensor:
        """Nothing more."""
        return x

    def back(self, cotangent: Tensor, gates: list[Tensor]) -> Tensor:
        """Nothing yet."""
        return cotangent


class Trunk(nn.Module):
    """The first stages of EfficientNet-Lite0 (Liu 2020), batch normalisations folded, frozen.

    Built here rather than by timm, whose import takes longer than camouflaging a photo.

    Shape: (B, 3, H, W) float in [-1, 1], sides divisible by 16 -> maps at strides 4, 8 and 16 with 24, 40 and 112 channels.
    """

    CHANNELS: Final = (24, 40, 112)

    def __init__(self) -> None:
        super().__init__()
        stem = Bottleneck(nn.Conv2d(3, 32, 3, stride=2, padding=1), channels=16, kernel=3)
        self.stride4 = Chain([stem, *self._stage(16, 24, kernel=3, stride=2, depth=2)])
        self.stride8 = Chain(self._stage(24, 40, kernel=5, stride=2, depth=2))
        self.stride16 = Chain([*self._stage(40, 80, kernel=3, stride=2, depth=3), *self._stage(80, 112, kernel=5, stride=1, depth=3)])
        self.requires_grad_(False)

    @staticmethod
    def _stage(channels: int, out: int, kernel: int, stride: int, depth: int) -> list[Bottleneck]:
        """``depth`` blocks that expand six times, the first from ``channels`` and with ``stride``."""
        first = Bottleneck(nn.Conv2d(channels, 6 * channels, 1), out, kernel, stride)
        return [first, *(Bottleneck(nn.Conv2d(out, 6 * out, 1), out, kernel) for _ in range(depth - 1))]

    def copy_from(self, network: nn.Module) -> None:
        """Take over the weights of timm's whole EfficientNet-Lite0, folded. Raises ValueError or RuntimeError for another network."""
        blocks: Any = network.blocks
        first, *stages = blocks[:5]
        convolutions = [network.conv_stem, first[0].conv_dw, first[0].conv_pw]
        for block in (block for stage in stages for block in stage):
            convolutions += [block.conv_pw, block.conv_dw, block.conv_pwl]
        own = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for mine, other in zip(own, convolutions, strict=True):
            mine.load_state_dict(other.state_dict())

    def forward(self, x: Tensor, gates: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Fine, coarse and coarsest map; ``gates`` is filled for ``back``."""
        fine = self.stride4(x, gates)
        coarse = self.stride8(fine, gates)
        return fine, coarse, self.stride16(coarse, gates)

    def back(self, fine: Tensor, coarse: Tensor, coarsest: Tensor, gates: list[Tensor]) -> Tensor:
        """Cotangents of the three maps to one of the image: its slope, were they the slopes of the maps. Shape: -> (B, 3, H, W)."""
        coarse = coarse + self.stride16.back(coarsest, gates)
        return self.stride4.back(fine + self.stride8.back(coarse, gates), gates)
