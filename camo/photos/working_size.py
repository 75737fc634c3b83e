"""The size at which a network looks at a photo: the photo's own, or a smaller one."""

import math

import torch


def working_size(height: int, width: int, area: int, smallest: int = 1) -> list[int]:
    """Height and width (pixels) of a photo reduced to about ``area`` pixels in its own proportions; unchanged where it is not larger.

    No side is reduced below ``smallest``. There is no branch on the size, so that torch.export and ONNX carry it as an expression.
    """
    return [_reduced(height, width, area, smallest), _reduced(width, height, area, smallest)]


def _reduced(side: int, other: int, area: int, smallest: int) -> int:
    """sqrt(area * side / other), rounded, between ``smallest`` and ``side``.

    One pixel more in the reduced copy makes another residual, and ONNX takes the root in 32 bits. So that all runtimes agree, it is made
    exact in whole numbers: rounded(sqrt(x)) = (floor(sqrt(4 x)) + 1) // 2, the floor coming from an estimate that is right or 1 too low.
    """
    square = 4 * area * side // other
    estimate = square**0.5 * (1 - 1e-6)
    if torch.jit.is_scripting():
        root = int(estimate)
        root += square // ((root + 1) * (root + 1))
        return max(smallest, min(side, (root + 1) // 2))
    else:  # the same in torch.export's words, which TorchScript does not know
        root = math.trunc(estimate)
        root += square // ((root + 1) * (root + 1))
        return torch.sym_max(smallest, torch.sym_min(side, (root + 1) // 2))
