"""Mixed precision: which one a device can use, and where it is used."""

import torch

from camo import CamoError
from camo.filter.generator import Filter

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    """Run the U-Net of ``model``, in place, under autocast to ``precision``; the rest of the filter stays in float32.

    The rest and all that follows need it: bf16 cannot tell neighbouring 8-bit values apart, and the gradient of a quality model that is computed in
    bf16 points elsewhere. A copy of the model made later would run this model's U-Net, so copy first.
    """
    if precision in DTYPES:
        model.unet.forward = torch.autocast(device.type, DTYPES[precision])(model.unet.forward)  # type: ignore[method-assign]
