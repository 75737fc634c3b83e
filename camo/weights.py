"""Where the shipped weights are, and what any file of weights must satisfy."""

from pathlib import Path

from torch import Tensor

from camo import CamoError

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


def require_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise CamoError where one of a file's tensors holds infinities or NaN."""
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise CamoError(f"{path}: {key} holds values that are not finite")
