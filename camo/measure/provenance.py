"""What figures were measured with: versions, and hashes of weights."""

from pathlib import Path
from typing import Any

import PIL
import torch

from camo import CamoError, __version__
from camo.photos.files import sha256
from camo.quality import models


def weights_of(spec: str) -> Path:
    """The file that ``camo.quality.models.load`` reads the weights of a quality model from."""
    name, _, file = spec.partition(":")
    if spec == "bundled":
        return models.BUNDLED_WEIGHTS
    if name == "koncept512":
        return Path(file) if file else models.KONCEPT512_WEIGHTS
    return Path(spec)


def versions(biqa: str) -> dict[str, Any]:
    """Versions of this package, torch and Pillow, and the quality model with the hash of its weights, for a JSON file."""
    return {
        "camo": __version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "biqa": biqa,
        "biqa_sha256": sha256(weights_of(biqa)),
    }


def checkpoint_hash(file: Path) -> str:
    """The hash of a filter's checkpoint. Raises CamoError where there is no such file."""
    if not file.is_file():
        raise CamoError(f"{file}: no such checkpoint")
    return sha256(file)
