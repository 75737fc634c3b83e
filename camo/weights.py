"""Where weights are, and what every file of weights must satisfy."""

from pathlib import Path

import torch
from torch import Tensor

from camo import CamoError

_INSTALLED = Path(__file__).resolve().parent / "checkpoints"
_CLONE = Path(__file__).resolve().parents[1] / "checkpoints"

# The shipped files: inside an installed package, or in the folder of the clone (pyproject.toml and setup.py map the one to the other).
CHECKPOINTS = _INSTALLED if _INSTALLED.is_dir() else _CLONE
# Files that are not shipped and that the user adds: beside the shipped ones in a clone; else in torch's own cache, which a user can write to.
USER_CHECKPOINTS = Path(torch.hub.get_dir()) / "checkpoints" if _INSTALLED.is_dir() else _CLONE


def require_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise CamoError where one of a file's tensors holds infinities or NaN."""
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise CamoError(f"{path}: {key} holds values that are not finite")
