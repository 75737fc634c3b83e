"""The size at which a network looks at a photo: the photo's own, or a smaller one."""

import math

import torch


def working_size(height: int, width: int, area: int, smallest: int = 1) -> list[int]:
    """Height and width (pixels) of a photo reduced to about ``area`` pixels in its own proportions; unchanged where it is not larger.

    No side is reduced below ``smallest``. There is no branch on the size, so that torch.export and ONNX carry it as an expression, for any photo.
    """
    return [_reduced(height, width, area, smallest), _reduced(width, height, area, smallest)]


def _reduced(side: int, other: int, area: int, smallest: int) -> int:
    rounded = (area * side / other) ** 0.5 + 0.5  # side * sqrt(area / (side * other)), to be cut to a whole number
    if torch.jit.is_scripting():
        return max(smallest, min(side, int(rounded)))
    else:  # TorchScript knows no symbolic minimum, torch.export no other
        return torch.sym_max(smallest, torch.sym_min(side, math.trunc(rounded)))
