"""Mixed precision: which one a device can use, and where it is used."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camo import CamoError
from camo.filter.generator import Filter

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_COSINE = 0.98  # between gradients in bf16 and in float32, of any photo


def choose_precision(asked: str, cpu: bool) -> str:
    """Return "no", "bf16" or "fp16" for the setting "auto", "no", "bf16" or "fp16".

    "auto" is what a GPU supports, and "no" on a CPU: there bf16 saves a tenth of the time at best, and takes twenty times as long where it is
    emulated.

    Args:
        asked: the setting.
        cpu: whether the run stays off the GPU.

    Raises CamoError for fp16 without a GPU.
    """
    gpu = not cpu and torch.cuda.is_available()
    if asked == "fp16" and not gpu:  # accelerate itself does not refuse
        raise CamoError("--precision fp16: needs a GPU; choose auto, no or bf16")
    if asked != "auto":
        return asked
    if not gpu:
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast_unet(model: Filter, device: torch.device, precision: str) -> None:
    """Run what the U-Net of ``model`` learns, in place, under autocast to ``precision``. Its frozen trunk and the rest of the filter stay in float32.

    So must everything that follows: bf16 cannot tell neighbouring 8-bit values apart, and gradients that pass through a quality model in bf16, or
    through the trunk, which holds the first stages of one, point elsewhere (cosines of 0.7 to 0.9 with those in float32; with this, 0.98 or more).
    A copy of the model made later would run this model's U-Net, so copy first.
    """
    if precision in DTYPES:
        unet, trunk = model.unet, model.unet.trunk
        full, back = torch.autocast(device.type, enabled=False), trunk.back
        trunk.forward = full(trunk.forward)  # type: ignore[method-assign]
        trunk.back = full(lambda fine, coarse, coarsest, gates: back(fine.float(), coarse.float(), coarsest.float(), gates))  # type: ignore[method-assign]
        unet.forward = torch.autocast(device.type, DTYPES[precision])(unet.forward)  # type: ignore[method-assign]


class InBf16(nn.Module):
    """A quality model under autocast to bf16, whose scores are then a quarter of a point apart; for training alone.

    Args:
        scorer: (B, 3, H, W) float RGB in [0, 1] -> (B,).
        name: as messages name it.
        photos: (B, 3, H, W) float RGB in [0, 1], on the scorer's device, on which the gradients of both precisions are compared.

    Raises CamoError where the gradient of a photo's score points elsewhere: its cosine with that in float32 is below ``LEAST_COSINE``.
    """

    def __init__(self, scorer: nn.Module, name: str, photos: Tensor) -> None:
        super().__init__()
        self.scorer = scorer
        image = photos.clone().requires_grad_()
        full, half = (torch.autograd.grad(model(image).sum(), image)[0].flatten(1) for model in (scorer, self))
        lowest = F.cosine_similarity(full, half).min().item()
        if not lowest >= LEAST_COSINE:
            raise CamoError(f"--biqa-precision bf16: gradients of {name} point elsewhere (cosine {lowest:.2f} with those in float32); choose no")

    def forward(self, image: Tensor) -> Tensor:
        """Scores, (B, 3, H, W) -> (B,) float32."""
        with torch.autocast(image.device.type, torch.bfloat16):
            return self.scorer(image).float()
