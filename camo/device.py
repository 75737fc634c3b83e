"""Which device a network runs on."""

import itertools

import torch
from torch import nn

from camo import CamoError
from camo.photos.files import reason


def choose(name: str | None = None) -> torch.device:
    """The device of that name, ready for use; without a name cuda where there is a GPU, else mps, else cpu.

    Raises CamoError, which names ``--device``, for a device that torch does not know or that cannot be used here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        probe = torch.zeros(1, device=torch.device(name))
        probe.item()  # the device "meta" can hold a tensor, but no values
    except (AssertionError, ImportError, RuntimeError) as error:  # AssertionError: torch was built without this kind of device
        raise CamoError(f"--device {name}: cannot be used: {reason(error):.200}") from error
    return probe.device


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters or, where it has none, of its buffers; the CPU where it has neither."""
    return next((tensor.device for tensor in itertools.chain(module.parameters(), module.buffers())), torch.device("cpu"))
