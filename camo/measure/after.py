"""The score of what a file holds after an operation: 8-bit pixels, the real operation, a quality model."""

import contextlib
import math
from collections.abc import Iterable, Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from camo import CamoError
from camo.measure.operations import GRID, jpeg
from camo.photos.files import reason
from camo.photos.formats import UNLIMITED
from camo.photos.images import to_float

# A side too long for JPEG or WebP, too little memory, a size that a foreign model refuses, a score that is not a number.
UNSCORABLE = (OSError, ValueError, RuntimeError, torch.jit.Error)


@torch.inference_mode()
def scores_after(
    scorer: nn.Module, pictures: Iterable[Tensor | Image.Image], operation: str | int = "none", device: torch.device | str = "cpu"
) -> list[float]:
    """The scores of pictures of one size after an operation, scored as one batch.

    Args:
        scorer: quality model, (B, 3, H, W) float RGB in [0, 1] -> (B,).
        pictures: (3, H, W) uint8 RGB on the CPU each, or RGB pictures of Pillow; a (B, 3, H, W) uint8 tensor will do.
        operation: one of ``camo.measure.operations.GRID``, or the quality, 1..100, of a JPEG with 4:2:0 chroma subsampling.
        device: where the scorer is.

    Raises:
        KeyError: the operation does not exist.
        OSError, ValueError: Pillow cannot do the operation, such as a JPEG with a side of more than 65,535 px.
        RuntimeError: the scorer fails, gives infinity or NaN, or the memory is too small; torch.jit.Error from a TorchScript scorer.
    """
    apply = jpeg(operation) if isinstance(operation, int) else GRID[operation]
    with UNLIMITED:  # whoever read the pictures knew how large they may be
        changed = [pil_to_tensor(apply(to_pil_image(picture) if isinstance(picture, Tensor) else picture)) for picture in pictures]
    scores = scorer(to_float(torch.stack(changed).to(device))).tolist()
    for score in scores:
        if not math.isfinite(score):  # JSON has no NaN, and no mean could hold it
            raise RuntimeError(f"the quality model gave {score}")
    return scores


@contextlib.contextmanager
def unscorable(subject: str) -> Iterator[None]:
    """Turn an error of ``UNSCORABLE``, raised in the block, into a CamoError of one line that begins with the subject."""
    try:
        yield
    except UNSCORABLE as error:
        # TorchScript's messages begin with a traceback.
        text = str(error).splitlines()[-1] if isinstance(error, torch.jit.Error) else reason(error)
        raise CamoError(f"{subject}: {text:.200}") from error
