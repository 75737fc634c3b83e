"""What figures were measured with: versions, and hashes of weights."""

from pathlib import Path
from typing import Any

import PIL
import torch

from camo import CamoError, __version__
from camo.photos.files import sha256
from camo.quality import models


def versions(biqa: str) -> dict[str, Any]:
    """Versions of this package, torch and Pillow, and the quality model with the hash of its weights, for a JSON file."""
    return {
        "camo": __version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "biqa": biqa,
        "biqa_sha256": model_hash(biqa),
    }


def model_hash(biqa: str) -> str | None:
    """The hash of a quality model's weights; None for a pyiqa model, whose weights are pyiqa's own business."""
    weights = models.weights_of(biqa)
    return sha256(weights) if weights else None


def checkpoint_hash(file: Path) -> str:
    """The hash of a filter's checkpoint. Raises CamoError where there is no such file."""
    if not file.is_file():
        raise CamoError(f"{file}: no such checkpoint")
    return sha256(file)
